"""HTTP/2 from clients: mitmproxy's connection on `frames`, with our limits, pace and errors.

Backpressure goes stream by stream. What an answer has beyond the client's window is kept back,
and over a mark its upstream is not read (`Handler.serve_origin`). What a request has is
acknowledged as its upstream takes it, so that a slow one holds up its own stream only.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final, cast

import h2.events
import h2.exceptions
import h2.settings
from mitmproxy import ctx, http
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import _http2
from mitmproxy.proxy.layers.http._base import HttpEvent, ReceiveHttp
from mitmproxy.proxy.layers.http._events import (
    ErrorCode,
    RequestData,
    RequestEndOfMessage,
    RequestHeaders,
    ResponseProtocolError,
)
from mitmproxy.proxy.layers.http._http2 import StreamState, split_pseudo_headers

from tidegate.api import errors
from tidegate.api.types import Denial
from tidegate.runtime.lifecycle import LAST_CALL
from tidegate.runtime.messages import make_request

from .answers import envelope
from .call import Call
from .frames import Connection, join_cookies
from .limits import gateway, limits

if TYPE_CHECKING:
    from .master import Master

type Commands = layer.CommandGenerator[None]

HIGH: Final = 256 * 1024
"""Bytes of an answer that may wait for the client's window before its upstream is held."""
LOW: Final = 64 * 1024
"""Bytes at which it is read again."""
FIELD_OVERHEAD: Final = 32
"""What a field costs beside its text (RFC 9113 §6.5.2)."""


class Consumed(HttpEvent):
    """What was received of a stream's body has been taken."""


