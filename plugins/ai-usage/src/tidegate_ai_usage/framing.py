"""Cuts the bytes of an answer into JSON texts, whatever their framing. No I/O.

How they are framed is told by the first bytes: a codec may have changed the framing on the way,
and not every server names it right. Bytes come in batches; what is not whole yet is returned.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final, Literal

type Framing = Literal["sse", "lines", "array", "aws", "whole", "other"]
type Cut = tuple[list[bytes], bytes]
"""The JSON texts in some bytes, and the rest, which begins a text that is not whole yet."""

_SPACE: Final = b" \t\r\n\xef\xbb\xbf"
_DECODE: Final = json.JSONDecoder().raw_decode


def framing_of(start: bytes, content_type: str) -> Framing:
    """How an answer that begins so is framed."""
    start = start.lstrip(_SPACE)
    if start.startswith((b"data", b"event", b":", b"id:", b"retry")):
        return "sse"
    if start[:1] == b"{":
        return "lines" if "ndjson" in content_type or "jsonl" in content_type else "whole"
    if start[:1] == b"[":
        return "array"
    return "aws" if "amazon.eventstream" in content_type else "other"


def _sse(data: bytes) -> Cut:
    lines = data.split(b"\n")
    rest = lines.pop()
    return [line[5:] for line in lines if line.startswith(b"data:")], rest


def _lines(data: bytes) -> Cut:
    lines = data.split(b"\n")
    rest = lines.pop()
    return [line for line in lines if line.startswith(b"{")], rest


def _array(data: bytes) -> Cut:
    """The elements of an array: each begins where the one before it has ended."""
    text = data.decode("utf-8", "surrogateescape")
    found: list[bytes] = []
    at = 0
    while True:
        start = text.find("{", at)
        if start < 0:
            return found, b""
        try:
            _, end = _DECODE(text, start)
        except ValueError:
            return found, text[start:].encode("utf-8", "surrogateescape")
        found.append(text[start:end].encode("utf-8", "surrogateescape"))
        at = end


def _aws(data: bytes) -> Cut:
    """The payloads of AWS event-stream messages. Checksums are the reader's who acts on them."""
    found: list[bytes] = []
    at = 0
    while len(data) - at >= 16:
        total = int.from_bytes(data[at : at + 4])
        headers = int.from_bytes(data[at + 4 : at + 8])
        if total < 16 + headers or total > 16 * 1024 * 1024:
            return found, b""
        if len(data) - at < total:
            break
        found.append(data[at + 12 + headers : at + total - 4])
        at += total
    return found, data[at:]


CUTTERS: Final[dict[str, Callable[[bytes], Cut]]] = {
    "sse": _sse,
    "lines": _lines,
    "array": _array,
    "aws": _aws,
}
