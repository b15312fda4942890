"""HTTP/3 frames of a client: aioquic's connection with limits of ours.

No dynamic table: what a field section says is bounded by its size, and no stream waits for
another. A malformed request ends its stream (RFC 9114 §4.1.2), where aioquic ends the connection.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from aioquic.buffer import encode_uint_var
from aioquic.h3 import connection as aioquic
from aioquic.h3.connection import ErrorCode, FrameType, H3Stream, Setting, StreamType
from aioquic.h3.events import H3Event, HeadersReceived
from mitmproxy.connection import Client
from mitmproxy.proxy.layers.http._http_h3 import LayeredH3Connection, StreamClosed
from mitmproxy.proxy.layers.quic import QuicStreamDataReceived, QuicStreamEvent

CONTROL: Final = 4 * 1024
"""Bytes that a frame on a one-way stream may have."""
CRITICAL: Final = frozenset(
    {StreamType.CONTROL, StreamType.QPACK_ENCODER, StreamType.QPACK_DECODER}
)
"""Streams that stay open as long as the connection (RFC 9114 §6.2.1, RFC 9204 §4.2)."""
HOP_BY_HOP: Final = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
)
"""Fields that make a message malformed (RFC 9114 §4.2)."""

type Fields = list[tuple[bytes, bytes]]


class ExcessiveLoad(aioquic.ProtocolError):
    """A client asks for more than is sensible."""

    error_code = ErrorCode.H3_EXCESSIVE_LOAD


class Connection(LayeredH3Connection):
    """The server's side of a connection. `head`: the bytes that a field section may have."""

    def __init__(self, client: Client, head: int) -> None:
        self._head = head
        super().__init__(client, is_client=False)
        self._max_table_capacity = self._blocked_streams = 0
        self.malformed: set[int] = set()
        """Streams that were reset for what their client sent, since it was last looked."""

    @property
    def open(self) -> tuple[int, ...]:
        """The streams of which something is known."""
        return tuple(self._stream)

    def ended_well(self, stream_id: int) -> bool:
        """Whether a request was answered to its end."""
        return stream_id not in self._closed_streams

    def forget(self, stream_id: int) -> None:
        """A stream is over."""
        self._stream.pop(stream_id, None)
        self._closed_streams.discard(stream_id)

    def decline(self, stream_id: int) -> None:
        """Ask a client to send no more of a request that is answered (RFC 9114 §4.1.1)."""
        self._closed_streams.add(stream_id)
        self._mock.stop_send(stream_id, ErrorCode.H3_NO_ERROR)

    def goaway(self, following: int) -> tuple[int, bytes]:
        """Where to say, and how, that requests from a stream on are not served."""
        assert self._local_control_stream_id is not None
        frame = aioquic.encode_frame(FrameType.GOAWAY, encode_uint_var(following))
        return self._local_control_stream_id, frame

    def get_open_stream_ids(self) -> Iterable[int]:
        """As mitmproxy's, but no view of what changes meanwhile."""
        return tuple(super().get_open_stream_ids())

    # -- settings -----------------------------------------------------------------------------

    def _get_local_settings(self) -> dict[int, int]:
        return {
            Setting.QPACK_MAX_TABLE_CAPACITY: 0,
            Setting.QPACK_BLOCKED_STREAMS: 0,
            Setting.MAX_FIELD_SECTION_SIZE: self._head,
        }

    def _validate_settings(self, settings: dict[int, int]) -> None:
        super()._validate_settings(settings)
        # the client's table is not used: it would be as large as the client says
        settings.update({Setting.QPACK_MAX_TABLE_CAPACITY: 0, Setting.QPACK_BLOCKED_STREAMS: 0})

    # -- what is sent -------------------------------------------------------------------------

    def _encode_headers(self, stream_id: int, headers: Fields) -> bytes:
        return literal(headers)

    # -- what is received ---------------------------------------------------------------------

    def handle_stream_event(self, event: QuicStreamEvent) -> list[H3Event]:
        """As mitmproxy's; one-way streams may not be answered."""
        if event.stream_id % 4 == 0 or isinstance(event, QuicStreamDataReceived):
            return super().handle_stream_event(event)
        stream = self._stream.get(event.stream_id)
        if stream is None or stream.stream_type in CRITICAL:
            self.close_connection(ErrorCode.H3_CLOSED_CRITICAL_STREAM)
        return []

    def _receive_request_or_push_data(
        self, stream: H3Stream, data: bytes, stream_ended: bool
    ) -> list[H3Event]:
        if stream.stream_id % 4:
            raise aioquic.StreamCreationError("a client does not push")
        try:
            events = super()._receive_request_or_push_data(stream, data, stream_ended)
            for event in events:
                if isinstance(event, HeadersReceived):
                    check(event.headers)
            if stream_ended and stream.headers_recv_state is aioquic.HeadersState.INITIAL:
                raise aioquic.MessageError("a stream without a request")
        except aioquic.MessageError:
            self.malformed.add(stream.stream_id)
            self.close_stream(stream.stream_id, ErrorCode.H3_MESSAGE_ERROR)
            return [StreamClosed(stream.stream_id, ErrorCode.H3_MESSAGE_ERROR)]
        if stream.frame_type == FrameType.WEBTRANSPORT_STREAM:
            raise aioquic.FrameUnexpected("WebTransport is not spoken here")
        if stream.frame_type != FrameType.DATA and (stream.frame_size or 0) > 2 * self._head:
            raise ExcessiveLoad("a frame is too large")
        return events

    def _receive_stream_data_uni(
        self, stream: H3Stream, data: bytes, stream_ended: bool
    ) -> list[H3Event]:
        events = super()._receive_stream_data_uni(stream, data, stream_ended)
        if stream.stream_type == StreamType.WEBTRANSPORT:
            raise aioquic.StreamCreationError("WebTransport is not spoken here")
        if stream_ended and stream.stream_type in CRITICAL:
            raise aioquic.ClosedCriticalStream
        if len(stream.buffer) > CONTROL:
            raise ExcessiveLoad("a frame is too large")
        return events


