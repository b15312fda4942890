"""QUIC from clients: mitmproxy's layer on aioquic, with windows, stream limits and budgets of ours.

aioquic doubles a limit whenever half of it is used: nothing is ever held back, and a client may
open as many streams as it likes. Here a limit moves by what was taken, and by streams that ended.
Origins are spoken to over TCP, so QUIC towards them never runs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, cast

from aioquic.h3.connection import ErrorCode
from aioquic.quic import events as quic_events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import (
    MAX_STREAM_DATA_FRAME_CAPACITY,
    Limit,
    QuicConnection,
    QuicConnectionError,
)
from aioquic.quic.packet import QuicErrorCode, QuicFrameType
from aioquic.quic.stream import QuicStream
from aioquic.tls import AlertDescription
from mitmproxy import ctx
from mitmproxy.proxy import commands, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.quic import (
    ClientQuicLayer,
    QuicStartClientHook,
    QuicTlsData,
)
from mitmproxy.proxy.layers.quic._commands import QuicStreamCommand, SendQuicStreamData
from mitmproxy.proxy.layers.quic._stream_layers import (
    QuicLayer,
    tls_settings_to_configuration,
)

from .frames import (
    CONNECTION_WINDOW,
    GLITCHES,
    GLITCHES_PER_SECOND,
    STREAM_WINDOW,
    STREAMS,
    Budget,
)

if TYPE_CHECKING:
    from .master import Master
    from .quic_handler import QuicHandler

UNI_STREAMS: Final = 16
"""One-way streams that a client may have open: HTTP/3 needs three (RFC 9114 §6.2)."""
STEP: Final = 4 * 1024
"""Bytes that are taken before the client hears of it."""
IDLE: Final = 600.0
"""Seconds of silence after which QUIC itself gives a client up; `keepalive` is the handler's."""
HELLO: Final = 8
"""Datagrams that a ClientHello may be spread over."""
DATAGRAM: Final = 1000
"""Bytes of stream data that earn a frame or datagram without a use (or, sent, two)."""

CALM: Final = ErrorCode.H3_EXCESSIVE_LOAD

_CRYPTO_ERRORS: Final = range(0x100, 0x200)
"""TLS alerts as QUIC errors (RFC 9001 §4.8)."""
_FREE: Final = frozenset(
    {QuicFrameType.PADDING, QuicFrameType.ACK, QuicFrameType.ACK_ECN, QuicFrameType.CRYPTO}
    | set(range(QuicFrameType.STREAM_BASE, QuicFrameType.STREAM_BASE + 8))
)
"""Frames that cost nothing by themselves; a datagram without stream data costs one."""


class Window(Limit):
    """A limit that stays `size` ahead of what was freed."""

    def __init__(self, limit: Limit, size: int, step: int = 1) -> None:
        self._freed = self._kept = 0
        self._size, self._step = size, step
        super().__init__(frame_type=limit.frame_type, name=limit.name, value=size)

    def free(self, amount: int) -> None:
        """Make room for as much more."""
        self._kept += amount
        if self._kept >= self._step:
            self._freed += self._kept
            self._kept = 0

    @property
    def value(self) -> int:
        """The limit."""
        return self._freed + self._size

    @value.setter
    def value(self, doubled: int) -> None:
        """Where aioquic would raise it."""


class Finished:
    """The streams that are over, as a mark by kind instead of a set that only grows."""

    def __init__(self) -> None:
        self._below = [0, 0, 0, 0]
        self._above: set[int] = set()

    def add(self, stream_id: int) -> None:
        """A stream is over."""
        kind = stream_id % 4
        self._above.add(stream_id)
        while (lowest := self._below[kind] * 4 + kind) in self._above:
            self._above.remove(lowest)
            self._below[kind] += 1

    def __contains__(self, stream_id: int) -> bool:
        return stream_id // 4 < self._below[stream_id % 4] or stream_id in self._above


class Streams(dict[int, QuicStream]):
    """The open streams: tells of each that ends."""

    def __init__(self, ended: Callable[[QuicStream], None]) -> None:
        super().__init__()
        self._ended = ended

    def pop(self, stream_id: int) -> QuicStream:  # type: ignore[override]
        """As aioquic does it when a stream is over."""
        stream = super().pop(stream_id)
        self._ended(stream)
        return stream


