"""HTTP/2 frames of a client: h2's connection with windows, limits and budgets of ours.

What differs from mitmproxy's: windows of 64 KiB and 1 MiB instead of 2 GiB; a stream too many is
refused instead of ending the connection; field blocks are bounded before they are decoded;
whoever sends frames that only cost us something is asked to be calm (RFC 9113 §10.5).
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, Final

import h2.config
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import Event
from h2.exceptions import DenialOfServiceError, ProtocolError
from h2.settings import SettingCodes
from h2.stream import StreamClosedBy
from hyperframe import frame as frames
from mitmproxy.proxy.layers.http._http_h2 import BufferedH2Connection

from .strict import FieldDecoder, Frames, declared, falls_short, is_malformed, malformed

STREAM_WINDOW: Final = 64 * 1024
CONNECTION_WINDOW: Final = 1024 * 1024
FRAME: Final = 16 * 1024
STREAMS: Final = 100
"""Streams that a client may have open at a time."""

RESETS: Final = 50
"""Streams that a client may give up (CVE-2023-44487), or have us reset (CVE-2025-8671) …"""
RESETS_PER_SECOND: Final = RESETS / 30
"""… and how fast it earns them back, beside one for each stream that ends well."""
ADDRESSES: Final = 10_000
"""Clients whose resets are counted; the longest unseen is forgotten."""
GLITCHES: Final = 1000
"""Frames without a use that a client may send in a row …"""
GLITCHES_PER_SECOND: Final = 50.0
"""… and how fast it earns them back. What we send earns it more (PER_DATA)."""
PER_DATA: Final = 4
"""Control frames that one DATA frame of ours may be answered with."""

_COSTS: Final[dict[type[frames.Frame], int]] = {
    frames.PingFrame: 1,
    frames.SettingsFrame: 4,
    frames.PriorityFrame: 1,
    frames.WindowUpdateFrame: 1,
    frames.ContinuationFrame: 1,
    frames.ExtensionFrame: 1,
}

_FAULTS: Final = frozenset(
    {
        ErrorCodes.PROTOCOL_ERROR,
        ErrorCodes.FLOW_CONTROL_ERROR,
        ErrorCodes.STREAM_CLOSED,
        ErrorCodes.FRAME_SIZE_ERROR,
    }
)
"""What a stream is reset with for what its client did."""


class Budget:
    """What is spent comes back with time, up to `size`. What is overdrawn is a tenth at most."""

    __slots__ = ("_left", "_rate", "_size", "_then")

    def __init__(self, size: float, rate: float) -> None:
        self._size = self._left = size
        self._rate = rate
        self._then = time.monotonic()

    def earn(self, amount: float) -> None:
        """Give some back."""
        self._left = min(self._size, self._left + amount)

    def spend(self, amount: float) -> bool:
        """Take some. False: there was not enough."""
        self._pass_time()
        self._left = max(self._left - amount, -self._size / 10)
        return self._left >= 0

    @property
    def empty(self) -> bool:
        """Whether there is less than one."""
        self._pass_time()
        return self._left < 1

    def _pass_time(self) -> None:
        now = time.monotonic()
        self.earn((now - self._then) * self._rate)
        self._then = now


class Resets:
    """Budgets of resets by client address: another connection is no other client."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Budget] = OrderedDict()

    def of(self, address: str) -> Budget:
        """The budget of a client."""
        budget = self._known.get(address)
        if budget is None:
            budget = self._known[address] = Budget(RESETS, RESETS_PER_SECOND)
            if len(self._known) > ADDRESSES:
                self._known.popitem(last=False)
        self._known.move_to_end(address)
        return budget


