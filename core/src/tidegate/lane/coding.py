"""Content codings, bounded: what a body decodes to is never allowed to grow without end."""

from __future__ import annotations

import zlib
from typing import Final, Protocol

import brotli  # type: ignore[import-untyped]
from zstandard import ZstdDecompressor, ZstdError

from tidegate.runtime.messages import Fields

STEP: Final = 64 * 1024
"""Compressed bytes that are decoded between two looks at the size."""


class Decoder(Protocol):
    """Decodes a body in pieces. ValueError: it is not in that coding, or has gone over."""

    def feed(self, data: bytes, limit: int) -> bytes:
        """What these next bytes decode to, at most `limit` bytes."""


class _Zlib:
    def __init__(self, wbits: int) -> None:
        self._wbits = wbits
        self._inner = zlib.decompressobj(wbits)
        self._started = False

    def feed(self, data: bytes, limit: int) -> bytes:
        try:
            out = self._inner.decompress(data, limit + 1)
        except zlib.error as error:
            if self._started or self._wbits != zlib.MAX_WBITS:
                raise ValueError(str(error)) from None
            # `deflate` is sent without zlib's frame by some (RFC 9110 §8.4.1.2)
            self._inner = zlib.decompressobj(-zlib.MAX_WBITS)
            self._started = True
            return self.feed(data, limit)
        self._started = True
        if len(out) > limit or self._inner.unconsumed_tail:
            raise OverflowError
        return out


class _Brotli:
    def __init__(self) -> None:
        self._inner = brotli.Decompressor()

    def feed(self, data: bytes, limit: int) -> bytes:
        out = b""
        view = memoryview(data)
        try:
            # brotli has no bound on its output: small steps keep one step's burst small
            for start in range(0, len(data), 256):
                out += self._inner.process(bytes(view[start : start + 256]))
                if len(out) > limit:
                    raise OverflowError
        except brotli.error as error:
            raise ValueError(str(error)) from None
        return out


class _Zstd:
    def __init__(self) -> None:
        self._inner = ZstdDecompressor(max_window_size=8 * 1024 * 1024).decompressobj()

    def feed(self, data: bytes, limit: int) -> bytes:
        out = b""
        try:
            for start in range(0, len(data), 64):
                out += self._inner.decompress(data[start : start + 64])
                if len(out) > limit:
                    raise OverflowError
        except ZstdError as error:
            raise ValueError(str(error)) from None
        return out


def decoder(coding: bytes) -> Decoder | None:
    """A decoder for a Content-Encoding value, or None where there is nothing to decode.

    Raises ValueError for a coding that is not known here.
    """
    match coding.strip().lower():
        case b"" | b"identity":
            return None
        case b"gzip" | b"x-gzip":
            return _Zlib(16 + zlib.MAX_WBITS)
        case b"deflate":
            return _Zlib(zlib.MAX_WBITS)
        case b"br":
            return _Brotli()
        case b"zstd":
            return _Zstd()
    raise ValueError("this content coding is not known")


def content_coding(fields: Fields) -> bytes:
    """The value of the Content-Encoding fields, or empty."""
    found = [v for n, v in fields if len(n) == 16 and n.lower() == b"content-encoding"]
    return b",".join(found)


def decoded_within(fields: Fields, content: bytes, limit: int) -> bool:
    """Whether `content` decodes to at most `limit` bytes. ValueError: it does not decode."""
    coding = content_coding(fields)
    if not coding:
        return len(content) <= limit
    decode = decoder(coding)
    if decode is None:
        return len(content) <= limit
    left = limit
    try:
        for start in range(0, len(content), STEP):
            left -= len(decode.feed(content[start : start + STEP], left))
    except OverflowError:
        return False
    return True