def literal(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A field section in which nothing is referred to (RFC 9204 §4.5.6).

    aioquic's encoder raises where a field has more than 4 KiB.
    """
    out = bytearray(2)  # no dynamic table
    for name, value in fields:
        out += _length(len(name), 0x20, 3) + name + _length(len(value), 0, 7) + value
    return bytes(out)


def _length(number: int, flags: int, bits: int) -> bytes:
    """An integer with a prefix of so many bits (RFC 7541 §5.1)."""
    full = (1 << bits) - 1
    if number < full:
        return bytes((flags | number,))
    out = bytearray((flags | full,))
    number -= full
    while number >= 128:
        out.append(number % 128 + 128)
        number //= 128
    out.append(number)
    return bytes(out)


def check(fields: Fields) -> None:
    """What aioquic does not look at in a request's fields. MessageError: it is malformed."""
    lengths = [value for name, value in fields if name == b"content-length"]
    if len(lengths) > 1 or not all(map(bytes.isdigit, lengths)):
        raise aioquic.MessageError("content-length")
    for name, value in fields:
        if name in HOP_BY_HOP or (name == b"te" and value != b"trailers"):
            raise aioquic.MessageError("connection-specific fields")
    pseudo = dict(field for field in fields if field[0].startswith(b":"))
    hosts = {value for name, value in fields if name == b"host"}
    if pseudo and hosts - {pseudo.get(b":authority")}:
        raise aioquic.MessageError("Host and :authority")
    if b":protocol" in pseudo or (
        pseudo.get(b":method") != b"CONNECT"
        and pseudo
        and not (b":scheme" in pseudo and b":path" in pseudo)
    ):
        raise aioquic.MessageError("pseudo-header fields")
