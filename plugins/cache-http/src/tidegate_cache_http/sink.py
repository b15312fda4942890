"""Takes a body in while it passes to the client, and stores it at its end."""

from __future__ import annotations

from collections.abc import Callable

from mitmproxy import http

type Keep = Callable[[bytes], None]


class StoringSink:
    """Collects up to `limit` bytes; `keep(body)` where the body is whole, else `lost()`, once.

    `expected` is the Content-Length that the head promised, or None.
    """

    __slots__ = ("_chunks", "_expected", "_keep", "_limit", "_lost", "_size")

    def __init__(
        self, keep: Keep, lost: Callable[[], None], *, limit: int, expected: int | None
    ) -> None:
        self._keep = keep
        self._lost: Callable[[], None] | None = lost
        self._limit = limit
        self._expected = expected
        self._chunks: list[bytes] = []
        self._size = 0

    def write(self, chunk: bytes) -> None:
        """The next bytes."""
        if self._lost is None:
            return
        self._size += len(chunk)
        if self._size > self._limit:
            self._give_up()
        else:
            self._chunks.append(chunk)

    def close(self, *, complete: bool, trailers: http.Headers | None) -> None:
        """The end. A cut body is not stored; trailers are not merged into the header (§3.1)."""
        if self._lost is None:
            return
        if not complete or (self._expected is not None and self._expected != self._size):
            self._give_up()
            return
        self._lost = None
        chunks = self._chunks
        self._keep(chunks[0] if len(chunks) == 1 else b"".join(chunks))

    def _give_up(self) -> None:
        lost, self._lost = self._lost, None
        self._chunks = []
        if lost is not None:
            lost()
