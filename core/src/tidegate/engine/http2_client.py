"""HTTP/2 to origins: the streams of one client connection share one connection to each origin.

In place of mitmproxy's: what ended is forgotten; windows are bounded and open again as the
client takes what came; a GOAWAY ends the streams that it names and lets the others finish.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, cast

import h2.config
import h2.events
import h2.exceptions
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hyperframe.frame import GoAwayFrame
from mitmproxy import ctx, http
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import http as mitm
from mitmproxy.proxy.layers.http import _http2
from mitmproxy.proxy.layers.http._base import HttpEvent, ReceiveHttp
from mitmproxy.proxy.layers.http._events import (
    ErrorCode,
    RequestData,
    RequestEndOfMessage,
    RequestHeaders,
    RequestProtocolError,
    ResponseData,
    ResponseEndOfMessage,
    ResponseHeaders,
    ResponseProtocolError,
    ResponseTrailers,
)
from mitmproxy.proxy.layers.http._http2 import split_pseudo_headers
from mitmproxy.proxy.layers.http._http_h2 import BufferedH2Connection

from tidegate.runtime.heads import merge_trailers
from tidegate.runtime.messages import make_response

from .ending import REFUSED
from .http1 import RESPONSE_HEAD
from .layers import Origin, Released, Written

if TYPE_CHECKING:
    from .master import Master

type Commands = layer.CommandGenerator[None]

STREAM_WINDOW: Final = 256 * 1024
CONNECTION_WINDOW: Final = 4 * 1024 * 1024
FRAME: Final = 16 * 1024
STREAMS: Final = 100
"""Streams that a connection carries at a time, where the origin allows as many."""
LOW: Final = 64 * 1024
"""Bytes of a request that may wait for the origin's window before its client is held up."""

