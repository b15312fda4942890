"""What RFC 9113 and RFC 7541 say of every frame, right and wrong: a case for each rule.

A connection error is a GOAWAY with the code that the RFC names, then the end of the connection.
A stream error is RST_STREAM with that code, and the connection goes on. Priority is deprecated
(RFC 9113 §5.3); what RFC 7540 called errors in it still is one here.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from h2.errors import ErrorCodes
from hpack import Encoder

from tidegate.testing.certificates import Authority
from tidegate.testing.script import body

from .wire2 import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITIZED,
    PRIORITY,
    PUSH_PROMISE,
    REQUEST,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Peer,
    block,
    data,
    frame,
    headers,
    opened,
    ping,
    post,
    priority,
    reset,
    settings,
    window,
    without,
)

PROTOCOL = ErrorCodes.PROTOCOL_ERROR
FLOW = ErrorCodes.FLOW_CONTROL_ERROR
SIZE = ErrorCodes.FRAME_SIZE_ERROR
CLOSED = ErrorCodes.STREAM_CLOSED
COMPRESSION = ErrorCodes.COMPRESSION_ERROR
TOP = 2**31 - 1

type Open = Callable[..., Awaitable[Peer]]


@pytest.fixture
def front(serve: Any, upstream: Any, route_to: Any, tmp_path: Path) -> Open:
    """`await front()`: a client of a listener with HTTP/2, before its first byte."""
    authority = Authority()
    certificate, key = authority.issue("localhost")
    (tmp_path / "pair.pem").write_bytes(certificate + key)

    async def start(**options: Any) -> Peer:
        lines = 'cert = "pair.pem"\nkey = "pair.pem"\nalpn = ["h2", "http/1.1"]'
        serving = await serve(route_to(upstream.url), listener=lines)
        trust = ssl.create_default_context(cadata=authority.pem.decode())
        return Peer(serving.port, trust, **options)

    return start


def trailing(*fields: tuple[str, str]) -> bytes:
    """A request with a body, and trailers."""
    return opened() + data(flags=0) + headers(1, block(fields=fields))


# -- connection errors --------------------------------------------------------------------------

HALF = headers(1, block(), END_STREAM)
"""A request whose field block does not end."""
REST = b"\x00\x01x\x01y"


def coded(name: bytes, *, tail: bytes = b"") -> bytes:
    """A field whose name is coded with Huffman's code; `tail` follows within the string."""
    encoder = Encoder().huffman_coder
    text = encoder.encode(name) + tail
    return b"\x00" + bytes((0x80 | len(text),)) + text + b"\x01y"