class Server(_http2.Http2Server):
    """The client's side."""

    h2_conn: Connection

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.handler = cast("Master", ctx.master).handler_by(context.client)
        resets = self.handler.master.resets.of(context.client.peername[0])
        self.h2_conn = Connection(self.h2_conf, limits().head, resets)
        self.requests = 0
        self.calls: dict[int, Call] = {}
        """The exchanges of open streams."""
        self.held: dict[int, asyncio.Event] = {}
        """Streams whose upstream is not read, and what lets it go on."""
        self._unread: dict[int, int] = {}
        """Bytes per stream that were received and not yet acknowledged."""
        self._closing = False
        self._reading = False
        self._unwanted: set[int] = set()
        """Streams to reset once their answer is out: nobody wants the rest of the request."""
        self.partial_since = 0.0
        """Since when a frame has been incomplete, monotonic; 0.0: there is none."""
        self.handler.http2 = self

    def backlog(self, stream_id: int) -> int:
        """Bytes of an answer that wait for the client's window."""
        return self.h2_conn.backlog(stream_id)

    def _handle_event(self, event: events.Event) -> Commands:
        if isinstance(event, Consumed):
            yield from self._acknowledge(event.stream_id)
            return
        if isinstance(event, ResponseProtocolError):
            if event.code is ErrorCode.CANCEL:
                self._unwanted.add(event.stream_id)
                yield from self._settle()
                return
            if event.code.http_status_code() is not None:
                # answers are the stream's; what is left is a reset (the page would be HTML)
                event = ResponseProtocolError(event.stream_id, event.message, ErrorCode.KILL)
        self._reading = self._reading or isinstance(event, events.DataReceived)
        yield from super()._handle_event(event)
        if isinstance(event, events.DataReceived):
            self._reading = False
            now = time.monotonic()
            self.partial_since = (self.partial_since or now) if self.h2_conn.partial else 0.0
        elif isinstance(event, HttpEvent) and self.h2_conn.backlog(event.stream_id) > HIGH:
            self.held.setdefault(event.stream_id, asyncio.Event())
        yield from self._settle()

    # -- requests -----------------------------------------------------------------------------

    def handle_h2_event(self, event: h2.events.Event) -> layer.CommandGenerator[bool]:
        """Returns whether the rest of what was received is to be left alone."""
        if isinstance(event, h2.events.RequestReceived):
            yield from self._request(event)
            return False
        if isinstance(event, h2.events.DataReceived):
            yield from self._data(event)
            return False
        if isinstance(event, h2.events.StreamEnded):
            # without a look whether h2 has closed the stream: a reset may follow
            if event.stream_id in self.streams:
                yield ReceiveHttp(RequestEndOfMessage(event.stream_id))
            return False
        if isinstance(event, h2.exceptions.ProtocolError):
            # h2 has said why in a GOAWAY of its own
            yield commands.SendData(self.conn, self.h2_conn.data_to_send())
            yield from self.close_connection("protocol error")
            return True
        stop: bool = yield from super().handle_h2_event(event)
        return stop

    def _request(self, event: h2.events.RequestReceived) -> Commands:
        stream_id, end = event.stream_id, event.stream_ended is not None
        assert stream_id is not None
        self.requests += 1
        try:
            request = read_request(cast(Any, event.headers))
        except ValueError:
            self._refuse(stream_id, errors.BAD_REQUEST_FRAMING.denial(), end=end)
            return
        denial = over_limit(request)
        if denial is not None:
            self._refuse(stream_id, denial, end=end)
            return
        self.streams[stream_id] = StreamState.HEADERS_RECEIVED
        yield ReceiveHttp(RequestHeaders(stream_id, request, end))

    def _refuse(self, stream_id: int, denial: Denial, *, end: bool) -> None:
        """Answer a head that never becomes an exchange."""
        answer = envelope(denial)
        fields = [f for f in answer.data.headers.fields if f[0] != b"connection"]
        self.h2_conn.send_headers(stream_id, [(b":status", b"%d" % denial.status), *fields])
        self.h2_conn.send_data(stream_id, answer.data.content or b"", end_stream=True)
        if not end and not self.is_closed(stream_id):
            self.h2_conn.reset_stream(stream_id)  # NO_ERROR: the rest is not needed

    def _data(self, event: h2.events.DataReceived) -> Commands:
        """Give the stream what came. It is acknowledged when it was taken: `Consumed`."""
        stream_id, size = event.stream_id, event.flow_controlled_length
        assert stream_id is not None
        self._unread[stream_id] = self._unread.get(stream_id, 0) + (size or 0)
        if stream_id not in self.streams:
            yield from self._acknowledge(stream_id)  # nobody wants it
        elif event.data:
            yield ReceiveHttp(RequestData(stream_id, event.data))
        elif event.stream_ended is None:
            yield from self._acknowledge(stream_id)  # padding

    def _acknowledge(self, stream_id: int) -> Commands:
        """Open the windows again by what was read."""
        size = self._unread.pop(stream_id, 0)
        if size:
            self.h2_conn.acknowledge_received_data(size, stream_id)
            yield commands.SendData(self.conn, self.h2_conn.data_to_send())

    # -- streams ------------------------------------------------------------------------------

    def _settle(self) -> Commands:
        """Look which streams are over, and which upstreams may be read again.

        Not before all of what was received has been handled: h2 knows of a reset that the
        stream has yet to be told.
        """
        if self._reading:
            return
        for stream_id, held in tuple(self.held.items()):
            call = self.calls.get(stream_id)
            if call is not None:
                call.touch()
            if self.h2_conn.backlog(stream_id) <= LOW:
                held.set()
                del self.held[stream_id]
        for stream_id in tuple(self._unwanted):
            if not self.h2_conn.backlog(stream_id):
                self._unwanted.discard(stream_id)
                if not self.is_closed(stream_id):
                    self.h2_conn.reset_stream(stream_id)  # NO_ERROR (RFC 9113 §8.1)
        for stream_id in tuple(self.streams):
            if self.is_closed(stream_id):
                yield from self._forget(stream_id)
        self._leave()
        data = self.h2_conn.data_to_send()
        if data:
            yield commands.SendData(self.conn, data)

    def _leave(self) -> None:
        """Ask the client to open another connection: after enough requests, and in a drain.

        Between streams, since clients made with h2 (httpx) give up those that are open when a
        GOAWAY comes. Who never pauses is asked all the same.
        """
        enough = limits().requests
        wanted = self.requests >= enough or self.handler.bridge.parting
        idle = self.requests and not self.streams
        if wanted and (idle or self.requests >= 2 * enough) and self.h2_conn.last_stream is None:
            self.h2_conn.leave()
        if self.h2_conn.last_stream is not None and idle and not self._closing:
            self._closing = True  # not at once: a request may be on its way, and is refused
            asyncio.get_running_loop().call_later(LAST_CALL, self.handler.close)
        if self.h2_conn.leaving and not self.streams and not self._closing:
            self._closing = True
            asyncio.get_running_loop().call_soon(self.handler.close)

    def _forget(self, stream_id: int) -> Commands:
        """A stream is over."""
        self.streams.pop(stream_id, None)
        self.calls.pop(stream_id, None)
        held = self.held.pop(stream_id, None)
        if held is not None:
            held.set()
        yield from self._acknowledge(stream_id)

    def close_connection(self, msg: str) -> Commands:
        """The connection is over."""
        for held in self.held.values():
            held.set()
        self.held.clear()
        yield from super().close_connection(msg)


def read_request(fields: list[tuple[bytes, bytes]], version: bytes = b"HTTP/2.0") -> http.Request:
    """A request without body from its fields. ValueError: it is malformed."""
    pseudo, rest = split_pseudo_headers(fields)
    method, scheme = pseudo.get(b":method", b""), pseudo.get(b":scheme", b"")
    path, authority = pseudo.get(b":path", b""), pseudo.get(b":authority", b"")
    if pseudo.keys() - {b":method", b":scheme", b":path", b":authority"} or not method:
        raise ValueError("pseudo-header fields")
    return make_request(
        method,
        scheme,
        authority,
        "",
        0,
        path,
        join_cookies(rest.fields),
        None,
        time.time(),
        version,
    )


def over_limit(request: http.Request) -> Denial | None:
    """The limits of a head, as on HTTP/1.1."""
    bounds = gateway().limits
    fields = request.data.headers.fields
    if len(request.data.path) > bounds.target:
        return errors.URI_TOO_LONG.denial()
    size = sum(len(name) + len(value) + FIELD_OVERHEAD for name, value in fields)
    if len(fields) > bounds.fields or size > bounds.head:
        return errors.HEADERS_TOO_LARGE.denial()
    return None
