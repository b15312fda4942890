"""HTTP/3 from clients: mitmproxy's connection on `h3`, with our limits, pace and errors.

What `http2` does for HTTP/2, by the same means: an answer that the client does not acknowledge
holds its upstream, a request is acknowledged as its upstream takes it, and resets have a budget.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, cast

from aioquic.h3.connection import ErrorCode as H3ErrorCode
from aioquic.h3.events import DataReceived, H3Event, HeadersReceived
from mitmproxy import ctx, http
from mitmproxy.proxy import events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import _http3
from mitmproxy.proxy.layers.http._base import HttpEvent, ReceiveHttp
from mitmproxy.proxy.layers.http._events import (
    ErrorCode,
    RequestData,
    RequestEndOfMessage,
    RequestHeaders,
    RequestProtocolError,
    RequestTrailers,
    ResponseProtocolError,
)
from mitmproxy.proxy.layers.http._http_h3 import StreamClosed, TrailersReceived
from mitmproxy.proxy.layers.quic import (
    QuicConnectionClosed,
    QuicStreamDataReceived,
    QuicStreamEvent,
)

from tidegate.api.types import Denial
from tidegate.runtime.lifecycle import LAST_CALL

from .answers import envelope
from .call import Call
from .h3 import Connection
from .http2 import HIGH, LOW, Consumed, over_limit, read_request
from .limits import limits

if TYPE_CHECKING:
    from .master import Master
    from .quic_handler import QuicHandler

type Commands = layer.CommandGenerator[None]

VERSION: Final = b"HTTP/3"


class Server(_http3.Http3Server):
    """The client's side."""

    h3_conn: Connection

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        master = cast("Master", ctx.master)
        self.handler = cast("QuicHandler", master.handler_by(context.client))
        assert self.handler.quic is not None
        self.quic = self.handler.quic
        self.h3_conn = Connection(context.client, limits().head)
        self.requests = 0
        self.calls: dict[int, Call] = {}
        """The exchanges of open streams."""
        self.held: dict[int, asyncio.Event] = {}
        """Streams whose upstream is not read, and what lets it go on."""
        self._resets = master.resets.of(context.client.peername[0])
        self._unread: dict[int, int] = {}
        """Bytes per stream that were received and not yet taken."""
        self._headless: dict[int, float] = {}
        """Streams whose head is not complete, and since when."""
        self._last: int | None = None
        """The first stream that is not served, once the client was asked to leave."""
        self._next = 0
        """The stream after the last that was begun."""
        self._closing = False
        self.handler.http2 = self.handler.http3 = self

    @property
    def partial_since(self) -> float:
        """Since when a head has been incomplete, monotonic; 0.0: there is none."""
        return min(self._headless.values(), default=0.0)

    def backlog(self, stream_id: int) -> int:
        """Bytes of an answer that the client has not acknowledged."""
        return self.quic.backlog(stream_id)

    def _handle_event(self, event: events.Event) -> Commands:
        if isinstance(event, Consumed):
            self._acknowledge(event.stream_id)
        elif isinstance(event, QuicStreamEvent):
            yield from self._received(event)
        elif isinstance(event, ResponseProtocolError) and event.code is ErrorCode.CANCEL:
            self.h3_conn.decline(event.stream_id)
            yield from self.h3_conn.transmit()
        else:
            if isinstance(event, ResponseProtocolError) and event.code.http_status_code():
                # answers are the stream's; what is left is a reset (the page would be HTML)
                event = ResponseProtocolError(event.stream_id, event.message, ErrorCode.KILL)
            if isinstance(event, QuicConnectionClosed):
                self._release()
            yield from super()._handle_event(event)
            if isinstance(event, HttpEvent) and self.backlog(event.stream_id) > HIGH:
                self.held.setdefault(event.stream_id, asyncio.Event())
        self.settle()

    # -- requests -----------------------------------------------------------------------------

    def _received(self, event: QuicStreamEvent) -> Commands:
        stream_id = event.stream_id
        request = stream_id % 4 == 0
        if isinstance(event, QuicStreamDataReceived):
            self._unread[stream_id] = self._unread.get(stream_id, 0) + len(event.data)
            if request and stream_id not in self.h3_conn.open:
                self._headless[stream_id] = time.monotonic()
                self._next = max(self._next, stream_id + 4)
        elif request and self.h3_conn.ended_well(stream_id) and not self._resets.spend(1):
            self._calm("too many resets")
        found = self.h3_conn.handle_stream_event(event)
        if self.h3_conn.malformed:
            self._headless.pop(stream_id, None)
            self.h3_conn.malformed.clear()
            if not self._resets.spend(1):
                self._calm("too many malformed requests")
        if not any(isinstance(one, DataReceived) and one.data for one in found):
            self._acknowledge(stream_id)
        for one in found:
            yield from self._take(one)
        yield from self.h3_conn.transmit()

    def _take(self, event: H3Event) -> Commands:
        """Give a stream what came for it."""
        if isinstance(event, HeadersReceived):
            yield from self._request(event)
        elif isinstance(event, DataReceived):
            if event.data:
                yield ReceiveHttp(RequestData(event.stream_id, event.data))
                if event.stream_id not in self.calls:
                    self._acknowledge(event.stream_id)  # nobody wants it
            if event.stream_ended:
                yield ReceiveHttp(RequestEndOfMessage(event.stream_id))
        elif isinstance(event, TrailersReceived):
            trailers = http.Headers(event.trailers)
            yield ReceiveHttp(RequestTrailers(event.stream_id, trailers))
            if event.stream_ended:
                yield ReceiveHttp(RequestEndOfMessage(event.stream_id))
        elif isinstance(event, StreamClosed):
            message = "the stream was reset"
            yield ReceiveHttp(
                RequestProtocolError(event.stream_id, message, ErrorCode.CLIENT_DISCONNECTED)
            )

    def _request(self, event: HeadersReceived) -> Commands:
        stream_id, end = event.stream_id, event.stream_ended
        self._headless.pop(stream_id, None)
        late = self._last is not None and stream_id >= self._last
        if late or self._resets.empty:
            self.h3_conn.close_stream(stream_id, H3ErrorCode.H3_REQUEST_REJECTED)
            return
        self.requests += 1
        try:
            request = read_request(event.headers, VERSION)
        except ValueError:
            self.h3_conn.close_stream(stream_id, H3ErrorCode.H3_MESSAGE_ERROR)
            return
        denial = over_limit(request)
        if denial is not None:
            self._refuse(stream_id, denial, end=end)
            return
        yield ReceiveHttp(RequestHeaders(stream_id, request, end))
        if end:
            yield ReceiveHttp(RequestEndOfMessage(stream_id))

    def _refuse(self, stream_id: int, denial: Denial, *, end: bool) -> None:
        """Answer a head that never becomes an exchange."""
        answer = envelope(denial)
        fields = [f for f in answer.data.headers.fields if f[0] != b"connection"]
        self.h3_conn.send_headers(stream_id, [(b":status", b"%d" % denial.status), *fields])
        self.h3_conn.send_data(stream_id, answer.data.content or b"", end_stream=True)
        if not end:
            self.h3_conn.decline(stream_id)

    def _acknowledge(self, stream_id: int) -> None:
        """Open the windows again by what was taken."""
        size = self._unread.pop(stream_id, 0)
        if size:
            self.quic.taken(stream_id, size)

    def _calm(self, why: str) -> None:
        self.h3_conn.close_connection(H3ErrorCode.H3_EXCESSIVE_LOAD, reason_phrase=why)

    # -- streams ------------------------------------------------------------------------------

    def settle(self) -> bool:
        """Look which streams are over, and which upstreams may be read again.

        Returns whether there is something new to be sent.
        """
        for stream_id, held in tuple(self.held.items()):
            call = self.calls.get(stream_id)
            if call is not None:
                call.touch()
            if self.backlog(stream_id) <= LOW:
                held.set()
                del self.held[stream_id]
        for stream_id in self.h3_conn.open:
            if not self.quic.is_open(stream_id):
                self._forget(stream_id)
        return self._leave()

    def _forget(self, stream_id: int) -> None:
        """A stream is over."""
        if stream_id % 4 == 0 and self.h3_conn.ended_well(stream_id):
            self._resets.earn(1)
        self.h3_conn.forget(stream_id)
        self.calls.pop(stream_id, None)
        self._headless.pop(stream_id, None)
        self._unread.pop(stream_id, None)
        held = self.held.pop(stream_id, None)
        if held is not None:
            held.set()

    def _release(self) -> None:
        """The connection is over."""
        for held in self.held.values():
            held.set()
        self.held.clear()

    def _leave(self) -> bool:
        """Ask the client to open another connection: after enough requests, and in a drain."""
        idle = bool(self.requests) and not any(one % 4 == 0 for one in self.h3_conn.open)
        wanted = self.requests >= limits().requests or self.handler.bridge.parting
        new = wanted and self._last is None
        if new:
            self._last = self._next
            self.quic.send_stream_data(*self.h3_conn.goaway(self._last))
        if self._last is not None and idle and not self._closing:
            self._closing = True  # not at once: a request may be on its way, and is refused
            asyncio.get_running_loop().call_later(LAST_CALL, self.handler.close)
        return new