CONNECTION_ERRORS: dict[str, tuple[bytes, ErrorCodes]] = {
    "4.2 HEADERS beyond SETTINGS_MAX_FRAME_SIZE": (
        headers(1, block() + b"\x00" * 16_384),
        SIZE,
    ),
    "4.3 a block that can't be decoded": (headers(1, b"\xff\xff\xff\xff\xff\xff"), COMPRESSION),
    "4.3 PRIORITY within a block": (HALF + priority(1, 0), PROTOCOL),
    "4.3 HEADERS of another stream within a block": (HALF + headers(3), PROTOCOL),
    "5.1 idle: DATA": (data(), PROTOCOL),
    "5.1 idle: RST_STREAM": (reset(), PROTOCOL),
    "5.1 idle: WINDOW_UPDATE": (window(100, 1), PROTOCOL),
    "5.1 idle: CONTINUATION": (frame(CONTINUATION, END_HEADERS, 1, block()), PROTOCOL),
    "5.1.1 an even stream id": (headers(2), PROTOCOL),
    "5.1.1 a smaller stream id": (headers(5) + headers(3), PROTOCOL),
    "5.4.1 a PING on a stream": (ping(stream=1), PROTOCOL),
    "5.5 an unknown frame within a block": (HALF + frame(0x16, 0, 0), PROTOCOL),
    "6.1 DATA on stream 0": (opened() + data(0), PROTOCOL),
    "6.1 padding longer than the payload": (
        opened() + frame(DATA, END_STREAM | PADDED, 1, b"\x05test"),
        PROTOCOL,
    ),
    "6.2 HEADERS on stream 0": (headers(0), PROTOCOL),
    "6.2 padding longer than the block": (
        headers(1, b"\xff" + block(), END_HEADERS | END_STREAM | PADDED),
        PROTOCOL,
    ),
    "6.3 PRIORITY on stream 0": (priority(0, 1), PROTOCOL),
    "6.4 RST_STREAM on stream 0": (reset(0), PROTOCOL),
    "6.4 RST_STREAM of 3 bytes": (opened() + frame(RST_STREAM, 0, 1, bytes(3)), SIZE),
    "6.5 SETTINGS with ACK and a payload": (settings((3, 1), flags=ACK), SIZE),
    "6.5 SETTINGS on a stream": (settings((3, 100), stream=1), PROTOCOL),
    "6.5 SETTINGS of 3 bytes": (frame(SETTINGS, 0, 0, b"\x00\x03\x00"), SIZE),
    "6.5.2 ENABLE_PUSH of 2": (settings((2, 2)), PROTOCOL),
    "6.5.2 INITIAL_WINDOW_SIZE above its maximum": (settings((4, TOP + 1)), FLOW),
    "6.5.2 MAX_FRAME_SIZE below its minimum": (settings((5, 16_383)), PROTOCOL),
    "6.5.2 MAX_FRAME_SIZE above its maximum": (settings((5, 16_777_216)), PROTOCOL),
    "6.6 PUSH_PROMISE from a client": (
        opened() + frame(PUSH_PROMISE, END_HEADERS, 1, b"\x00\x00\x00\x02" + block()),
        PROTOCOL,
    ),
    "6.7 PING of 6 bytes": (ping(bytes(6)), SIZE),
    "6.8 GOAWAY on a stream": (frame(GOAWAY, 0, 1, bytes(8)), PROTOCOL),
    "6.8 GOAWAY of 4 bytes": (frame(GOAWAY, 0, 0, bytes(4)), SIZE),
    "6.9 WINDOW_UPDATE of 0": (window(0), PROTOCOL),
    "6.9 WINDOW_UPDATE of 3 bytes": (frame(WINDOW_UPDATE, 0, 0, bytes(3)), SIZE),
    "6.9.1 a connection window beyond 2^31-1": (window(TOP) + window(TOP), FLOW),
    "6.10 DATA within a block": (HALF + data(), PROTOCOL),
    "6.10 CONTINUATION on stream 0": (
        HALF + frame(CONTINUATION, END_HEADERS, 0, REST),
        PROTOCOL,
    ),
    "6.10 CONTINUATION after END_HEADERS": (
        opened() + frame(CONTINUATION, END_HEADERS, 1, REST),
        PROTOCOL,
    ),
    "6.10 CONTINUATION after a CONTINUATION with END_HEADERS": (
        headers(1, block(fields=post())[:3], 0)
        + frame(CONTINUATION, END_HEADERS, 1, block(fields=post())[3:])
        + frame(CONTINUATION, END_HEADERS, 1, REST),
        PROTOCOL,
    ),
    "6.10 CONTINUATION after DATA": (
        opened() + data(flags=0) + frame(CONTINUATION, END_HEADERS, 1, REST),
        PROTOCOL,
    ),
    "RFC 7541 2.3.3 an index that is not in the tables": (
        headers(1, block() + b"\xc6"),
        COMPRESSION,
    ),
    "RFC 7541 2.3.3 a name by an index that is not there": (
        headers(1, block() + b"\x7f\x07\x04test"),
        COMPRESSION,
    ),
    "RFC 7541 4.2 a table size update at a block's end": (
        headers(1, block() + b"\x21"),
        COMPRESSION,
    ),
    "RFC 7541 5.2 Huffman padding of more than 7 bits": (
        headers(1, block() + coded(b"x-test", tail=b"\xff")),
        COMPRESSION,
    ),
    "RFC 7541 5.2 Huffman padding of zeros": (
        headers(1, block() + b"\x00\x81\x18\x01y"),
        COMPRESSION,
    ),
    "RFC 7541 5.2 Huffman with EOS": (
        headers(1, block() + coded(b"x-test", tail=b"\xff\xff\xff\xff")),
        COMPRESSION,
    ),
    "RFC 7541 6.1 index 0": (headers(1, block() + b"\x80"), COMPRESSION),
    "RFC 7541 6.3 a table larger than was allowed": (
        headers(1, b"\x3f\xe2\x1f" + block()),
        COMPRESSION,
    ),
}


