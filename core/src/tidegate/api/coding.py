"""Content codings undone within a bound (RFC 9110 §8.4), so that no bomb gets in.

Both carriers use it, and plugins that watch bodies pass: what one can decode, and what it
refuses, holds for the others.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Any, Final

import brotli  # type: ignore[import-untyped]
import zstandard

from .messages import Fields

PIECE: Final = 64 * 1024
"""Bytes that are decoded at a time."""


class Undecodable(ValueError):
    """The body is not what its Content-Encoding says, or the coding is not known."""


class TooLarge(ValueError):
    """The decoded body is over its limit."""


class Decoder:
    """Undoes one content coding of a body that comes in pieces."""

    __slots__ = ("_next", "complete")

    def __init__(self, coding: str) -> None:
        make = _CODINGS.get(coding.strip().lower())
        if make is None:
            raise Undecodable(f"the content coding {coding[:40]!r} is not known")
        self._next = make()
        self.complete = False
        """True where the coded stream has reached its own end."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The decoded bytes, in pieces of bounded size. Raises Undecodable."""
        try:
            while True:
                piece, more, self.complete = self._next(data)
                if piece:
                    yield piece
                if not more:
                    return
                data = b""
        except (zlib.error, brotli.error, zstandard.ZstdError) as error:
            raise Undecodable(str(error)) from None


type _Step = Callable[[bytes], tuple[bytes, bool, bool]]
"""(decoded piece, whether there is more without new input, whether the end is reached)"""


def _zlib(window: int) -> Callable[[], _Step]:
    def make() -> _Step:
        state: Any = zlib.decompressobj(window)
        started = False

        def step(data: bytes) -> tuple[bytes, bool, bool]:
            nonlocal state, started
            try:
                piece = state.decompress(state.unconsumed_tail + data, PIECE)
            except zlib.error:
                if started or window != zlib.MAX_WBITS:
                    raise
                # `deflate` is sent without zlib's frame by some (RFC 9110 §8.4.1.2)
                state = zlib.decompressobj(-zlib.MAX_WBITS)
                piece = state.decompress(data, PIECE)
            started = True
            more = bool(state.unconsumed_tail) or len(piece) == PIECE
            return piece, more and not state.eof, state.eof

        return step

    return make


def _brotli() -> _Step:
    state = brotli.Decompressor()

    def step(data: bytes) -> tuple[bytes, bool, bool]:
        piece = state.process(data, output_buffer_limit=PIECE)
        # It may hold output back though it says that it takes more: ask until none comes.
        return piece, bool(piece) and not state.is_finished(), state.is_finished()

    return step


def _zstd() -> _Step:
    # It knows no bound for its output. Four bytes may stand for a block of 128 KiB, so that a
    # slice of 256 bytes gives 8 MiB at most.
    state = zstandard.ZstdDecompressor(max_window_size=8 * 1024 * 1024).decompressobj()
    waiting = bytearray()

    def step(data: bytes) -> tuple[bytes, bool, bool]:
        waiting.extend(data)
        piece = state.decompress(bytes(waiting[:256])) if waiting and not state.eof else b""
        del waiting[:256]
        return piece, bool(waiting), state.eof

    return step


_CODINGS: Final[dict[str, Callable[[], _Step]]] = {
    "gzip": _zlib(31),
    "x-gzip": _zlib(31),
    "deflate": _zlib(zlib.MAX_WBITS),
    "br": _brotli,
    "zstd": _zstd,
}


def decode(data: bytes, coding: str, limit: int) -> bytes:
    """`data` decoded. Raises TooLarge over `limit` bytes, Undecodable."""
    decoder = Decoder(coding)
    out = bytearray()
    for piece in decoder.feed(data):
        out += piece
        if len(out) > limit:
            raise TooLarge(f"the decoded body is over {limit} bytes")
    if not decoder.complete:
        raise Undecodable("the coded body is cut")
    return bytes(out)


def coding_of(fields: Fields) -> str:
    """The content codings that header fields name, "" where there are none."""
    values = [v for n, v in fields if len(n) == 16 and n.lower() == b"content-encoding"]
    coding = b",".join(values).decode("latin-1").strip().lower()
    return "" if coding == "identity" else coding


def within(fields: Fields, content: bytes, limit: int) -> None:
    """Raise TooLarge or Undecodable where a body, decoded, is no good. An empty one is good."""
    coding = coding_of(fields)
    if coding and content:
        decode(content, coding, limit)
    elif len(content) > limit:
        raise TooLarge(f"the body is over {limit} bytes")