class Connection(QuicConnection):
    """The server's side of a connection."""

    def __init__(self, configuration: QuicConfiguration, first: bytes) -> None:
        configuration.alpn_protocols = ["h3"]
        configuration.idle_timeout = IDLE
        configuration.max_data = CONNECTION_WINDOW
        configuration.max_stream_data = STREAM_WINDOW
        configuration.max_datagram_frame_size = None
        super().__init__(configuration=configuration, original_destination_connection_id=first)
        self._data = Window(self._local_max_data, CONNECTION_WINDOW, STEP)
        self._bidi = Window(self._local_max_streams_bidi, STREAMS)
        self._uni = Window(self._local_max_streams_uni, UNI_STREAMS)
        self._local_max_data = self._data
        self._local_max_streams_bidi = self._bidi
        self._local_max_streams_uni = self._uni
        self._streams = Streams(self._ended)
        self._streams_finished = cast("set[int]", Finished())
        self._taken: dict[int, int] = {}
        self._glitches = Budget(GLITCHES, GLITCHES_PER_SECOND)
        handlers = cast(Any, self)._QuicConnection__frame_handlers
        for kind, (handle, epochs) in tuple(handlers.items()):
            if kind not in _FREE:
                handlers[kind] = (partial(self._costly, handle), epochs)

    # -- streams ------------------------------------------------------------------------------

    def is_open(self, stream_id: int) -> bool:
        """Whether anything of a stream is still to come, or to be acknowledged."""
        return stream_id in self._streams

    def takes(self, stream_id: int) -> bool:
        """Whether more may be sent on a stream."""
        stream = self._streams.get(stream_id)
        if stream is None:
            return stream_id % 4 in (1, 3)  # ours, not opened yet
        sender = stream.sender
        return sender._reset_error_code is None and sender._buffer_fin is None

    def backlog(self, stream_id: int) -> int:
        """Bytes of a stream that the client has not acknowledged."""
        stream = self._streams.get(stream_id)
        return len(stream.sender._buffer) if stream is not None else 0

    def taken(self, stream_id: int, size: int) -> None:
        """What was received of a stream has been taken: as much more may come."""
        self._glitches.earn(size / DATAGRAM)
        stream = self._streams.get(stream_id)
        if stream is None:
            return  # `_ended` has seen to it
        self._data.free(size)
        self._taken[stream_id] = total = self._taken.get(stream_id, 0) + size
        if total + STREAM_WINDOW - stream.max_stream_data_local >= STEP:
            stream.max_stream_data_local = total + STREAM_WINDOW

    def _ended(self, stream: QuicStream) -> None:
        stream_id, receiver = cast(int, stream.stream_id), stream.receiver
        if stream_id % 2:  # ours
            return
        final = receiver._final_size
        size = receiver.highest_offset if final is None else final
        self._data.free(size - self._taken.pop(stream_id, 0))
        (self._uni if stream_id % 4 == 2 else self._bidi).free(1)

    def _write_stream_limits(self, builder: Any, space: Any, stream: QuicStream) -> None:
        if stream.receiver.is_finished:
            return
        if stream.max_stream_data_local_sent != stream.max_stream_data_local:
            buffer = builder.start_frame(
                QuicFrameType.MAX_STREAM_DATA,
                capacity=MAX_STREAM_DATA_FRAME_CAPACITY,
                handler=self._on_max_stream_data_delivery,
                handler_args=(stream,),
            )
            buffer.push_uint_var(stream.stream_id)
            buffer.push_uint_var(stream.max_stream_data_local)
            stream.max_stream_data_local_sent = stream.max_stream_data_local

    # -- budgets ------------------------------------------------------------------------------

    def receive_datagram(self, data: bytes, addr: Any, now: float) -> None:
        """As aioquic's, of a client that may not waste our time."""
        before = len(self._events)
        try:
            super().receive_datagram(data, addr, now)
        except AssertionError as failure:  # what aioquic takes for granted of a frame
            self.close(error_code=QuicErrorCode.PROTOCOL_VIOLATION, reason_phrase=str(failure))
        brought = islice(self._events, before, None)
        if any(isinstance(event, quic_events.StreamDataReceived) for event in brought):
            return
        if not self._glitches.spend(1):
            self.close(error_code=CALM, reason_phrase="too many datagrams")

    def send_stream_data(self, stream_id: int, data: bytes, end_stream: bool = False) -> None:
        """As aioquic's: what is sent is acknowledged, and widens windows."""
        self._glitches.earn(1 + 2 * len(data) / DATAGRAM)
        super().send_stream_data(stream_id, data, end_stream)

    def _handle_stop_sending_frame(self, context: Any, frame_type: int, buf: Any) -> None:
        """As aioquic's, which fails where we have reset the stream already."""
        start = buf.tell()
        stream = self._streams.get(buf.pull_uint_var())
        if stream is not None and stream.sender._reset_error_code is not None:
            buf.pull_uint_var()  # why it is to be stopped
            return
        buf.seek(start)
        super()._handle_stop_sending_frame(context, frame_type, buf)

    def _costly(self, handle: Callable[..., None], context: Any, kind: int, buf: Any) -> None:
        if not self._glitches.spend(1):
            raise QuicConnectionError(CALM, cast(int, None), "too many control frames")
        handle(context, kind, buf)


