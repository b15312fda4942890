"""HttpLayer with upstreams of ours: connections chosen by `Upstream`, and forgotten when closed.

The streams of an HTTP/2 client share a connection to an origin that speaks HTTP/2 too; one that
does not gets a connection for each.

mitmproxy keeps the outcome of a failed connect for the life of the client's connection, and
every closed upstream connection with it. Here what is closed is dropped, so that the next
request on the same connection tries again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from mitmproxy.connection import Connection, ConnectionState, Server
from mitmproxy.proxy import commands, events, layer, tunnel
from mitmproxy.proxy.layers import http as mitm
from mitmproxy.proxy.layers.http._base import HttpEvent

from tidegate.api.types import Denial
from tidegate.api.upstream import Upstream

from .call import Call
from .destinations import Destination

if TYPE_CHECKING:
    from .http2_client import Client as Http2Client

MULTIPLEXED: Final = (b"h2", b"h3")
"""Protocols of clients (ALPN) whose exchanges share a connection, each with a pace of its own."""


class Origin(Server):
    """A connection to an upstream of ours. The handler opens it, TLS included."""

    upstream: Upstream
    used = False
    """Whether it has carried an exchange."""
    stream_id = 0
    """The stream of the client's that it answers, on HTTP/1.1."""
    http2: Http2Client | None = None
    """What speaks HTTP/2 on it, once it is open and where the origin chose so."""

    @classmethod
    def of(cls, upstream: Upstream) -> Origin:
        """A connection that is still to be opened."""
        origin = cls(address=(upstream.host, upstream.port))
        origin.upstream = upstream
        return origin


@dataclass
class GetOrigin(mitm.GetHttpConnection):
    """Ask the layer for a connection to an upstream of ours."""

    upstream: Upstream | None = None
    fresh: bool = False
    was_closed: Callable[[Connection], bool] = lambda connection: False
    """Whether the peer of a connection has closed it, though no layer has been told as yet."""

    def __hash__(self) -> int:
        return id(self)

    def connection_spec_matches(self, connection: Connection) -> bool:
        """Same upstream, not just same address: TLS settings are part of it."""
        return (
            not self.fresh
            and isinstance(connection, Origin)
            and connection.upstream is self.upstream
        )


class Overdue(events.Event):
    """An exchange is over its time: end it with this denial."""

    def __init__(self, call: Call, denial: Denial) -> None:
        self.call = call
        self.denial = denial


class Stalled(events.Event):
    """The rest of a small answer that is held back does not come."""

    def __init__(self, call: Call) -> None:
        self.call = call


class Written(HttpEvent):
    """What a stream sent upstream has been written: its client may send more."""


class Released(events.Event):
    """The client has taken what an HTTP/2 origin sent on a stream: it may send more."""

    def __init__(self, connection: Connection, stream_id: int) -> None:
        self.connection = connection
        self.stream_id = stream_id


class HttpLayer(mitm.HttpLayer):
    """One client connection that speaks HTTP."""

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, Overdue | Stalled | Written):
            for stream in tuple(self.streams.values()):
                yield from self.event_to_child(stream, event)
            return
        if isinstance(event, events.OpenConnectionCompleted):
            self._prune()  # also of what a layer within this one (CONNECT) has opened and closed
        if isinstance(event, Released):
            if event.connection in self.connections:
                yield from self.event_to_child(self.connections[event.connection], event)
            return
        if isinstance(event, events.ConnectionEvent) and event.connection not in self.connections:
            known = event.connection is self.context.server
            if not known:
                return  # of an upstream connection that was dropped when it closed
        yield from super()._handle_event(event)

    def get_connection(
        self, event: mitm.GetHttpConnection, *, reuse: bool = True
    ) -> layer.CommandGenerator[None]:
        """Find a connection for a stream, or open one."""
        self._prune()
        if not isinstance(event, GetOrigin):
            yield from super().get_connection(event, reuse=reuse)
            return
        for connection in self.connections:
            if not event.connection_spec_matches(connection):
                continue
            if connection.connected and event.was_closed(connection):
                continue
            if connection in self.waiting_for_establishment:
                if self._may_be_shared(event.upstream):
                    self.waiting_for_establishment[connection].append(event)
                    return
            elif connection.connected and self._takes_another(cast(Origin, connection)):
                yield from self._give(event, connection)
                return
            elif connection.connected and self._unsettled(connection):
                self.waiting_for_establishment[connection].append(event)
                return
        assert event.upstream is not None
        context = self.context.fork()
        context.server = Origin.of(event.upstream)
        stack = tunnel.LayerStack()
        stack /= mitm.HttpClient(context)
        self.connections[context.server] = stack[0]
        self.waiting_for_establishment[context.server].append(event)
        yield from self.event_to_child(stack[0], events.Start())

    def register_connection(
        self, command: mitm.RegisterHttpConnection
    ) -> layer.CommandGenerator[None]:
        """A connection is open, takes more than one stream, or has failed: tell who waits."""
        origin = command.connection
        if command.err or not isinstance(origin, Origin):
            if command.connection in self.waiting_for_establishment:
                yield from super().register_connection(command)
            return
        waiting = self.waiting_for_establishment.pop(origin, [])
        if origin.http2 is None or self._unsettled(origin):  # it has just been opened
            if isinstance(origin.upstream, Destination):
                origin.upstream.http2 = origin.http2 is not None
            yield from self._give(waiting.pop(0), origin)
        for event in waiting:
            yield from self.get_connection(event)

    def _give(
        self, event: mitm.GetHttpConnection, connection: Connection
    ) -> layer.CommandGenerator[None]:
        stream = self.command_sources.pop(event)
        reply = mitm.GetHttpConnectionCompleted(event, (connection, None))
        yield from self.event_to_child(cast(Any, stream), reply)

    def _may_be_shared(self, upstream: Upstream | None) -> bool:
        """Whether a connection that is being opened may carry several streams."""
        shared = self.context.client.alpn in MULTIPLEXED and isinstance(upstream, Destination)
        return shared and cast(Destination, upstream).http2 is not False

    @staticmethod
    def _unsettled(origin: Connection) -> bool:
        """Whether an HTTP/2 origin has still to say how many streams it takes."""
        http2 = origin.http2 if isinstance(origin, Origin) else None
        return http2 is not None and not (http2.settled or http2.leaving)

    def _takes_another(self, origin: Origin) -> bool:
        """Whether an open connection may carry another exchange now."""
        if origin.http2 is not None:
            return origin.http2.free
        return self.context.client.alpn not in MULTIPLEXED  # streams share no HTTP/1.1 connection

    def _prune(self) -> None:
        """Forget upstream connections that are closed or failed."""
        gone = [
            connection
            for connection in self.connections
            if isinstance(connection, Server)
            and connection not in self.waiting_for_establishment
            and (connection.error or connection.state is ConnectionState.CLOSED)
            and connection.timestamp_start is not None
        ]
        for connection in gone:
            del self.connections[connection]


class Linger(commands.CloseConnection):
    """Close for writing, stop reading, and close for good a moment later.

    Closing at once with bytes unread makes the kernel reset the connection, and a client that
    is still sending may never see the answer.
    """
