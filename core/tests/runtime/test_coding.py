"""Content codings within bounds: what is decoded, what is refused."""

from __future__ import annotations

import gzip
import zlib

import brotli
import pytest
import zstandard

from tidegate.runtime.coding import Decoder, TooLarge, Undecodable, coding_of, decode, within

TEXT = b"the quick brown fox " * 20_000
RAW = zlib.compressobj(wbits=-15)
CODED = {
    "gzip": gzip.compress(TEXT),
    "x-gzip": gzip.compress(TEXT),
    "deflate": zlib.compress(TEXT),
    "br": brotli.compress(TEXT),
    "zstd": zstandard.ZstdCompressor().compress(TEXT),
}


@pytest.mark.parametrize("coding", CODED)
def test_a_body_comes_back_whole_however_it_is_cut(coding):
    coded = CODED[coding]
    assert decode(coded, coding, len(TEXT)) == TEXT
    decoder = Decoder(coding)
    pieces = [p for at in range(0, len(coded), 7) for p in decoder.feed(coded[at : at + 7])]
    assert b"".join(pieces) == TEXT
    assert decoder.complete


def test_deflate_without_its_frame_is_read():
    assert decode(RAW.compress(TEXT) + RAW.flush(), "deflate", len(TEXT)) == TEXT


@pytest.mark.parametrize("coding", CODED)
def test_a_body_over_its_limit_is_too_large(coding):
    with pytest.raises(TooLarge):
        decode(CODED[coding], coding, len(TEXT) - 1)


@pytest.mark.parametrize("coding", CODED)
def test_a_body_that_is_cut_or_junk_is_refused(coding):
    with pytest.raises(Undecodable):
        decode(CODED[coding][:-8], coding, len(TEXT))
    with pytest.raises(Undecodable):
        decode(b"\xff\xfe junk" * 50, coding, len(TEXT))


def test_only_known_codings_are_taken():
    with pytest.raises(Undecodable):
        within(((b"Content-Encoding", b"rot13"),), b"x", 10)
    with pytest.raises(Undecodable):
        within(((b"content-encoding", b"gzip"), (b"content-encoding", b"br")), b"x", 10)
    assert coding_of(((b"Content-Encoding", b"Identity"),)) == ""


def test_an_empty_body_needs_no_decoding_and_a_plain_one_is_bounded():
    within(((b"content-encoding", b"gzip"),), b"", 10)
    within((), b"x" * 10, 10)
    with pytest.raises(TooLarge):
        within((), b"x" * 11, 10)