class Connection(BufferedH2Connection):
    """The server's side of a connection.

    `head` is the bytes that a field section may have, `resets` the budget of its client.
    """

    MAX_CLOSED_STREAMS = 10 * STREAMS
    """Of as many it is remembered how they were closed."""

    def __init__(self, config: h2.config.H2Configuration, head: int, resets: Budget) -> None:
        super().__init__(config)
        self.local_settings.initial_window_size = STREAM_WINDOW
        self.local_settings.max_frame_size = FRAME
        self.local_settings.max_concurrent_streams = STREAMS
        self.local_settings[SettingCodes.MAX_HEADER_LIST_SIZE] = head
        self.local_settings.acknowledge()
        self.max_inbound_frame_size = FRAME
        self.incoming_buffer = Frames(server=True)
        self.decoder = FieldDecoder()
        # An answer (431) where that is honest, an end to the connection where it is a bomb.
        self.decoder.max_header_list_size = 4 * head
        self._block = 2 * head
        self._glitches = Budget(GLITCHES, GLITCHES_PER_SECOND)
        self._resets = resets
        self._begun = False
        self._faults = 0
        self.last_stream: int | None = None
        """The last stream that is served, once the client was asked to leave."""
        self.leaving = False
        """Whether the client has said that it opens no more streams."""

    def initiate_connection(self) -> None:
        """The preface: settings, and the connection's window."""
        H2Connection.initiate_connection(self)
        self.increment_flow_control_window(CONNECTION_WINDOW - self.inbound_flow_control_window)

    def leave(self) -> None:
        """Ask the client to open no more streams here. Those that are open go on."""
        if self.last_stream is None:
            self.last_stream = self.highest_inbound_stream_id
            # h2's own way would forbid itself to send anything more.
            self._prepare_for_sending([frames.GoAwayFrame(0, last_stream_id=self.last_stream)])

    def backlog(self, stream_id: int) -> int:
        """Bytes of a stream that wait for the client's window."""
        buffered = self.stream_buffers.get(stream_id)
        return sum(len(piece.data) for piece in buffered) if buffered else 0

    @property
    def partial(self) -> bool:
        """Whether a frame or a field block has begun and not ended."""
        buffer: Any = self.incoming_buffer
        return bool(buffer._data or buffer._headers_buffer)

    # -- what is received ---------------------------------------------------------------------

    def receive_data(self, data: bytes) -> list[Event]:
        """As h2's. Raises ProtocolError; then the connection is over."""
        events: list[Event] = super().receive_data(data)
        buffer: Any = self.incoming_buffer
        if sum(len(part.data) for part in buffer._headers_buffer) > self._block:
            raise self._end("a field block is too large")
        return events

    def _receive_frame(self, frame: frames.Frame) -> list[Event]:
        if not self._begun:
            if not isinstance(frame, frames.SettingsFrame) or "ACK" in frame.flags:
                raise ProtocolError("a preface without SETTINGS (RFC 9113 §3.4)")
            self._begun = True
        cost = _COSTS.get(type(frame), 0)
        if isinstance(frame, frames.DataFrame) and not frame.data:
            cost = 0 if "END_STREAM" in frame.flags else 10
        if cost and not self._glitches.spend(cost):
            raise DenialOfServiceError("too many control frames")
        if isinstance(frame, frames.RstStreamFrame) and not self._may_reset(frame.stream_id):
            raise DenialOfServiceError("too many resets")
        self._faults = 0
        events: list[Event] = super()._receive_frame(frame)
        if self._faults and not self._resets.spend(self._faults):
            raise DenialOfServiceError("too many streams that had to be reset")
        return events

    def _may_reset(self, stream_id: int) -> bool:
        """Whether a client may give up another stream.

        One that was answered to its end costs no more than any frame without a use: curl 7.88
        resets each stream whose Content-Length has come before END_STREAM.
        """
        stream = self.streams.get(stream_id)
        if stream is None or stream.closed:
            return self._glitches.spend(1)
        return self._resets.spend(1)

    def _prepare_for_sending(self, sent: list[frames.Frame]) -> None:
        for frame in sent:
            if isinstance(frame, frames.RstStreamFrame) and frame.error_code in _FAULTS:
                self._faults += 1
        super()._prepare_for_sending(sent)

    def _receive_headers_frame(
        self, frame: frames.HeadersFrame
    ) -> tuple[list[frames.Frame], list[Event]]:
        stream_id = frame.stream_id
        new = stream_id % 2 == 1 and stream_id > self.highest_inbound_stream_id
        late = self.last_stream is not None and stream_id > self.last_stream
        if new and (late or self._resets.empty or self.open_inbound_streams >= STREAMS):
            if not self._glitches.spend(4):
                raise DenialOfServiceError("too many streams")
            self.decoder.decode(frame.data, raw=True)  # the next block builds on its state
            self.highest_inbound_stream_id = stream_id
            self._closed_streams[stream_id] = StreamClosedBy.SEND_RST_STREAM
            return [frames.RstStreamFrame(stream_id, error_code=ErrorCodes.REFUSED_STREAM)], []
        before = declared(self.streams.get(stream_id))
        try:
            sent, events = super()._receive_headers_frame(frame)
        except ProtocolError as error:
            if stream_id not in self.streams or not is_malformed(error):
                raise
            return malformed(self.streams[stream_id])
        stream = self.streams[stream_id]
        return malformed(stream) if falls_short(stream, before, events) else (sent, events)

    def _receive_data_frame(
        self, frame: frames.DataFrame
    ) -> tuple[list[frames.Frame], list[Event]]:
        try:
            return super()._receive_data_frame(frame)
        except ProtocolError as error:
            if frame.stream_id not in self.streams or not is_malformed(error):
                raise
            sent, events = malformed(self.streams[frame.stream_id])
            size = frame.flow_controlled_length  # which nobody will take
            opened = self._inbound_flow_control_window_manager.process_bytes(size)
            if opened:
                sent.append(frames.WindowUpdateFrame(0, window_increment=opened))
            return sent, events

    def _receive_goaway_frame(
        self, frame: frames.GoAwayFrame
    ) -> tuple[list[frames.Frame], list[Event]]:
        """The client opens no more streams: those that are open go on (RFC 9113 §6.8)."""
        self.leaving = True
        return [], []

    def _end(self, why: str) -> ProtocolError:
        self._terminate_connection(ErrorCodes.ENHANCE_YOUR_CALM)
        return DenialOfServiceError(why)

    # -- what is sent -------------------------------------------------------------------------

    def send_data(
        self, stream_id: int, data: Any, end_stream: bool = False, pad_length: Any = None
    ) -> None:
        """As mitmproxy's: what the window does not take is kept back."""
        self._glitches.earn(PER_DATA)
        if end_stream:
            self._resets.earn(1)
        super().send_data(stream_id, data, end_stream, pad_length)


def join_cookies(fields: Iterable[tuple[bytes, bytes]]) -> tuple[tuple[bytes, bytes], ...]:
    """The fields with one Cookie at most: HTTP/2 may split it (RFC 9113 §8.2.3)."""
    fields = tuple(fields)
    cookies = [value for name, value in fields if name == b"cookie"]
    if len(cookies) < 2:
        return fields
    kept = tuple(field for field in fields if field[0] != b"cookie")
    return (*kept, (b"cookie", b"; ".join(cookies)))
