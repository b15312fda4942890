"""A stream on its way through the codec and the event hooks."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from mitmproxy import http
from typing_extensions import TypeIs

from tidegate.api import errors
from tidegate.api.sse import LIMIT, SseParser
from tidegate.api.types import Denial, Event, EventResult, SseEvent, WsMessage
from tidegate.api.upstream import BodyStream, Codec
from tidegate.runtime.coding import Decoder, TooLarge, coding_of
from tidegate.runtime.faults import StreamCut

if TYPE_CHECKING:
    from .exchange import Carriage

log = logging.getLogger("tidegate.lane")

EVENTS: Final = "text/event-stream"
DECODED: Final = 4 * 1024 * 1024
"""Bytes that one piece of an encoded stream may decode to."""


def bound(carriage: Carriage, codec: Codec | None) -> int:
    """Decoded bytes that are held of an answer: what its hooks bear, else what the codec does."""
    own = getattr(codec, "limit", 0)
    return carriage.pipeline.response_limit or max(carriage.lane.gather_limit, own)


class EventPipe:
    """Turns bytes of a stream into the bytes that are sent instead.

    Takes the Content-Encoding from `response`: hooks see decoded events, though identity was
    asked for. Raises ValueError where the coding is not known. What goes through `stream` is
    not given to the codec's `decode_event`; hooks see the events that come out of it.
    """

    __slots__ = ("_codec", "_decoder", "_exchange", "_parser", "_pipeline", "_stream")

    def __init__(
        self,
        carriage: Carriage,
        codec: Codec | None,
        response: http.Response,
        stream: BodyStream | None = None,
    ) -> None:
        self._exchange = carriage.exchange
        self._pipeline = carriage.pipeline
        self._codec = codec if stream is None else None
        self._stream = stream
        kind = response.headers.get("content-type", "") if stream is not None else EVENTS
        hooked = stream is None or carriage.pipeline.sees_events(response)
        limit = max(LIMIT, bound(carriage, codec))
        events = hooked and kind.lower().startswith(EVENTS)
        self._parser = SseParser(limit) if events else None
        fields = response.data.headers.fields
        coding = coding_of(fields)
        self._decoder = Decoder(coding) if coding else None
        if coding:
            response.data.headers.fields = tuple(
                field for field in fields if field[0].lower() != b"content-encoding"
            )

    def feed(self, data: bytes, *, complete: bool) -> bytes:
        """What is sent for the next bytes; what belongs to no event passes as it is.

        `complete`: they are the last. Raises StreamCut where a hook or the codec ends the
        stream, ValueError where it is not acceptable.
        """
        if self._decoder is not None and data:
            data = self._decoded(self._decoder, data)
        if self._stream is not None:
            data = self._translated(self._stream, data, complete=complete)
        if self._parser is None:
            return data
        items = self._parser.feed(data)
        if complete:
            items += self._parser.end()
        out: list[bytes] = []
        for item in items:
            if isinstance(item, bytes):
                out.append(item)
            else:
                out += [event.encode() for event in self._transform(item) if _is_sse(event)]
        if complete and self._codec is not None:
            for event in self._sequence(self._codec.decode_end(self._exchange)):
                sent = self._pipeline.event(self._exchange, event)
                out += [one.encode() for one in sent if _is_sse(one)]
        return b"".join(out)

    def _translated(self, stream: BodyStream, data: bytes, *, complete: bool) -> bytes:
        try:
            out = stream.feed(data) if data else b""
            return out + stream.end() if complete else out
        except ValueError:
            raise
        except Exception:
            log.exception("the codec failed on a stream (exchange %s)", self._exchange.id)
            raise StreamCut(errors.PLUGIN_TRANSFORM_FAILED.denial()) from None

    @staticmethod
    def _decoded(decoder: Decoder, data: bytes) -> bytes:
        out = bytearray()
        for piece in decoder.feed(data):
            out += piece
            if len(out) > DECODED:
                raise TooLarge(f"a piece of the stream decodes to over {DECODED} bytes")
        return bytes(out)

    def _transform(self, event: SseEvent) -> Sequence[Event]:
        exchange, pipeline = self._exchange, self._pipeline
        if self._codec is None:
            return pipeline.event(exchange, event)
        try:
            decoded = self._codec.decode_event(exchange, event)
        except Exception:
            log.exception("the codec failed on an event (exchange %s)", exchange.id)
            raise StreamCut(errors.PLUGIN_TRANSFORM_FAILED.denial()) from None
        return [
            out
            for one in self._sequence(event if decoded is None else decoded)
            for out in pipeline.event(exchange, one)
        ]

    @staticmethod
    def _sequence(events: EventResult) -> Sequence[Event]:
        """What a codec made of an event. Raises StreamCut where it refuses to go on."""
        if events is None:
            return ()
        if isinstance(events, Denial):
            raise StreamCut(events)
        return (events,) if isinstance(events, SseEvent | WsMessage) else events


def _is_sse(event: Event) -> TypeIs[SseEvent]:
    return isinstance(event, SseEvent)
