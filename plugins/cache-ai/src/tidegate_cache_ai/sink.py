"""Takes an answer in while it passes to the caller."""

from __future__ import annotations

from mitmproxy import http

from .asked import Asked


class Sink:
    """Collects up to `most` bytes; a body that passed whole is put into `asked.body`."""

    __slots__ = ("_asked", "_chunks", "_most", "_size")

    def __init__(self, asked: Asked, most: int) -> None:
        self._asked = asked
        self._most = most
        self._chunks: list[bytes] = []
        self._size = 0

    def write(self, chunk: bytes) -> None:
        """The next bytes."""
        self._size += len(chunk)
        if self._size > self._most:
            self._chunks = []
        else:
            self._chunks.append(chunk)

    def close(self, *, complete: bool, trailers: http.Headers | None) -> None:
        """The end. What was cut, or is too large, is not kept."""
        if complete and self._size <= self._most:
            self._asked.body = b"".join(self._chunks)
        self._chunks = []
