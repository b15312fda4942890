"""What RFC 9113 asks of a receiver and h2 does not do: which error is whose, and with which code.

h2 ends the connection for a request that is malformed, where the RFC resets its stream (§8.1.1);
waits for all of a frame before it looks at its length (§4.2); calls most errors
PROTOCOL_ERROR; takes a preface without SETTINGS (§3.4); and forgets Content-Length where
HEADERS end a request (§8.1.1).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from h2.errors import ErrorCodes
from h2.events import Event, RequestReceived, StreamReset, TrailersReceived
from h2.exceptions import (
    FrameDataMissingError,
    FrameTooLargeError,
    InvalidBodyLengthError,
    ProtocolError,
)
from h2.frame_buffer import FrameBuffer
from h2.stream import H2Stream, StreamClosedBy
from hpack import Decoder, HeaderTuple, HPACKError, OversizedHeaderListError
from hyperframe import frame as frames

_FRAME_HEADER: Final = 9
_SETTINGS: Final = 4
_ACK: Final = 1


class CompressionError(ProtocolError):
    """A field block can't be decoded: what follows can't either (RFC 9113 §4.3)."""

    error_code = ErrorCodes.COMPRESSION_ERROR


class FieldDecoder(Decoder):
    """hpack's. What is wrong with a block has its own error code."""

    def decode(self, data: bytes, raw: bool = False) -> Iterable[HeaderTuple]:
        """Raises CompressionError, or OversizedHeaderListError."""
        try:
            return super().decode(data, raw)
        except OversizedHeaderListError:
            raise
        except (HPACKError, IndexError) as error:
            raise CompressionError(str(error)) from error


class Frames(FrameBuffer):
    """h2's. A frame that is too long is refused when its length has come, not its payload."""

    def __next__(self) -> frames.Frame:
        data = self._data
        if len(data) >= _FRAME_HEADER:
            length = int.from_bytes(data[:3])
            if length > self.max_frame_size:
                raise FrameTooLargeError(f"a frame of {length} bytes")
            if length and data[3] == _SETTINGS and data[4] & _ACK:
                raise FrameDataMissingError("an acknowledgement with settings (RFC 9113 §6.5)")
        return super().__next__()


def is_malformed(error: ProtocolError) -> bool:
    """Whether an error that a stream's frame caused is the stream's alone.

    h2 raises its base class for a message that is not well-formed, and others for what is wrong
    with the connection.
    """
    return type(error) in (ProtocolError, InvalidBodyLengthError)


def malformed(stream: H2Stream) -> tuple[list[frames.Frame], list[Event]]:
    """End a stream for its message: what is sent, and what the layer above hears."""
    states = stream.state_machine
    closed = states.stream_closed_by is not None
    sent = [] if closed else stream.reset_stream(ErrorCodes.PROTOCOL_ERROR)
    states.stream_closed_by = StreamClosedBy.SEND_RST_STREAM
    event = StreamReset(
        stream_id=stream.stream_id, error_code=ErrorCodes.PROTOCOL_ERROR, remote_reset=False
    )
    return sent, [event]


def declared(stream: H2Stream | None) -> int | None:
    """The Content-Length of a stream's request, where it has begun and has one."""
    length: int | None = stream._expected_content_length if stream is not None else None
    return length


def falls_short(stream: H2Stream, before: int | None, events: Iterable[Any]) -> bool:
    """Whether HEADERS ended a request before its Content-Length did.

    `before`: what was declared when they came.
    """
    for event in events:
        if isinstance(event, RequestReceived) and event.stream_ended is not None:
            lengths = [value for name, value in event.headers if name == b"content-length"]
            return any(value.strip(b"0") for value in lengths)
        if isinstance(event, TrailersReceived):
            return before is not None and before != stream._actual_content_length
    return False
