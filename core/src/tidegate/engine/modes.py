"""The gateway listener as a proxy mode, on sockets that the caller owns.

mitmproxy then starts, lists and stops it as every other mode. `gateway:NAME@HOST:PORT` names a
listener of the settings; the address only tells listeners apart.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from mitmproxy import ctx, platform
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.proxy import mode_servers, mode_specs
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import Layer
from mitmproxy.proxy.layers.http import HTTPMode

from tidegate.api import errors
from tidegate.api.types import Client, Denial
from tidegate.runtime.settings import Listener

from .answers import envelope, wire
from .gateway import GatewayMode
from .handler import LINGER, Handler
from .lanes import Chooser, Handover
from .layers import HttpLayer
from .quic_handler import QuicHandler
from .sparse import Sparse
from .tls import listener_context

if TYPE_CHECKING:
    from .master import Master

told = Sparse(logging.getLogger("tidegate.engine"))

BACKLOG: Final = 1024
RETRY: Final = 0.1
"""Seconds between attempts at a port that a predecessor has."""
SPARE_FILES: Final = 64
"""File descriptors that are kept for logs, stores and the like."""
LINGERERS: Final = 256
"""Connections over the limit that get to read their refusal at a time."""


class Proxies(Proxyserver):
    """mitmproxy's proxyserver, with the listeners and their sockets."""

    name = "proxyserver"

    def __init__(self, master: Master) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.master = master
        self.sockets: dict[str, list[socket.socket]] = {}
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._lingerers = min(LINGERERS, files // 8)
        # two descriptors for each connection: its own, and one to an upstream
        self._room = max(1, (files - SPARE_FILES - self._lingerers) // 2)
        self._refused = 0

    @property
    def full(self) -> bool:
        """Whether no more connections are taken: the limit, or there are no descriptors."""
        return len(self.connections) >= min(self.master.gateway.limits.connections, self._room)

    async def refuse(self, stream: asyncio.StreamWriter, denial: Denial) -> None:
        """Say why a connection is not taken, and close it; at once where too many are told."""
        tls = stream.get_extra_info("ssl_object")
        http2 = tls is not None and tls.selected_alpn_protocol() == "h2"
        if http2 or self._refused >= self._lingerers:
            stream.transport.abort()
            return
        self._refused += 1
        try:
            stream.write(wire(envelope(denial)))
            await farewell(stream)
        finally:
            self._refused -= 1

    def listener(self, name: str) -> Listener:
        """The settings of a listener."""
        return next(x for x in self.master.gateway.listen if x.name == name)

    def is_lane(self, listener: Listener) -> bool:
        """Whether the lane carries a listener's connections."""
        return (listener.carrier or self.master.gateway.carrier) == "lane"

    def take_over(self, handover: Handover) -> None:
        """Carry on a connection that the lane began."""
        name = handover.listener.name
        for instance in self.servers:
            if isinstance(instance, GatewayInstance) and instance.mode.data == name:
                instance.adopt(handover.transport, handover.data, handover.client)
                return
        handover.transport.close()

    def modes(self) -> list[str]:
        """What mitmproxy is to start: the listeners with sockets, and the intercepts."""
        specs = []
        for name, sockets in self.sockets.items():
            host, port = sockets[0].getsockname()[:2]
            if name not in self.master.names.values():
                specs.append(f"gateway:{name}@{host}:{port}")
        return specs + [intercept.mode for intercept in self.master.intercepts]


class GatewayInstance(  # type: ignore[no-untyped-call]
    mode_servers.AsyncioServerInstance[GatewayMode]
):
    """Serves one gateway listener."""

    manager: Proxies

    def make_top_layer(self, context: Context) -> Layer:
        """HTTP, and nothing else, is spoken here."""
        return HttpLayer(context, HTTPMode.transparent)

    async def listen(self, host: str, port: int) -> list[Any]:
        """Accept on the inherited sockets: on copies, since a server closes what it is given."""
        loop = asyncio.get_running_loop()
        proxies = self.manager
        listener = proxies.listener(self.mode.data)
        lane = proxies.master.lane if proxies.is_lane(listener) else None
        factory: Callable[[], asyncio.Protocol] | None = None
        if lane is not None:
            factory = partial(lane.protocol, listener)
        if lane is not None and "h2" not in listener.alpn:
            context = lane.tls(listener)
        else:
            context = listener_context(listener, proxies.master.settings.base)
            if factory is not None and context is not None:
                factory = partial(Chooser, factory, self.adopt)
        servers: list[Any] = []
        for sock in proxies.sockets[listener.name]:
            copy = sock.dup()
            copy.setblocking(False)
            options: dict[str, Any] = {"sock": copy, "ssl": context, "backlog": BACKLOG}
            if context is not None:
                options["ssl_handshake_timeout"] = proxies.master.gateway.deadlines.head
            if factory is not None:
                servers.append(await loop.create_server(factory, **options))
            else:
                servers.append(await asyncio.start_server(self.handle_stream, **options))
        return servers

    async def handle_stream(
        self, reader: Any, writer: Any = None, *, peer: Client | None = None
    ) -> None:
        """Serve one connection to its end."""
        master = cast("Master", ctx.master)
        stream = cast(asyncio.StreamWriter, writer)
        if stream.get_extra_info("peername") is None:  # it has gone again
            stream.close()
            return
        if self.manager.full:
            await self.manager.refuse(stream, errors.OVERLOADED.denial(retry_after=1.0))
            return
        handler = Handler(master, reader, stream, ctx.options, self.mode)
        handler.peer = peer
        client = handler.client
        tls = stream.get_extra_info("ssl_object")
        if tls is not None:
            client.tls = True
            client.alpn = (tls.selected_alpn_protocol() or "").encode() or None
            client.sni = getattr(tls, "sni", None)
            client.timestamp_tls_setup = time.time()
            handler.certificate = tls.getpeercert(binary_form=True)
        handler.layer = self.make_top_layer(handler.layer.context)
        with self.manager.register_connection(client.id, handler):
            await handler.handle_client()

    def adopt(
        self, transport: asyncio.Transport, data: bytes = b"", client: Client | None = None
    ) -> None:
        """Take over a connection that another protocol began; `data` is what it has read."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(loop=loop)
        serve = partial(self.handle_stream, peer=client)
        protocol = asyncio.StreamReaderProtocol(reader, serve, loop=loop)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if data:
            loop.call_soon(reader.feed_data, data)  # after `handle_stream` has begun
        if not transport.is_reading():
            transport.resume_reading()


async def listen(
    instance: mode_servers.AsyncioServerInstance[Any], host: str, port: int
) -> list[Any]:
    """An intercept's: on the supervisor's sockets where there are any, else on one's own."""
    proxies = cast(Proxies, instance.manager)
    sockets = proxies.sockets.get(proxies.master.listener_of(instance.mode), ())
    servers: list[Any] = []
    for sock in sockets:
        copy = sock.dup()
        copy.setblocking(False)
        servers.append(
            await asyncio.start_server(instance.handle_stream, sock=copy, backlog=BACKLOG)
        )
    if servers:
        return servers
    begin = partial(_listen, instance, host, port)
    try:
        return await begin()
    except OSError as error:
        if error.errno != errno.EADDRINUSE or not proxies.master.successor:
            raise
    return [Later(begin)]


class Later:
    """A server on a port that the worker before this one still has."""

    sockets = ()

    def __init__(self, begin: Callable[[], Awaitable[list[Any]]]) -> None:
        self._servers: list[Any] = []
        self._beginning = asyncio.create_task(self._begin(begin))

    async def _begin(self, begin: Callable[[], Awaitable[list[Any]]]) -> None:
        while not self._servers:
            await asyncio.sleep(RETRY)
            with suppress(OSError):
                self._servers = await begin()

    def close(self) -> None:
        """Wait no longer, and close the port."""
        self._beginning.cancel()
        for server in self._servers:
            server.close()


async def handle_stream(
    instance: mode_servers.ServerInstance[Any], reader: Any, writer: Any = None
) -> None:
    """An intercept's: refuses what is too much, and what would lead back to itself."""
    proxies = cast(Proxies, instance.manager)
    stream = reader if writer is None else writer
    own = stream.get_extra_info("sockname")
    if stream.get_extra_info("peername") is None or proxies.full:
        stream.close()
    elif isinstance(instance.mode, mode_specs.TransparentMode) and _direct(stream, own):
        told.warning("%s: a connection that nothing redirected is closed", instance.mode.full_spec)
        stream.close()
    elif stream.get_extra_info("transport_protocol") == "udp" and isinstance(
        instance.mode, mode_specs.ReverseMode
    ):
        handler = QuicHandler(proxies.master, stream, stream, ctx.options, instance.mode)
        handler.layer = instance.make_top_layer(handler.layer.context)
        with proxies.register_connection(handler.client.id, handler):
            await handler.handle_client()
    else:
        await _handle_stream(instance, reader, writer)


def _direct(stream: asyncio.StreamWriter, own: tuple[Any, ...]) -> bool:
    """Whether a connection was made to the listener itself: it would go round for ever."""
    try:
        original_addr = cast(Any, platform).original_addr
        return bool(original_addr(stream.get_extra_info("socket"))[:2] == own[:2])
    except OSError:  # there was no redirect
        return True


_listen = mode_servers.AsyncioServerInstance.listen
_handle_stream = mode_servers.ServerInstance.handle_stream


async def farewell(stream: asyncio.StreamWriter) -> None:
    """Close after a last answer: at once, bytes unread would reset the connection."""
    if stream.can_write_eof():
        stream.write_eof()
        await asyncio.sleep(LINGER)
    stream.close()