@pytest.mark.parametrize("case", CONNECTION_ERRORS)
async def test_a_connection_error_is_a_goaway_with_its_code(front: Open, case: str) -> None:
    sent, code = CONNECTION_ERRORS[case]
    async with await front() as peer:
        peer.send(sent)
        got = await peer.until(GOAWAY)
        assert got is not None, peer.seen
        assert ErrorCodes(got.code) is code
        assert await peer.receive() is None


@pytest.mark.parametrize(
    "begin", [b"INVALID CONNECTION PREFACE\r\n\r\n", PREFACE + ping(), PREFACE + headers()]
)
async def test_3_4_a_preface_that_is_none_ends_the_connection(front: Open, begin: bytes) -> None:
    async with await front(begin=begin) as peer:
        while await peer.receive() is not None:
            pass
        assert all(got.type in (SETTINGS, WINDOW_UPDATE, GOAWAY) for got in peer.seen)


# -- stream errors ------------------------------------------------------------------------------


def request(*fields: tuple[str, str]) -> bytes:
    return headers(1, block(fields=fields))


STREAM_ERRORS: dict[str, tuple[bytes, ErrorCodes]] = {
    "5.3.1 HEADERS that depend on themselves": (
        headers(1, b"\x00\x00\x00\x01\x10" + block(), END_HEADERS | END_STREAM | PRIORITIZED),
        PROTOCOL,
    ),
    "6.9.1 a stream window beyond 2^31-1": (opened() + window(TOP, 1) + window(TOP, 1), FLOW),
    "8.1 a second HEADERS without END_STREAM": (
        opened() + headers(1, block(fields=(("x", "y"),)), END_HEADERS),
        PROTOCOL,
    ),
    "8.1.1 Content-Length differs from the DATA": (
        opened(1, ("content-length", "1")) + data(),
        PROTOCOL,
    ),
    "8.1.1 Content-Length differs from several DATA": (
        opened(1, ("content-length", "1")) + data(flags=0) + data(),
        PROTOCOL,
    ),
    "8.1.1 Content-Length and no DATA": (
        headers(1, block(fields=post(("content-length", "5")))),
        PROTOCOL,
    ),
    "8.2.1 an uppercase field name": (headers(1, block(("X-TEST", "ok"))), PROTOCOL),
    "8.2.1 a field name with a space": (headers(1, block(("x test", "ok"))), PROTOCOL),
    "8.2.1 a field name with a colon": (headers(1, block(("x:test", "ok"))), PROTOCOL),
    "8.2.1 an empty field name": (headers(1, block(("", "ok"))), PROTOCOL),
    "8.2.1 a line end in a value": (headers(1, block(("x-test", "a\r\nb: c"))), PROTOCOL),
    "8.2.1 NUL in a value": (headers(1, block(("x-test", "a\x00b"))), PROTOCOL),
    "8.2.1 a value that begins with a space": (headers(1, block(("x-test", " a"))), PROTOCOL),
    "8.2.1 a value that ends in a space": (headers(1, block(("x-test", "a "))), PROTOCOL),
    "8.2.2 Connection": (headers(1, block(("connection", "keep-alive"))), PROTOCOL),
    "8.2.2 Keep-Alive": (headers(1, block(("keep-alive", "5"))), PROTOCOL),
    "8.2.2 Proxy-Connection": (headers(1, block(("proxy-connection", "close"))), PROTOCOL),
    "8.2.2 Transfer-Encoding": (headers(1, block(("transfer-encoding", "chunked"))), PROTOCOL),
    "8.2.2 Upgrade": (headers(1, block(("upgrade", "h2c"))), PROTOCOL),
    "8.2.2 TE other than trailers": (headers(1, block(("te", "trailers, deflate"))), PROTOCOL),
    "8.3 an unknown pseudo-header field": (request(*REQUEST, (":test", "ok")), PROTOCOL),
    "8.3 a response's pseudo-header field": (request(*REQUEST, (":status", "200")), PROTOCOL),
    "8.3 a pseudo-header field in trailers": (trailing((":method", "200")), PROTOCOL),
    "8.3 a pseudo-header field after a field": (
        request((":method", "GET"), ("x", "y"), *without(":method")),
        PROTOCOL,
    ),
    "8.3.1 an empty :path": (request(*without(":path"), (":path", "")), PROTOCOL),
    "8.3.1 no :method": (request(*without(":method")), PROTOCOL),
    "8.3.1 no :scheme": (request(*without(":scheme")), PROTOCOL),
    "8.3.1 no :path": (request(*without(":path")), PROTOCOL),
    "8.3.1 no :authority and no Host": (request(*without(":authority")), PROTOCOL),
    "8.3.1 :method twice": (request((":method", "GET"), *REQUEST), PROTOCOL),
    "8.3.1 :scheme twice": (request((":scheme", "https"), *REQUEST), PROTOCOL),
    "8.3.1 :path twice": (request((":path", "/"), *REQUEST), PROTOCOL),
    "8.3.1 :authority twice": (request((":authority", "localhost"), *REQUEST), PROTOCOL),
    "8.3.1 Host differs from :authority": (headers(1, block(("host", "other.test"))), PROTOCOL),
}