class ClientQuic(ClientQuicLayer):
    """QUIC that ends here. Its handler is a `QuicHandler`."""

    quic: Connection | None

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        master = cast("Master", ctx.master)
        self.handler = cast("QuicHandler", master.handler_by(context.client))

    def start_tls(
        self, original_destination_connection_id: bytes | None
    ) -> layer.CommandGenerator[None]:
        """As mitmproxy's, with a connection of ours."""
        data = QuicTlsData(self.conn, self.context)
        yield QuicStartClientHook(data)
        if data.settings is None:
            yield commands.CloseConnection(self.conn)
            return
        assert original_destination_connection_id is not None
        configuration = tls_settings_to_configuration(data.settings, is_client=False)
        self.tls = data.settings
        self.quic = Connection(configuration, original_destination_connection_id)
        self.handler.quic = self.quic

    def receive_handshake_data(
        self, data: bytes
    ) -> layer.CommandGenerator[tuple[bool, str | None]]:
        """As mitmproxy's, within bounds; says which TLS alert a client sent."""
        if len(self.handshake_datagram_buf) >= HELLO:
            return False, "the ClientHello is too long"
        try:
            done, error = yield from super().receive_handshake_data(data)
        except AssertionError as failure:  # what aioquic takes for granted of a datagram
            return False, str(failure)
        end = self.quic._close_event if self.quic is not None else None
        if error is not None and end is not None and end.error_code in _CRYPTO_ERRORS:
            error = _alert(end.error_code - 0x100)
        return done, error

    def on_handshake_error(self, err: str) -> layer.CommandGenerator[None]:
        """As mitmproxy's, without its log lines."""
        yield from QuicLayer.on_handshake_error(self, err)
        self.event_to_child = self.errored  # type: ignore[method-assign]

    def receive_data(self, data: bytes) -> layer.CommandGenerator[None]:
        """As mitmproxy's; acknowledgements tell that streams are over, or may go on."""
        yield from super().receive_data(data)
        if self.handler.http3 is not None and self.handler.http3.settle():
            yield from self.tls_interact()

    def _handle_command(self, command: commands.Command) -> layer.CommandGenerator[None]:
        """As mitmproxy's, but on a stream that is over or reset nothing more is said."""
        if isinstance(command, QuicStreamCommand) and command.connection is self.conn:
            assert self.quic is not None
            stream_id = command.stream_id
            sends = isinstance(command, SendQuicStreamData)
            if not self.quic.takes(stream_id) if sends else not self.quic.is_open(stream_id):
                return
        yield from super()._handle_command(command)


def _alert(number: int) -> str:
    """The name of a TLS alert, as OpenSSL would say it."""
    try:
        return AlertDescription(number).name.replace("_", " ")
    except ValueError:
        return f"alert {number}"
