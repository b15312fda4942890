"""What the engine asks of the lane, and takes from it: HTTP/2 and WebSocket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Any, Protocol, cast

from tidegate.api.types import Client
from tidegate.runtime.settings import Listener, Settings


class Handover(Protocol):
    """A connection that changes hands; `data` is what is to be read first."""

    @property
    def listener(self) -> Listener: ...
    @property
    def transport(self) -> asyncio.Transport: ...
    @property
    def data(self) -> bytes: ...
    @property
    def client(self) -> Client: ...


class Lane(Protocol):
    """The other carrier, as the engine starts, drains and stops it.

    `handover` is set by the engine: it takes connections that ask for a WebSocket. `clients`
    are the open connections, `active` counts the exchanges in progress. Once `draining` is set,
    answers say that their connection closes.
    """

    handover: Callable[[Any], None] | None
    draining: bool

    @property
    def active(self) -> int: ...
    @property
    def clients(self) -> Collection[Any]: ...
    def protocol(self, listener: Listener) -> asyncio.Protocol: ...
    def tls(self, listener: Listener) -> Any: ...
    def reconfigure(self, settings: Settings) -> None: ...
    async def drain(self, seconds: float) -> None: ...
    async def stop(self) -> None: ...


class Chooser(asyncio.Protocol):
    """The first protocol of a TLS connection: ALPN says who carries it."""

    def __init__(
        self,
        http1: Callable[[], asyncio.Protocol],
        http2: Callable[[asyncio.Transport], None],
    ) -> None:
        self._http1 = http1
        self._http2 = http2

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        chosen = cast(asyncio.Transport, transport)
        tls = chosen.get_extra_info("ssl_object")
        if tls.selected_alpn_protocol() == "h2":
            self._http2(chosen)
            return
        protocol = self._http1()
        chosen.set_protocol(protocol)
        protocol.connection_made(chosen)
