"""The gateway listener as a proxy mode: `gateway:NAME@HOST:PORT`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mitmproxy.proxy import mode_specs


@dataclass(frozen=True)
class GatewayMode(mode_specs.ProxyMode):  # type: ignore[no-untyped-call]
    """A listener of `[gateway]`; `data` is its name."""

    description = "gateway"
    transport_protocol: Literal["tcp"] = "tcp"

    def __post_init__(self) -> None:
        if not self.data:
            raise ValueError("a gateway mode names its listener")
