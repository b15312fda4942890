"""Upstream connections, shared by all clients of a worker.

A `Pool` has an `Endpoint` for each origin that is told apart by address and TLS identity. An
exchange takes an idle connection at once, or waits in its endpoint's queue: for one that is
dialled for it, or for one that another exchange gives back first.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tidegate.api import errors
from tidegate.api.upstream import Upstream
from tidegate.runtime.dial import DialError, allowed, connect, resolve

from .origin import Origin
from .outbox import Outbox
from .tls import ResumingContext, client_context

if TYPE_CHECKING:
    from .delivery import Delivery

log = logging.getLogger("tidegate.lane.pool")

IDLE: Final = 60.0
"""Seconds that a connection may be idle."""
LIFETIME: Final = 600.0
"""Seconds after which a connection is not used again."""
TTL: Final = 30.0
"""Seconds for which resolved addresses are used."""
QUEUE: Final = 1024
"""Exchanges that may wait for a connection of one endpoint."""
REMEMBERED: Final = 1024
"""Upstream objects whose endpoint is remembered by identity."""

type Key = tuple[object, ...]


class Endpoint:
    """The connections to one origin."""

    __slots__ = (
        "_addresses",
        "_context",
        "_dialling",
        "_resolved",
        "idle",
        "limit",
        "open",
        "pool",
        "upstream",
        "waiting",
    )

    def __init__(self, pool: Pool, upstream: Upstream) -> None:
        self.pool = pool
        self.upstream = upstream
        self.limit = upstream.max_connections
        self.idle: list[Origin] = []
        self.open = 0
        """Connections that exist or are being dialled."""
        self.waiting: deque[Delivery] = deque()
        self._dialling = 0
        self._addresses: list[str] = []
        self._resolved = 0.0
        self._context: ResumingContext | None = None

    @property
    def full(self) -> bool:
        """Whether all connections that there may be are in use."""
        return self.open >= self.limit and not self.idle

    def take(self, delivery: Delivery, *, fresh: bool = False) -> Origin | None:
        """An idle connection; or None: `delivery.connected` or `not_connected` will follow."""
        idle = self.idle
        now = self.pool.now
        while idle and not fresh:
            origin = idle.pop()
            if origin.alive and now - origin.born < LIFETIME and now - origin.idle_since < IDLE:
                return origin
            origin.close()
        if fresh:
            self.waiting.appendleft(delivery)
        else:
            self.waiting.append(delivery)
        if self.open >= self.limit and len(self.waiting) > QUEUE:
            self.waiting.remove(delivery)
            self.pool.loop.call_soon(
                delivery.not_connected, DialError(errors.UPSTREAM_BUSY, "its queue is full")
            )
        self._fill()
        return None

    def leave(self, delivery: Delivery) -> None:
        """An exchange does not wait any longer."""
        try:
            self.waiting.remove(delivery)
        except ValueError:
            pass

    def give_back(self, origin: Origin) -> None:
        """A connection whose exchange is over."""
        now = self.pool.now
        if not (origin.alive and origin.reader.reusable and now - origin.born < LIFETIME):
            origin.close()
            return
        origin.idle_since = now
        self.idle.append(origin)
        if self.waiting:
            self.pool.loop.call_soon(self._serve)

    def _serve(self) -> None:
        """Give idle connections to those who wait."""
        while self.waiting and self.idle:
            origin = self.idle.pop()
            if origin.alive:
                self.waiting.popleft().connected(origin)
        self._fill()

    def lost(self, origin: Origin) -> None:
        """A connection is gone."""
        if not origin.pooled:
            return  # the loser of a race between addresses
        self.open -= 1
        if self._context is not None:
            self._context.remember(origin.tls)
        if origin.delivery is None and origin in self.idle:
            self.idle.remove(origin)
        self._fill()

    def sweep(self, now: float) -> None:
        """Close connections that were idle for too long, oldest first."""
        while self.idle and now - self.idle[0].idle_since > IDLE:
            self.idle.pop(0).close()

    def close_idle(self) -> None:
        """Close all idle connections."""
        idle, self.idle = self.idle, []
        for origin in idle:
            origin.close()

    def forget(self) -> None:
        """Read TLS files and resolve names anew."""
        self._context = None
        self._resolved = 0.0
        self.close_idle()

    # -- dialling -------------------------------------------------------------------------------

    def _fill(self) -> None:
        while len(self.waiting) > self._dialling and self.open < self.limit:
            self.open += 1
            self._dialling += 1
            self.pool.background(self._dial())

    async def _dial(self) -> None:
        origin: Origin | None = None
        failure: DialError | None = None
        try:
            origin = await self._connect()
        except DialError as error:
            failure = error
        except TimeoutError:
            failure = DialError(errors.UPSTREAM_TIMEOUT, "resolving its name took too long")
        except asyncio.CancelledError:
            self.open -= 1
            self._dialling -= 1
            raise
        except Exception as error:
            log.exception("upstream %s: dialling failed", self.upstream.name)
            failure = DialError(errors.UPSTREAM_UNREACHABLE, str(error))
        self._dialling -= 1
        if origin is not None:
            origin.pooled = True
            self.idle.append(origin)
            self._serve()
            return
        assert failure is not None
        self.open -= 1
        self._resolved = 0.0
        if self.waiting:
            self.waiting.popleft().not_connected(failure)
        self._fill()

    async def _connect(self) -> Origin:
        pool, upstream = self.pool, self.upstream
        if not self._addresses or pool.now - self._resolved > TTL:
            async with asyncio.timeout(upstream.timeouts.connect):
                self._addresses = await resolve(pool.loop, upstream.host, upstream.port)
            self._resolved = pool.now
        addresses = allowed(upstream, self._addresses)
        if upstream.scheme == "https" and self._context is None:
            try:
                self._context = client_context(upstream.tls, pool.base)
            except (OSError, ssl.SSLError) as error:
                raise DialError(errors.UPSTREAM_TLS_INVALID, str(error)) from None
        return await connect(
            pool.loop, upstream, addresses, self._context, lambda: Origin(self, pool.now)
        )


class Pool:
    """All endpoints of a worker."""

    def __init__(self, base: Path, outbox: Outbox) -> None:
        self.base = base
        self.outbox = outbox
        self.now = 0.0
        """Monotonic seconds, coarse: the lane's tick sets it."""
        self.loop = asyncio.get_running_loop()
        self._endpoints: dict[Key, Endpoint] = {}
        self._by_upstream: dict[Upstream, Endpoint] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    def endpoint(self, upstream: Upstream) -> Endpoint:
        """The endpoint of an upstream."""
        found = self._by_upstream.get(upstream)
        if found is not None:
            return found
        key = (upstream.scheme, upstream.host, upstream.port, upstream.tls, upstream.trusted)
        endpoint = self._endpoints.get(key)
        if endpoint is None:
            endpoint = self._endpoints[key] = Endpoint(self, upstream)
        endpoint.limit = upstream.max_connections
        if len(self._by_upstream) >= REMEMBERED:
            self._by_upstream.clear()
        self._by_upstream[upstream] = endpoint
        return endpoint

    def background(self, coro: Any) -> None:
        """Run a dial beside the traffic."""
        task = self.loop.create_task(coro)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def sweep(self, now: float) -> None:
        """Drop idle connections, and endpoints that nobody used for long."""
        for key, endpoint in list(self._endpoints.items()):
            endpoint.sweep(now)
            if not (endpoint.open or endpoint.waiting) and len(self._endpoints) > REMEMBERED:
                del self._endpoints[key]
                self._by_upstream.clear()

    def forget(self) -> None:
        """After a new configuration: TLS files and limits are read anew."""
        self._by_upstream.clear()
        for endpoint in self._endpoints.values():
            endpoint.forget()
        self._endpoints = {k: e for k, e in self._endpoints.items() if e.open or e.waiting}

    async def close(self) -> None:
        """Close what is idle, give up what is being dialled."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for endpoint in self._endpoints.values():
            endpoint.close_idle()
