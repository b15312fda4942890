"""lz4, in chunks, where it is worth it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import lz4.block

CHUNK: Final = 64 * 1024
"""Bytes of a body per stored chunk: a range needs only those that it touches."""
SMALLEST: Final = 512
"""Bytes below which nothing is gained."""
WORTH: Final = 0.9
"""A chunk is kept compressed where it shrinks to this share of it."""
TRIES: Final = 8
"""Chunks of a content type that must fail before it is remembered as incompressible."""
AGAIN: Final = 64
"""Every so many chunks of such a type one is tried again."""
_RAW: Final = b"\0"
_LZ4: Final = b"\1"
_PACKED: Final = (b"gzip", b"br", b"zstd", b"deflate", b"x-gzip", b"compress")


class Compressor:
    """Makes stored chunks of bodies, and remembers for which types that is not worth it."""

    __slots__ = ("_failures",)

    def __init__(self) -> None:
        self._failures: dict[bytes, int] = {}

    def chunks(self, body: bytes, content_type: bytes, coding: bytes) -> list[bytes]:
        """The stored chunks of a body. `coding`: its Content-Encoding; encoded is packed."""
        kind = content_type.split(b";", 1)[0].strip().lower()[:64]
        view = memoryview(body)
        out = []
        for start in range(0, len(body), CHUNK):
            piece = view[start : start + CHUNK]
            if len(piece) < SMALLEST or coding in _PACKED or not self._worth(kind):
                out.append(_RAW + bytes(piece))
                continue
            packed = lz4.block.compress(piece)
            if len(packed) <= WORTH * len(piece):
                self._failures.pop(kind, None)
                out.append(_LZ4 + packed)
            else:
                self._failures[kind] = self._failures.get(kind, 0) + 1
                out.append(_RAW + bytes(piece))
        return out

    def _worth(self, kind: bytes) -> bool:
        failures = self._failures.get(kind, 0)
        if failures < TRIES:
            if len(self._failures) > 1024:
                self._failures.clear()
            return True
        self._failures[kind] = failures + 1
        return failures % AGAIN == 0


def restore(chunks: Sequence[memoryview | bytes]) -> bytes:
    """The bytes of stored chunks. Raises ValueError where one is damaged."""
    out = []
    for chunk in chunks:
        if chunk[:1] == _LZ4:
            try:
                out.append(lz4.block.decompress(chunk[1:]))
            except lz4.block.LZ4BlockError as error:
                raise ValueError(f"a chunk is damaged: {error}") from None
        else:
            out.append(bytes(chunk[1:]))
    return out[0] if len(out) == 1 else b"".join(out)
