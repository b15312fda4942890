"""The AWS event stream (`application/vnd.amazon.eventstream`), both ways, with its checksums.

A message: total length (4), headers length (4), CRC-32 of these eight bytes (4), headers,
payload, CRC-32 of all before it (4); big-endian. A header: name length (1), name, type (1), value.
Source: AWS, "Amazon Transcribe: event stream encoding"; smithy.io, "Amazon Event Stream".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from struct import Struct
from typing import Final
from zlib import crc32

import orjson

from tidegate.api import SseEvent

LIMIT: Final = 16 * 1024 * 1024
_PRELUDE: Final = Struct("!III")
_CRC: Final = Struct("!I")
_FIXED: Final = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
"""Length of a header's value by its type; 6 and 7 (bytes, string) say theirs."""
_STRING: Final = 7
_BYTES: Final = 6


@dataclass(slots=True)
class AwsMessage:
    """One message. Headers of other types than string and bytes are kept as raw bytes."""

    headers: dict[str, str | bytes | bool] = field(default_factory=dict)
    payload: bytes = b""


def encode_message(message: AwsMessage) -> bytes:
    """A message in wire form; its headers are strings or bytes."""
    headers = bytearray()
    for name, value in message.headers.items():
        label = name.encode()
        kind = _STRING if isinstance(value, str) else _BYTES
        content = value.encode() if isinstance(value, str) else bytes(value)
        headers += bytes((len(label),)) + label + bytes((kind,))
        headers += len(content).to_bytes(2) + content
    total = 12 + len(headers) + len(message.payload) + 4
    sizes = total.to_bytes(4) + len(headers).to_bytes(4)
    out = sizes + _CRC.pack(crc32(sizes)) + headers + message.payload
    return out + _CRC.pack(crc32(out))


@lru_cache(maxsize=64)
def _headers(data: bytes) -> dict[str, str | bytes | bool]:
    """The headers; those of a stream's messages are few, and come again and again."""
    out: dict[str, str | bytes | bool] = {}
    at = 0
    while at < len(data):
        size = data[at]
        name = data[at + 1 : at + 1 + size].decode()
        at += 1 + size
        kind = data[at]
        at += 1
        if kind in (_STRING, _BYTES):
            size = int.from_bytes(data[at : at + 2])
            at += 2
        elif kind in _FIXED:
            size = _FIXED[kind]
        else:
            raise ValueError(f"an event-stream header of the unknown type {kind}")
        value = data[at : at + size]
        at += size
        if at > len(data):
            raise ValueError("an event-stream header is longer than its message says")
        out[name] = value.decode() if kind == _STRING else (kind == 0) if kind < 2 else value
    return out


class AwsParser:
    """Bytes to messages. ValueError: a checksum or a length is wrong."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[AwsMessage]:
        """The messages that are whole with these bytes."""
        buffer = self._buffer
        buffer += data
        out = []
        while len(buffer) >= 12:
            total, headers, checksum = _PRELUDE.unpack_from(buffer)
            if crc32(buffer[:8]) != checksum:
                raise ValueError("the checksum of an event-stream prelude is wrong")
            if total > LIMIT or total < 16 + headers:
                raise ValueError("the length of an event-stream message is wrong")
            if len(buffer) < total:
                break
            (checksum,) = _CRC.unpack_from(buffer, total - 4)
            if crc32(buffer[: total - 4]) != checksum:
                raise ValueError("the checksum of an event-stream message is wrong")
            payload = bytes(buffer[12 + headers : total - 4])
            known = _headers(bytes(buffer[12 : 12 + headers]))
            out.append(AwsMessage(dict(known), payload))
            del buffer[:total]
        return out

    @property
    def pending(self) -> bool:
        """Whether a message has begun and is not whole."""
        return bool(self._buffer)


class AwsDecoder:
    """Messages as events: the event type is the name; an exception's is marked with `!`."""

    def __init__(self) -> None:
        self._parser = AwsParser()

    def feed(self, data: bytes) -> list[SseEvent]:
        return [_event(message) for message in self._parser.feed(data)]

    def end(self) -> list[SseEvent]:
        if self._parser.pending:
            raise ValueError("the event stream was cut within a message")
        return []


def _event(message: AwsMessage) -> SseEvent:
    headers = message.headers
    kind = headers.get(":message-type")
    if kind == "exception":
        return SseEvent(message.payload.decode() or "{}", f"!{headers.get(':exception-type')!s}")
    if kind == "error":
        said = {"message": str(headers.get(":error-message", ""))}
        return SseEvent(orjson.dumps(said).decode(), f"!{headers.get(':error-code')!s}")
    return SseEvent(message.payload.decode(), str(headers.get(":event-type", "")))


class AwsEncoder:
    """Events as messages."""

    def feed(self, event: SseEvent) -> bytes:
        name = event.event
        if name.startswith("!"):
            headers: dict[str, str | bytes | bool] = {":exception-type": name[1:]}
            headers[":content-type"] = "application/json"
            headers[":message-type"] = "exception"
        else:
            headers = {":event-type": name, ":content-type": "application/json"}
            headers[":message-type"] = "event"
        return encode_message(AwsMessage(headers, event.data.encode()))

    def end(self) -> bytes:
        return b""
