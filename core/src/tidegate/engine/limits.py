"""What the settings in force allow, for code deep in mitmproxy's layers.

One Master per process is mitmproxy's own rule, so its global `ctx` is where they are found.
"""

from __future__ import annotations

from typing import cast

from mitmproxy import ctx

from tidegate.runtime.settings import Deadlines, Gateway, Limits


def gateway() -> Gateway:
    """`[gateway]` as it is now."""
    return cast(Gateway, ctx.master.gateway)  # type: ignore[attr-defined]


def limits() -> Limits:
    """`[gateway.limits]` as it is now."""
    return gateway().limits


def deadlines() -> Deadlines:
    """`[gateway.deadlines]` as it is now."""
    return gateway().deadlines
