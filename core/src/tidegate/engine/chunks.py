"""Chunked bodies of clients, read to the letter (RFC 9112 §7.1), as the lane's parser reads them.

h11's reader, which mitmproxy uses, takes line ends of LF alone, folded trailers, control
characters in extensions and extensions without end: what one parser skips another may read.
"""

from __future__ import annotations

import re
from typing import Any, Final, NoReturn

import h11

LINE: Final = 4 * 1024
"""Bytes that the line before a chunk may have."""
SLACK: Final = 16 * 1024
"""Bytes that framing may cost, beyond `COST` per 16 bytes of the body."""
COST: Final = 64

_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;[\t\x20-\x7e\x80-\xff]*)?\r\n")
_TRAILER: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*")
_FRAMING_NAMES: Final = frozenset({b"content-length", b"transfer-encoding", b"host"})


class TrailersTooLarge(h11.RemoteProtocolError):
    """More trailers than a head may have fields or bytes."""


class ChunkReader:
    """In place of h11's: called with the buffer, gives data, the end, or None (more is needed).

    `fields`, `head`: how many trailers there may be, and of how many bytes. Raises
    h11.RemoteProtocolError.
    """

    def __init__(self, fields: int, head: int) -> None:
        self._fields = fields
        self._head = head
        self._left = 0
        """Bytes of the chunk that are still to come."""
        self._closing = False
        """Whether the line end after a chunk's data is next."""
        self._last = False
        self._seen = 0
        self._framing = 0

    def __call__(self, buffer: Any) -> h11.Data | h11.EndOfMessage | None:
        if self._last:
            return self._trailers(buffer)
        if self._closing:
            end = bytes(buffer._data[:2])  # bytes(buffer) would copy all of it for each chunk
            if end != b"\r\n"[: len(end)]:
                raise h11.RemoteProtocolError("a chunk is longer than its size")
            if len(end) < 2:
                return None
            buffer.maybe_extract_at_most(2)
            self._closing = False
        if not self._left:
            size = self._size(buffer)
            if size is None:
                return None
            if size == 0:
                self._last = True
                return self._trailers(buffer)
            self._left = size
        data = buffer.maybe_extract_at_most(self._left)
        if data is None:
            return None
        self._left -= len(data)
        self._closing = not self._left
        self._seen += len(data)
        return h11.Data(data=bytes(data))

    def _size(self, buffer: Any) -> int | None:
        line = buffer.maybe_extract_next_line()
        if line is None:
            _check_start(bytes(buffer._data[: LINE + 1]))
            return None
        found = _SIZE.fullmatch(line)
        self._framing += len(line)
        if found is None or len(line) > LINE:
            raise h11.RemoteProtocolError("a chunk's size is not well-formed")
        if self._framing > COST * (1 + self._seen // 16) + SLACK:
            raise h11.RemoteProtocolError("a body of more framing than data")
        return int(found[1], 16)

    def _trailers(self, buffer: Any) -> h11.EndOfMessage | None:
        pending = bytes(buffer._data[: self._head + 4])
        if pending.startswith(b"\r\n"):
            buffer.maybe_extract_at_most(2)
            return h11.EndOfMessage()
        block, end, _ = pending.partition(b"\r\n\r\n")
        if len(block) > self._head:  # where there is an end, it is within the limit
            raise TrailersTooLarge("too many bytes of trailers")
        lines = block.split(b"\r\n")
        for line in lines if end else lines[:-1]:
            name = line.partition(b":")[0].lower()
            if not _TRAILER.fullmatch(line) or name in _FRAMING_NAMES:
                raise h11.RemoteProtocolError("a trailer is not well-formed")
        if len(lines) > self._fields:
            raise TrailersTooLarge("too many trailers")
        if not end:
            if b"\n" in lines[-1] or lines[-1][:1] in (b" ", b"\t"):
                raise h11.RemoteProtocolError("a trailer is not well-formed")
            return None
        buffer.maybe_extract_at_most(len(block) + 4)
        return h11.EndOfMessage()

    def read_eof(self) -> NoReturn:
        """The client has closed too early."""
        raise h11.RemoteProtocolError("the body is cut")


def _check_start(start: bytes) -> None:
    """Refuse a line that can't become well-formed, before its end has come."""
    size = start.partition(b";")[0].removesuffix(b"\r")
    if len(size) > 16 or len(start) > LINE or (size and not re.fullmatch(rb"[0-9A-Fa-f]+", size)):
        raise h11.RemoteProtocolError("a chunk's size is not well-formed")