@pytest.mark.parametrize("case", STREAM_ERRORS)
async def test_a_stream_error_is_a_reset_with_its_code(
    front: Open, upstream: Any, case: str
) -> None:
    sent, code = STREAM_ERRORS[case]
    async with await front() as peer:
        peer.send(sent)
        got = await peer.until(RST_STREAM, 1)
        assert got is not None, peer.seen
        assert ErrorCodes(got.code) is code
        peer.send(headers(3))  # the connection is as good as before
        answer = await peer.until(HEADERS, 3)
        assert answer is not None, peer.seen
    assert all(request.body == b"" or request.method == "POST" for request in upstream.requests)
    assert [r.method for r in upstream.requests if r.method == "GET"] == ["GET"]


EITHER: dict[str, tuple[bytes, set[ErrorCodes]]] = {
    "4.2 DATA beyond SETTINGS_MAX_FRAME_SIZE": (opened() + data(1, bytes(16_385)), {SIZE}),
    "5.1 half-closed: DATA": (headers() + data(), {CLOSED}),
    "5.1 half-closed: HEADERS": (headers() + headers(), {CLOSED}),
    "5.1 half-closed: CONTINUATION": (
        headers() + frame(CONTINUATION, END_HEADERS, 1, REST),
        {PROTOCOL, CLOSED},
    ),
    "5.1 closed by a reset: DATA": (opened() + reset() + data(), {CLOSED}),
    "5.1 closed by a reset: HEADERS": (opened() + reset() + headers(), {CLOSED}),
    "5.1 closed by a reset: CONTINUATION": (
        opened() + reset() + frame(CONTINUATION, END_HEADERS, 1, REST),
        {PROTOCOL, CLOSED},
    ),
    "5.3.1 PRIORITY that depends on itself": (priority(1, 1), {PROTOCOL}),
    "6.9 WINDOW_UPDATE of 0 on a stream": (opened() + window(0, 1), {PROTOCOL}),
    "6.3 PRIORITY of 4 bytes": (opened() + frame(PRIORITY, 0, 1, bytes(4)), {SIZE}),
}
"""Where the RFC leaves it open whether the stream or the connection ends, or both are sound."""


