"""A whole body of a stream, cut into its events: what a reader sees who has all of it."""

from __future__ import annotations

import json
from zlib import crc32

from tidegate.api import SseEvent, SseParser


def events_of(body: bytes) -> list[SseEvent]:
    """The events of a body. ValueError: it is not well framed.

    The first byte says how: no framing begins like another.
    """
    first = body.lstrip()[:1]
    if body[:1] == b"\0":
        return _aws(body)
    if first == b"[":
        return [SseEvent(json.dumps(one)) for one in json.loads(body)]
    if first == b"{":
        return [SseEvent(line) for line in body.decode().splitlines() if line.strip()]
    parser = SseParser(len(body) + 1)
    items = parser.feed(body.lstrip(b" \r\n")) + parser.end()
    return [item for item in items if isinstance(item, SseEvent)]


def _aws(body: bytes) -> list[SseEvent]:
    """`application/vnd.amazon.eventstream`: lengths, headers, payload, checksums."""
    out = []
    while body:
        total = int.from_bytes(body[:4])
        message, body = body[:total], body[total:]
        if len(message) < 16 or len(message) != total:
            raise ValueError("a message is cut")
        for part, checksum in ((message[:8], message[8:12]), (message[:-4], message[-4:])):
            if crc32(part) != int.from_bytes(checksum):
                raise ValueError("a checksum is wrong")
        start = 12 + int.from_bytes(message[4:8])
        headers = _headers(message[12:start])
        name = headers.get(":event-type") or "!" + headers[":exception-type"]
        out.append(SseEvent(message[start:-4].decode(), name))
    return out


def _headers(data: bytes) -> dict[str, str]:
    """Headers that are strings, as those of the providers' streams are."""
    out = {}
    while data:
        size = data[0]
        name, kind = data[1 : 1 + size].decode(), data[1 + size]
        if kind != 7:
            raise ValueError(f"a header of the type {kind}")
        start = 4 + size
        end = start + int.from_bytes(data[2 + size : start])
        out[name] = data[start:end].decode()
        data = data[end:]
    return out
