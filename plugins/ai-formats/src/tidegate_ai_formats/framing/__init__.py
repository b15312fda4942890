"""How events of a stream lie in bytes: sans-I/O decoders and encoders, any split of the bytes.

Every framing gives and takes `SseEvent`: `data` is one JSON text, `event` its name where the
framing has one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from tidegate.api import SseEvent
from tidegate_ai_formats.format import Framing

from .aws import AwsDecoder, AwsEncoder
from .plain import ArrayDecoder, ArrayEncoder, LinesDecoder, LinesEncoder, SseDecoder, SseEncoder


class Decoder(Protocol):
    """Bytes to events."""

    def feed(self, data: bytes) -> list[SseEvent]:
        """The events that are whole with these bytes. ValueError: they are not well-formed."""

    def end(self) -> list[SseEvent]:
        """What is left at the end. ValueError: the stream was cut within an event."""


class Encoder(Protocol):
    """Events to bytes."""

    def feed(self, event: SseEvent) -> bytes:
        """The bytes of one event."""

    def end(self) -> bytes:
        """The bytes that end the stream."""


_DECODERS: Final[dict[str, Callable[[], Decoder]]] = {
    "sse": SseDecoder,
    "ndjson": LinesDecoder,
    "json-array": ArrayDecoder,
    "aws": AwsDecoder,
}
_ENCODERS: Final[dict[str, Callable[[], Encoder]]] = {
    "sse": SseEncoder,
    "ndjson": LinesEncoder,
    "json-array": ArrayEncoder,
    "aws": AwsEncoder,
}
CONTENT_TYPES: Final = {
    "sse": "text/event-stream",
    "ndjson": "application/x-ndjson",
    "json-array": "application/json",
    "aws": "application/vnd.amazon.eventstream",
}


def decoder(framing: Framing) -> Decoder:
    """A decoder for one stream."""
    return _DECODERS[framing]()


def encoder(framing: Framing) -> Encoder:
    """An encoder for one stream."""
    return _ENCODERS[framing]()


def framing_of(content_type: str) -> Framing | None:
    """The framing that a `Content-Type` names; None where it is no stream for sure."""
    essence = content_type.partition(";")[0].strip().lower()
    for framing, name in CONTENT_TYPES.items():
        if essence == name and framing != "json-array":
            return framing  # type: ignore[return-value]
    return None


__all__ = ["CONTENT_TYPES", "Decoder", "Encoder", "decoder", "encoder", "framing_of"]
