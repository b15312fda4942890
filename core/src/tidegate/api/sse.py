"""Server-sent events, sans I/O: bytes in, events out (WHATWG HTML §9.2).

The parser loses nothing of the wire: what it returns, joined in order (`encode()` of an event
that nobody changed, raw blocks as they are), is the input.
"""

from __future__ import annotations

import re
from typing import Final

from .types import SseEvent

LIMIT: Final = 1024 * 1024
"""Bytes that one event may have where the parser is told nothing else."""

_BOM: Final = b"\xef\xbb\xbf"
_LINE_ENDS: Final = re.compile(rb"[\r\n]+")
_BLOCK_END: Final = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r)")
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")


class SseParser:
    r"""Cuts an event stream into its events, however its bytes are split.

    `feed` and `end` return an `SseEvent` for each block that dispatches an event, and the raw
    `bytes` of each block that does not (comments, `retry`, an `id` alone, blank lines). Pass
    those on as they are: a keep-alive comment comes out of the call that it went into.

    A block ends with its blank line. A CR may be half a CRLF: the block is not held back for
    that; a late LF comes out as raw bytes, where it is one more blank line, which means nothing.

    >>> SseParser().feed(b": hello\n\ndata: 1\n\n")
    [b': hello\n\n', SseEvent(data='1', event='', id=None)]
    """

    __slots__ = ("_buffer", "_limit", "_started")

    def __init__(self, limit: int = LIMIT) -> None:
        self._buffer = b""
        self._limit = limit
        self._started = False

    def feed(self, chunk: bytes) -> list[SseEvent | bytes]:
        """What is complete with these next bytes. ValueError: an event is over the limit."""
        held = len(self._buffer)
        buffer = self._buffer + chunk if held else chunk
        out: list[SseEvent | bytes] = []
        start = 0
        scan = held - 2 if held > 2 else 0  # a block's end may have begun in the bytes held
        only_lf = buffer.find(b"\r") < 0  # `in` costs ten times as much on bytes
        while True:
            if only_lf:
                end = buffer.find(b"\n\n", scan) + 2
            else:
                found = _BLOCK_END.search(buffer, scan)
                end = 1 if found is None else found.end()
            if (
                end != 1
                and only_lf
                and buffer.startswith(b"data: ", start)
                and buffer.find(b"\n", start) == end - 2
            ):  # the ordinary event: one line of data
                raw = buffer[start:end]
                out.append(SseEvent(raw[6:-2].decode("utf-8", "replace"), raw=raw))
                self._started = True
            elif buffer.startswith((b"\n", b"\r"), start):
                start = scan = self._blank(buffer, start, out)
                continue
            elif end == 1:
                break
            else:
                out.append(self._block(buffer[start:end]))
            if end - start > self._limit:
                raise self._too_long()
            start = scan = end
        self._buffer = buffer[start:]
        if len(buffer) - start > self._limit:
            raise self._too_long()
        return out

    def end(self) -> list[SseEvent | bytes]:
        """What is left at the end of the stream.

        The standard discards a block without its blank line, many clients do not: it comes out
        as an event like others, so that transforms see whatever a caller may see.
        """
        rest, self._buffer = self._buffer, b""
        return [self._block(rest)] if rest else []

    def _blank(self, buffer: bytes, start: int, out: list[SseEvent | bytes]) -> int:
        """Pass blank lines at the start of a block on; where they end."""
        blank = _LINE_ENDS.match(buffer, start)
        assert blank is not None
        self._started = True
        out.append(blank[0])
        return blank.end()

    def _too_long(self) -> ValueError:
        return ValueError(f"a server-sent event is longer than {self._limit} bytes")

    def _block(self, raw: bytes) -> SseEvent | bytes:
        """The event of one block, or the block itself where it dispatches none."""
        text = raw
        if not self._started:
            self._started = True
            text = raw.removeprefix(_BOM)
        data: list[bytes] = []
        event = b""
        id: bytes | None = None
        lines = _LINE_END.split(text) if b"\r" in text else text.split(b"\n")
        for line in lines:
            name, _, value = line.partition(b":")
            if name == b"data":
                data.append(value.removeprefix(b" "))
            elif name == b"event":
                event = value.removeprefix(b" ")
            elif name == b"id" and b"\0" not in value:
                id = value.removeprefix(b" ")
        if not data:
            return raw
        return SseEvent(
            b"\n".join(data).decode("utf-8", "replace"),
            event.decode("utf-8", "replace"),
            None if id is None else id.decode("utf-8", "replace"),
            raw=raw,
        )
