"""The lane of a worker: its connections, its clock, its upstreams."""

from __future__ import annotations

import asyncio
import logging
import resource
import time
from collections.abc import Callable
from typing import Any, Final

from tidegate.api import errors
from tidegate.runtime.heads import TrustedProxies
from tidegate.runtime.lifecycle import Runtime
from tidegate.runtime.load import Load
from tidegate.runtime.settings import Listener, Settings

from .client import ClientConnection
from .detached import fetch
from .handover import Handover
from .outbox import Outbox
from .pool import Pool
from .tls import ServerTls

log = logging.getLogger("tidegate.lane")

SPARE_FILES: Final = 64
"""File descriptors that are kept for logs, stores and the like."""
LINGERERS: Final = 256
"""Connections over the limit that get to read their refusal at a time."""
TICK: Final = 0.25
"""Seconds between looks at the deadlines: how late one may be noticed."""
HOUSEKEEPING: Final = 8
"""Ticks between looks at idle upstream connections and certificate files."""
FLUSH: Final = 1.0
"""Seconds that the last bytes of a cut stream get to leave."""


class Lane:
    """Carries HTTP/1.1 exchanges. One per worker, made on its running loop.

    `protocol(listener)` makes the protocol of one client connection, for `loop.create_server`.
    `handover` takes connections whose client asks for a WebSocket; without it they are refused.

    Attributes:
        active: exchanges in progress.
        now: monotonic seconds, as of the last tick.
    """

    def __init__(
        self,
        runtime: Runtime,
        settings: Settings,
        *,
        handover: Callable[[Handover], None] | None = None,
    ) -> None:
        self.runtime = runtime
        self.handover = handover
        self.loop = asyncio.get_running_loop()
        self.clients: set[ClientConnection] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self.outbox = Outbox(self.loop)
        self.pool = Pool(settings.base, self.outbox)
        self.active = 0
        self.draining = False
        self.now = self.pool.now = time.monotonic()
        self._ticks = 0
        self.load = Load(TICK, self.now)
        self.shedding = False
        self._tls: dict[str, ServerTls] = {}
        self._configure(settings)
        self._timer = self.loop.call_later(TICK, self._tick)
        runtime.fetcher = lambda exchange: fetch(self, exchange)

    def _configure(self, settings: Settings) -> None:
        gateway = settings.gateway
        deadlines, limits = gateway.deadlines, gateway.limits
        self.settings = settings
        self.load.configure(gateway)
        self.paths = gateway.paths
        self.forwarding = gateway.forwarding
        self.proxies = TrustedProxies(gateway.trusted_proxies)
        self.head, self.keepalive = deadlines.head, deadlines.keepalive
        self.body_idle, self.write, self.hooks = deadlines.body, deadlines.write, deadlines.hooks
        self.body_limit, self.gather_limit = limits.body, limits.gather
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.lingerers = min(LINGERERS, files // 8)
        room = max(1, (files - SPARE_FILES - self.lingerers) // 2)  # two descriptors for each
        self.connections = min(limits.connections, room)

    def reconfigure(self, settings: Settings) -> None:
        """Take new limits, deadlines and certificates; connections that exist go on."""
        self._configure(settings)
        self.pool.base = settings.base
        self.pool.forget()
        for tls in self._tls.values():
            tls.refresh()

    def protocol(self, listener: Listener) -> asyncio.Protocol:
        """The protocol of a new client connection."""
        return ClientConnection(self, listener)

    def tls(self, listener: Listener) -> Any:
        """The `ssl.SSLContext` for `loop.create_server`, or None where it speaks no TLS.

        Raises OSError or ssl.SSLError where a file can't be read.
        """
        if listener.cert is None:
            return None
        tls = self._tls[listener.name] = ServerTls(listener, self.settings.base)
        return tls.context

    # -- connections ----------------------------------------------------------------------------

    def admit(self, connection: ClientConnection) -> bool:
        """Count a new connection; False where there are too many."""
        self.clients.add(connection)
        self._empty.clear()
        return len(self.clients) <= self.connections

    def forget(self, connection: ClientConnection) -> None:
        """A connection is gone."""
        self.clients.discard(connection)
        if not self.clients:
            self._empty.set()

    # -- the clock ------------------------------------------------------------------------------

    def _tick(self) -> None:
        now = self.now = self.pool.now = time.monotonic()
        self.shedding = self.load.tick(now, time.process_time())
        self._timer = self.loop.call_later(TICK, self._tick)
        due = [c for c in self.clients if now >= c.deadline or now >= c.stall or now >= c.total]
        for connection in due:
            connection.expired(now)
        self._ticks += 1
        if self._ticks % HOUSEKEEPING == 0:
            self.pool.sweep(now)
            for tls in self._tls.values():
                tls.refresh()

    # -- the end --------------------------------------------------------------------------------

    async def drain(self, seconds: float) -> None:
        """Finish what is in progress, for up to `seconds`; end what is left with an error."""
        self.draining = True
        for connection in list(self.clients):
            connection.drain()
        await self._until_empty(seconds)
        for connection in list(self.clients):
            if connection.carriage is not None:
                connection.carriage.fail(errors.DRAINING.denial())
        await self._until_empty(FLUSH)

    async def _until_empty(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._empty.wait()
        except TimeoutError:
            pass

    async def stop(self) -> None:
        """Close everything at once."""
        self._timer.cancel()
        for connection in list(self.clients):
            connection.abort()
        await self.pool.close()
        await self._empty.wait()
