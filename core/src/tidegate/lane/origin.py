"""A connection to an upstream: feeds what arrives to the exchange that it carries."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, cast

from .responses import ResponseReader

if TYPE_CHECKING:
    from .delivery import Delivery
    from .pool import Endpoint


class Origin(asyncio.Protocol):
    """One pooled connection. `delivery` is None while it is idle."""

    __slots__ = (
        "born",
        "delivery",
        "endpoint",
        "idle_since",
        "outbox",
        "paused",
        "pooled",
        "reader",
        "tls",
        "transport",
        "used",
        "writable",
    )

    def __init__(self, endpoint: Endpoint, now: float) -> None:
        self.endpoint = endpoint
        self.outbox = endpoint.pool.outbox
        self.reader = ResponseReader()
        self.delivery: Delivery | None = None
        self.transport: asyncio.Transport | None = None
        self.born = now
        self.idle_since = now
        self.used = False
        """Whether it has carried an exchange before the present one."""
        self.writable = True
        self.paused = False
        """Whether reading is paused because the client is slow."""
        self.pooled = False
        """Whether its endpoint counts it."""
        self.tls: ssl.SSLObject | None = None

    # -- asyncio's callbacks --------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport = cast(asyncio.Transport, transport)
        self.tls = transport.get_extra_info("ssl_object")

    def data_received(self, data: bytes) -> None:
        delivery = self.delivery
        if delivery is None:
            self.close()  # nobody asked: whatever it is, it must not answer the next exchange
            return
        self.reader.feed(data)
        delivery.received()

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        delivery = self.delivery
        self.endpoint.lost(self)
        if delivery is not None:
            reader = self.reader
            if error is not None:
                reader.until_close = False
            reader.closed()
            delivery.received()

    def pause_writing(self) -> None:
        self.writable = False
        if self.delivery is not None:
            self.delivery.upstream_full()

    def resume_writing(self) -> None:
        self.writable = True
        if self.delivery is not None:
            self.delivery.upstream_ready()

    # -- for the exchange -----------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Whether it can be written to."""
        return self.transport is not None and not self.transport.is_closing()

    def begin(self, delivery: Delivery, *, head_only: bool) -> None:
        """Carry an exchange."""
        self.delivery = delivery
        self.reader.expect(head_only=head_only)

    def write(self, data: bytes) -> None:
        """Send bytes of the request."""
        if self.transport is not None:
            self.outbox.put(self.transport, data)

    def release(self) -> None:
        """The exchange is over: go back to the pool, or close."""
        self.delivery = None
        self.used = True
        self.endpoint.give_back(self)

    def close(self) -> None:
        """Close at once; what is not yet written is dropped."""
        self.delivery = None
        if self.transport is not None:
            self.transport.abort()