@pytest.mark.parametrize("case", EITHER)
async def test_an_error_of_a_stream_or_of_the_connection_has_its_code(
    front: Open, case: str
) -> None:
    sent, codes = EITHER[case]
    async with await front() as peer:
        peer.send(sent)
        while (got := await peer.receive()) is not None:
            if got.type in (RST_STREAM, GOAWAY):
                break
        assert got is not None, peer.seen
        assert ErrorCodes(got.code) in codes


@pytest.mark.parametrize(
    ("late", "codes"),
    [
        (data(), {CLOSED}),
        (headers(), {CLOSED}),
        (frame(CONTINUATION, END_HEADERS, 1, REST), {CLOSED, PROTOCOL}),
    ],
    ids=["DATA", "HEADERS", "CONTINUATION"],
)
async def test_5_1_what_comes_on_a_closed_stream_is_an_error(
    front: Open, late: bytes, codes: set[ErrorCodes]
) -> None:
    async with await front() as peer:
        peer.send(headers())
        await peer.until(DATA, 1, END_STREAM)
        peer.send(late)
        while (got := await peer.receive()) is not None:
            if got.type in (RST_STREAM, GOAWAY):
                break
        assert got is not None, peer.seen
        assert ErrorCodes(got.code) in codes


async def test_two_content_lengths_are_refused(front: Open, upstream: Any) -> None:
    async with await front() as peer:
        peer.send(opened(1, ("content-length", "4"), ("content-length", "5")), data())
        got = await peer.until(DATA, 1)
        assert got is not None, peer.seen
        assert b"bad_request_framing" in got.payload
    assert upstream.requests == []


# -- what is right ------------------------------------------------------------------------------

LONG = block(*((f"x-{n}", "y" * 40) for n in range(60)))

RIGHT: dict[str, bytes] = {
    "a GET": headers(),
    "a HEAD": request((":method", "HEAD"), *without(":method")),
    "a POST": opened() + data(),
    "a POST with trailers": trailing(("x-test", "ok")),
    "4.1 an unknown frame": frame(0x16, 0xFF, 0, bytes(8)) + headers(),
    "4.1 flags without a meaning": ping(flags=0x16) + headers(),
    "4.1 the reserved bit": ping(stream=1 << 31) + headers(),
    "4.2 DATA of 16,384 bytes": opened() + data(1, bytes(16_384)),
    "5.1 PRIORITY on an idle stream": priority(3, 0) + headers(),
    "5.1 PRIORITY that depends on what is idle": priority(3, 5) + headers(),
    "5.1 PRIORITY on a half-closed stream": headers() + priority(1, 0),
    "5.1 WINDOW_UPDATE on a half-closed stream": headers() + window(100, 1),
    "5.3 HEADERS with a priority": headers(
        1, b"\x80\x00\x00\x00\x10" + block(), END_HEADERS | END_STREAM | PRIORITIZED
    ),
    "6.1 DATA with padding": opened() + frame(DATA, END_STREAM | PADDED, 1, b"\x05test\0\0\0\0\0"),
    "6.2 HEADERS with padding": headers(
        1, b"\x03" + block() + bytes(3), END_HEADERS | END_STREAM | PADDED
    ),
    "6.5.2 an unknown setting": settings((0xFF, 1)) + headers(),
    "6.5.2 ENABLE_PUSH of 1": settings((2, 1)) + headers(),
    "6.10 several CONTINUATIONs": headers(1, LONG[:100], END_STREAM)
    + frame(CONTINUATION, 0, 1, LONG[100:1000])
    + frame(CONTINUATION, END_HEADERS, 1, LONG[1000:]),
    "8.2.2 TE with trailers": headers(1, block(("te", "trailers"))),
    "8.3.1 Host is :authority": headers(1, block(("host", "localhost"))),
    "8.3.1 Host without :authority": request(*without(":authority"), ("host", "localhost")),
    "RFC 7541 6.2.1 with a table": headers(1, block()[1:] + b"\x40\x01x\x01y\xbe"),
    "RFC 7541 6.2.2 without indexing": headers(1, block() + b"\x00\x01x\x01y"),
    "RFC 7541 6.2.3 never indexed": headers(1, block() + b"\x10\x01x\x01y"),
    "RFC 7541 6.3 a smaller table": headers(1, b"\x20" + block()),
    "RFC 7541 6.3 two updates": headers(1, b"\x20\x3f\xe1\x1f" + block()),
    "RFC 7541 5.2 Huffman": headers(1, block() + coded(b"x-test")),
}


