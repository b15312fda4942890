"""HttpLayer with upstreams of ours: connections chosen by `Upstream`, and forgotten when closed.

mitmproxy keeps the outcome of a failed connect for the life of the client's connection, and
every closed upstream connection with it. Here what is closed is dropped, so that the next
request on the same connection tries again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from mitmproxy.connection import Connection, ConnectionState, Server
from mitmproxy.proxy import commands, events, layer, tunnel
from mitmproxy.proxy.layers import http as mitm

from tidegate.api.types import Denial
from tidegate.api.upstream import Upstream

from .call import Call


class Origin(Server):
    """A connection to an upstream of ours. The handler opens it, TLS included."""

    upstream: Upstream
    used = False
    """Whether it has carried an exchange."""
    stream_id = 0
    """The stream of the client's that it answers."""

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


class Written(events.Event):
    """What a stream sent upstream has been written: its client may send more."""

    def __init__(self, stream_id: int) -> None:
        self.stream_id = stream_id


class HttpLayer(mitm.HttpLayer):
    """One client connection that speaks HTTP."""

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, Overdue | Written):
            for stream in tuple(self.streams.values()):
                yield from self.event_to_child(stream, event)
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
        if self.context.client.alpn != b"h2":  # h2 streams share no HTTP/1.1 connection
            for connection in self.connections:
                if connection.connected and event.connection_spec_matches(connection):
                    if connection in self.waiting_for_establishment:
                        continue
                    stream = self.command_sources.pop(event)
                    reply = mitm.GetHttpConnectionCompleted(event, (connection, None))
                    yield from self.event_to_child(cast(Any, stream), reply)
                    return
        assert event.upstream is not None
        context = self.context.fork()
        context.server = Origin.of(event.upstream)
        stack = tunnel.LayerStack()
        stack /= mitm.HttpClient(context)
        self.connections[context.server] = stack[0]
        self.waiting_for_establishment[context.server].append(event)
        yield from self.event_to_child(stack[0], events.Start())

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