_CONNECTION_FIELDS: Final = frozenset(
    {b"connection", b"host", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
)
"""What HTTP/2 says otherwise (RFC 9113 §8.2.2)."""


class Leaving(h2.events.Event):
    """The origin takes no more streams on this connection (RFC 9113 §6.8)."""

    def __init__(self, last_stream: int) -> None:
        self.last_stream = last_stream


class Connection(BufferedH2Connection):
    """Our end of a connection to an origin."""

    MAX_CLOSED_STREAMS = 10 * STREAMS
    """Of as many it is remembered how they were closed."""

    def __init__(self, config: h2.config.H2Configuration) -> None:
        super().__init__(config)
        self.local_settings.initial_window_size = STREAM_WINDOW
        self.local_settings.max_frame_size = FRAME
        self.local_settings.enable_push = 0
        self.local_settings[SettingCodes.MAX_HEADER_LIST_SIZE] = RESPONSE_HEAD
        self.local_settings.acknowledge()
        self.max_inbound_frame_size = FRAME
        self.decoder.max_header_list_size = RESPONSE_HEAD

    def initiate_connection(self) -> None:
        """The preface: settings, and the connection's window."""
        H2Connection.initiate_connection(self)
        self.increment_flow_control_window(CONNECTION_WINDOW - self.inbound_flow_control_window)

    def backlog(self, stream_id: int) -> int:
        """Bytes of a stream that wait for the origin's window."""
        buffered = self.stream_buffers.get(stream_id)
        return sum(len(piece.data) for piece in buffered) if buffered else 0

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> Any:
        """h2 would take nothing more from the origin, also of streams that it still serves."""
        last = frame.last_stream_id if not frame.error_code else 0
        return [], [Leaving(last)]


class Client(_http2.Http2Client):
    """The origin's side. Streams have the client's numbers outside, and our own within."""

    h2_conn: Connection

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.h2_conn = Connection(self.h2_conf)
        self.leaving = False
        self._reading = False
        self.settled = False
        """Whether the origin has said how many streams it takes at a time."""
        self._unread: dict[int, int] = {}
        """Bytes per stream of the client's that were received and not yet acknowledged."""
        self._slow: set[int] = set()
        """Streams whose client is behind with an answer: `Released` follows when it is not."""
        self._behind: set[int] = set()
        """Streams whose client waits until the origin has taken what it sent."""
        self.handler = cast("Master", ctx.master).handler_by(context.client)
        cast(Origin, context.server).http2 = self

    @property
    def free(self) -> bool:
        """Whether another stream may begin here.

        One alone before the origin's settings have come: gRPC's servers never answer those
        that are too many then.
        """
        if not self.settled:
            return not self.our_stream_id and not self.leaving
        allowed = min(STREAMS, self.h2_conn.remote_settings.max_concurrent_streams)
        open_streams: int = self.h2_conn.open_outbound_streams
        return not self.leaving and open_streams < allowed

    def holds(self, stream_id: int) -> bool:
        """Whether the origin is behind with a request; `Written` follows when it is not."""
        ours = self.our_stream_id.get(stream_id)
        if ours is None or self.h2_conn.backlog(ours) <= LOW:
            return False
        self._behind.add(stream_id)
        return True

    def _handle_event(self, event: events.Event) -> Commands:
        if isinstance(event, events.Start):
            self.h2_conn.initiate_connection()
        elif isinstance(event, Released):
            self._slow.discard(event.stream_id)
            self._acknowledge(event.stream_id)
        elif isinstance(event, HttpEvent):
            yield from self._send(event)
        elif isinstance(event, events.DataReceived):
            self._reading = True
            yield from self._receive(event.data)
            self._reading = False
        elif isinstance(event, events.ConnectionClosed):
            yield from self._end("closed")
        if self._handle_event != self.done:
            yield from self._settle()

    # -- requests -----------------------------------------------------------------------------

    def _send(self, event: HttpEvent) -> Commands:
        stream_id = event.stream_id
        if isinstance(event, RequestHeaders):
            if not self.free:
                yield from self._broken(stream_id, REFUSED)
                return
            ours = self.h2_conn.get_next_available_stream_id()
            self.our_stream_id[stream_id], self.their_stream_id[ours] = ours, stream_id
            self.h2_conn.send_headers(ours, request_fields(event.request), event.end_stream)
            return
        known = self.our_stream_id.get(stream_id)
        if known is None or self.is_closed(known):
            return
        if isinstance(event, RequestProtocolError):
            self.h2_conn.reset_stream(known, ErrorCodes.CANCEL)
            self._forget(stream_id)
        elif self.is_open_for_us(known):
            if isinstance(event, RequestData):
                self.h2_conn.send_data(known, event.data)
            elif isinstance(event, RequestEndOfMessage):
                self.h2_conn.end_stream(known)

    # -- answers ------------------------------------------------------------------------------

    def _receive(self, data: bytes) -> Commands:
        try:
            received = self.h2_conn.receive_data(data)
        except (h2.exceptions.ProtocolError, ValueError, IndexError):
            yield commands.SendData(self.conn, self.h2_conn.data_to_send())  # h2 has said why
            yield from self._end("protocol error")
            return
        for event in received:
            if isinstance(event, Leaving):
                self.leaving = True
                for ours, theirs in tuple(self.their_stream_id.items()):
                    if ours > event.last_stream:
                        yield from self._broken(theirs, REFUSED)
                continue
            if isinstance(event, h2.events.RemoteSettingsChanged) and not self.settled:
                self.settled = True
                yield mitm.RegisterHttpConnection(self.conn, None)
                continue
            theirs = self.their_stream_id.get(getattr(event, "stream_id", 0), 0)
            if theirs:
                yield from self._take(theirs, event)

    def _take(self, stream_id: int, event: h2.events.Event) -> Commands:
        """An event of a stream."""
        if isinstance(event, h2.events.ResponseReceived):
            try:
                response = read_response(cast(Any, event.headers))
            except ValueError:
                if not self.is_closed(event.stream_id):
                    self.h2_conn.reset_stream(event.stream_id, ErrorCodes.PROTOCOL_ERROR)
                yield from self._broken(stream_id, "malformed head")
                return
            ended = event.stream_ended is not None
            yield ReceiveHttp(ResponseHeaders(stream_id, response, ended))
        elif isinstance(event, h2.events.DataReceived):
            size = event.flow_controlled_length or 0
            self._unread[stream_id] = self._unread.get(stream_id, 0) + size
            if event.data:
                yield ReceiveHttp(ResponseData(stream_id, event.data))
            if stream_id in self._slow:
                return
            if self.handler.when_released(self.conn, stream_id):
                self._slow.add(stream_id)
            else:
                self._acknowledge(stream_id)
        elif isinstance(event, h2.events.TrailersReceived):
            trailers = merge_trailers(tuple(cast(Any, event.headers)))
            if trailers is not None:
                yield ReceiveHttp(ResponseTrailers(stream_id, trailers))
        elif isinstance(event, h2.events.StreamEnded):
            yield ReceiveHttp(ResponseEndOfMessage(stream_id))
        elif isinstance(event, h2.events.StreamReset):
            refused = event.error_code == ErrorCodes.REFUSED_STREAM
            yield from self._broken(stream_id, REFUSED if refused else "reset")

    def _broken(self, stream_id: int, why: str) -> Commands:
        """A stream ends without its answer, or in the middle of it."""
        self._forget(stream_id)
        code = ErrorCode.GENERIC_SERVER_ERROR
        yield ReceiveHttp(ResponseProtocolError(stream_id, why, code))

    def _end(self, why: str) -> Commands:
        """The connection is over."""
        yield commands.CloseConnection(self.conn)
        self._handle_event = self.done  # type: ignore[method-assign]
        if not self.settled:
            yield mitm.RegisterHttpConnection(self.conn, why)
        for stream_id in tuple(self.our_stream_id):
            yield from self._broken(stream_id, why)

    # -- streams ------------------------------------------------------------------------------

    def _acknowledge(self, stream_id: int) -> None:
        """Open the windows again by what was taken."""
        size, ours = self._unread.pop(stream_id, 0), self.our_stream_id.get(stream_id)
        if size and ours is not None:
            self.h2_conn.acknowledge_received_data(size, ours)

    def _forget(self, stream_id: int) -> None:
        self._acknowledge(stream_id)
        ours = self.our_stream_id.pop(stream_id, None)
        if ours is not None:
            del self.their_stream_id[ours]

    def _settle(self) -> Commands:
        """Look which streams are over, and who may send more.

        Not before all of what was received has been handled: h2 knows of ends that the streams
        have yet to be told.
        """
        if self._reading:
            return
        for ours, theirs in tuple(self.their_stream_id.items()):
            if self.is_closed(ours):
                self._forget(theirs)
        for stream_id in tuple(self._behind):
            known = self.our_stream_id.get(stream_id)
            if known is None or self.h2_conn.backlog(known) <= LOW:
                self._behind.discard(stream_id)
                yield ReceiveHttp(Written(stream_id))
        data = self.h2_conn.data_to_send()
        if data:
            yield commands.SendData(self.conn, data)
        if self.leaving and not self.our_stream_id:
            yield from self._end("left")


def request_fields(request: http.Request) -> list[tuple[bytes, bytes]]:
    """The field section of a request that was made for HTTP/1.1 (RFC 9113 §8.3.1)."""
    data = request.data
    authority = next((v for n, v in data.headers.fields if n.lower() == b"host"), b"")
    fields = [
        (b":method", data.method),
        (b":scheme", data.scheme),
        (b":authority", authority),
        (b":path", data.path),
    ]
    for name, value in data.headers.fields:
        lowered = name.lower()
        if lowered not in _CONNECTION_FIELDS:
            fields.append((lowered, value))
    return fields


def read_response(fields: list[tuple[bytes, bytes]]) -> http.Response:
    """A response without body. ValueError: it is malformed."""
    pseudo, rest = split_pseudo_headers(fields)
    status = pseudo.get(b":status", b"")
    if not (len(status) == 3 and status.isdigit()):
        raise ValueError("the status code")
    return make_response(int(status), b"", rest.fields, None, time.time(), b"HTTP/2.0")