@pytest.mark.parametrize("case", RIGHT)
async def test_what_is_right_is_answered(front: Open, case: str) -> None:
    async with await front() as peer:
        peer.send(RIGHT[case])
        got = await peer.until(HEADERS, 1)
        assert got is not None, peer.seen
        assert got.payload[0] == 0x88, "the status is 200 (RFC 7541, appendix A)"
        if not got.flags & END_STREAM:
            assert await peer.until(DATA, 1, END_STREAM) is not None
        peer.send(ping(b"and goes"))
        assert (await peer.until(PING, 0, ACK)) is not None, peer.seen


@pytest.mark.parametrize(
    "sent",
    [
        priority(1, 0),
        headers() + reset(),
        opened() + reset(code=0xFF),
        opened() + reset() + priority(1, 0),
        opened() + reset() + window(100, 1),
        opened() + reset() + reset(),
        ping(b"no reply", ACK),
        frame(0x16, 0, 0, bytes(8)),
    ],
    ids=repr,
)
async def test_what_needs_no_answer_leaves_the_connection_as_it_is(
    front: Open, sent: bytes
) -> None:
    async with await front() as peer:
        peer.send(sent, ping(b"the next"))
        got = await peer.until(PING)
        assert got is not None, peer.seen
        assert (got.flags, got.payload) == (ACK, b"the next")
        assert not any(seen.type in (RST_STREAM, GOAWAY) for seen in peer.seen)


async def test_6_5_3_settings_are_acknowledged(front: Open) -> None:
    async with await front() as peer:
        assert await peer.until(SETTINGS, 0, ACK) is not None
        peer.send(settings((3, 100)))
        assert await peer.until(SETTINGS, 0, ACK) is not None


async def test_6_5_3_the_last_of_equal_settings_counts(front: Open) -> None:
    async with await front() as peer:
        peer.send(settings((4, 100), (4, 1)), headers())
        got = await peer.until(DATA, 1)
        assert got is not None
        assert len(got.payload) == 1


async def test_6_8_a_goaway_of_the_client_lets_its_streams_end(front: Open, upstream: Any) -> None:
    async with await front() as peer:
        peer.send(headers(), frame(GOAWAY, 0, 0, bytes(4) + b"\x00\x00\x00\xff"))
        assert await peer.until(DATA, 1, END_STREAM) is not None


async def test_6_9_2_a_window_that_opens_later_lets_the_body_go(front: Open) -> None:
    async with await front() as peer:
        peer.send(settings((4, 0)), headers())
        assert await peer.until(HEADERS, 1) is not None
        peer.send(settings((4, 1)))
        got = await peer.until(DATA, 1)
        assert got is not None
        assert got.payload == b"o"
        peer.send(window(10, 1))
        got = await peer.until(DATA, 1)
        assert got is not None
        assert got.payload == b"k"


async def test_6_9_2_a_window_may_become_negative(front: Open, upstream: Any) -> None:
    upstream.answer(*body(b"0123456789"))
    async with await front() as peer:
        peer.send(settings((4, 3)), headers())
        got = await peer.until(DATA, 1)
        assert got is not None
        assert got.payload == b"012"
        peer.send(settings((4, 2)), window(1, 1), ping())  # now it is 0
        assert await peer.until(PING) is not None
        assert [seen.type for seen in peer.seen].count(DATA) == 1
        peer.send(window(1, 1))
        got = await peer.until(DATA, 1)
        assert got is not None
        assert got.payload == b"3"
