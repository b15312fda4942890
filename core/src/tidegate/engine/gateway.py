"""The gateway listener as a proxy mode: `gateway:NAME@HOST:PORT`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from mitmproxy.proxy import mode_specs

METHODS: Final = frozenset(
    b"ACL BIND CHECKOUT CONNECT COPY DELETE GET HEAD LINK LOCK M-SEARCH MERGE MKACTIVITY "
    b"MKCALENDAR MKCOL MOVE NOTIFY OPTIONS PATCH POST PROPFIND PROPPATCH PURGE PUT QUERY REBIND "
    b"REPORT SEARCH SOURCE SUBSCRIBE TRACE UNBIND UNLINK UNLOCK UNSUBSCRIBE".split()
)
"""The methods that the lane's parser knows: a gateway listener takes the same on both carriers."""


@dataclass(frozen=True)
class GatewayMode(mode_specs.ProxyMode):  # type: ignore[no-untyped-call]
    """A listener of `[gateway]`; `data` is its name."""

    description = "gateway"
    transport_protocol: Literal["tcp"] = "tcp"

    def __post_init__(self) -> None:
        if not self.data:
            raise ValueError("a gateway mode names its listener")
