"""The test kit: for authors of plugins, and for Tidegate's own tests.

Names are imported on first use, so that the pytest plugin costs other projects nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from . import faults, script, streams
    from .clock import Clock
    from .contracts import (
        AuthContract,
        AuthorizeContract,
        CacheContract,
        Contract,
        LogContract,
        PluginContract,
        RouteContract,
        TransformContract,
    )
    from .exchanges import make_answer, make_exchange
    from .gateway import Gateway, GatewayError, ReloadRefused
    from .harness import Cut, Harness, Use
    from .install import install_plugin
    from .platform import Platform, make_consumer
    from .script import Received, Turn
    from .upstream import ScriptedUpstream

__all__ = [
    "AuthContract",
    "AuthorizeContract",
    "CacheContract",
    "Clock",
    "Contract",
    "Cut",
    "Gateway",
    "GatewayError",
    "Harness",
    "LogContract",
    "Platform",
    "PluginContract",
    "Received",
    "ReloadRefused",
    "RouteContract",
    "ScriptedUpstream",
    "TransformContract",
    "Turn",
    "Use",
    "faults",
    "install_plugin",
    "make_answer",
    "make_consumer",
    "make_exchange",
    "script",
    "streams",
]

_HOMES: Final = {
    "Clock": "clock",
    "Cut": "harness",
    "Gateway": "gateway",
    "GatewayError": "gateway",
    "Harness": "harness",
    "Platform": "platform",
    "Received": "script",
    "ReloadRefused": "gateway",
    "ScriptedUpstream": "upstream",
    "Turn": "script",
    "Use": "harness",
    "install_plugin": "install",
    "make_answer": "exchanges",
    "make_consumer": "platform",
    "make_exchange": "exchanges",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in ("faults", "script", "streams"):
        return import_module(f".{name}", __name__)
    return getattr(import_module(f".{_HOMES.get(name, 'contracts')}", __name__), name)
