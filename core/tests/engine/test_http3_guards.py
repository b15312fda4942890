"""HTTP/3 from clients: limits, malformed requests, floods and silence."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aioquic.buffer import encode_uint_var
from aioquic.h3.connection import ErrorCode, FrameType, StreamType, encode_frame
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import QuicErrorCode

from tidegate.api import Denial, Exchange, Plugin, hook
from tidegate.engine.h3 import literal
from tidegate.testing import ScriptedUpstream
from tidegate.testing.script import body, silence

from .http3 import GET
from .http3_node import Front, ended, eventually

# -- limits -----------------------------------------------------------------------------------


async def test_streams_too_many_wait_and_one_who_opens_them_all_the_same_is_closed(
    front3: Front, http3_origin: ScriptedUpstream
) -> None:
    http3_origin.handle(lambda r: [silence()] if r.target == "/wait" else body(b"ok"))
    node = await front3()
    async with node.connect() as h3:
        for _ in range(99):
            h3.open("/wait")
        for _ in range(5):  # one place is left, and it is given back
            assert (await h3.get()).status == 200
        h3.open("/wait")
        _, one_too_many = h3.open("/wait")
        await eventually(lambda: len(http3_origin.requests) == 105)
        assert len(node.handlers[0].calls) == 100
        h3.quic._remote_max_streams_bidi = 1000
        h3.quic._unblock_streams(is_unidirectional=False)
        h3.transmit()
        await h3.until(lambda: h3.over)
        assert h3.over is not None
        assert h3.over.error_code == QuicErrorCode.STREAM_LIMIT_ERROR
        assert not one_too_many.heads
    await eventually(lambda: not node.handlers)


@pytest.mark.parametrize(
    ("path", "fields", "status", "code"),
    [
        ("/" + "x" * 9000, [], 414, b"uri_too_long"),
        ("/", [(b"x", b"y" * 33_000)], 431, b"headers_too_large"),
        ("/", [(b"x%d" % n, b"y") for n in range(101)], 431, b"headers_too_large"),
        ("/", [(b"content-length", b"99999999")], 413, b"body_too_large"),
    ],
)
async def test_limits_of_a_head(
    front3: Front, http3_origin: ScriptedUpstream, path: str, fields: Any, status: int, code: bytes
) -> None:
    node = await front3(gateway="limits = { body = 1000 }")
    async with node.connect() as h3:
        h3.h3._encode_headers = lambda _, fields: literal(fields)  # type: ignore[method-assign]
        got = await h3.get(path, *fields, end=False, method=b"POST")
        assert (got.status, code in got.body) == (status, True)
        assert (await h3.get()).status == 200
    assert len(http3_origin.requests) == 1


async def test_a_body_over_its_limit_is_refused_while_it_comes(front3: Front) -> None:
    node = await front3(gateway="limits = { body = 100000 }")
    async with node.connect() as h3:
        got = await h3.get(method=b"POST", body=bytes(3_000_000))
        assert got.status == 413 or got.reset is not None
        assert (await h3.get()).status == 200


async def test_a_denial_is_answered_before_the_body_comes(
    front3: Front, http3_origin: ScriptedUpstream
) -> None:
    class Deny(Plugin):
        @hook
        def authenticate(self, exchange: Exchange) -> Denial:
            return Denial(401, "no_key", "No key.")

    node = await front3(Deny)
    async with node.connect() as h3:
        got = await h3.get(method=b"POST", body=b"x" * 1000, end=False)
        assert (got.status, got.ended, got.reset) == (401, True, None)
    assert http3_origin.requests == []


@pytest.mark.parametrize("kind", [FrameType.HEADERS, 0x21])
async def test_a_frame_that_is_too_large_ends_the_connection(front3: Front, kind: int) -> None:
    node = await front3()
    async with node.connect() as h3:
        stream_id = h3.quic.get_next_available_stream_id()
        h3.raw(stream_id, encode_uint_var(kind) + encode_uint_var(1 << 30) + b"x" * 50)
        assert await ended(h3) == ErrorCode.H3_EXCESSIVE_LOAD


# -- malformed --------------------------------------------------------------------------------

PATH = (b":path", b"/")


@pytest.mark.parametrize(
    "fields",
    [
        [*GET, PATH, (b"connection", b"close")],
        [*GET, PATH, (b"transfer-encoding", b"chunked")],
        [*GET, PATH, (b"transfer-encoding", b"trailers")],
        [*GET, PATH, (b"upgrade", b"websocket")],
        [*GET, PATH, (b"te", b"gzip")],
        [*GET, PATH, (b"host", b"other.test")],
        [*GET, PATH, (b"content-length", b"+0")],
        [*GET, PATH, (b"content-length", b"0"), (b"content-length", b"0")],
        [*GET, PATH, (b"content-length", b"5")],
        [*GET, PATH, (b"X-Upper", b"1")],
        [*GET, PATH, (b"x", b"a\r\nb: c")],
        [*GET, PATH, (b"x", b"a\0")],
        [*GET, PATH, (b":status", b"200")],
        [*GET, PATH, PATH],
        [*GET],
        [*GET, (b"x", b"1"), PATH],
        [*GET, PATH, (b":protocol", b"websocket")],
        [(b":method", b"GET"), (b":scheme", b"https"), PATH],
        [(b":method", b"GET"), (b":authority", b"localhost"), PATH],
        [(b":method", b""), *GET[1:], PATH],
    ],
)
async def test_a_malformed_request_ends_its_stream_alone(
    front3: Front, http3_origin: ScriptedUpstream, fields: Any
) -> None:
    node = await front3()
    async with node.connect() as h3:
        _, stream = h3.head(fields)
        await h3.until(lambda: stream.reset is not None or stream.ended)
        assert (stream.reset, stream.heads) == (ErrorCode.H3_MESSAGE_ERROR, [])
        assert (await h3.get()).status == 200
        await eventually(lambda: len(node.handlers[0].http3.h3_conn.open) == 3)
    assert len(http3_origin.requests) == 1


async def test_a_stream_that_was_reset_may_still_be_stopped(front3: Front) -> None:
    """Both ends may give a stream up at once. aioquic fails an assertion there."""
    node = await front3()
    async with node.connect() as h3:
        stream_id, stream = h3.head(GET, end=False)
        await h3.until(lambda: stream.reset is not None)
        h3.quic.stop_stream(stream_id, ErrorCode.H3_REQUEST_CANCELLED)
        h3.transmit()
        assert (await h3.get()).status == 200


@pytest.mark.parametrize(
    ("kind", "data", "end", "code"),
    [
        (StreamType.CONTROL, b"", False, ErrorCode.H3_STREAM_CREATION_ERROR),
        (StreamType.PUSH, b"\0\0\0", False, ErrorCode.H3_STREAM_CREATION_ERROR),
        (StreamType.WEBTRANSPORT, b"\0x", False, ErrorCode.H3_STREAM_CREATION_ERROR),
        (None, encode_frame(FrameType.HEADERS, b""), False, ErrorCode.H3_FRAME_UNEXPECTED),
        (None, encode_frame(FrameType.SETTINGS, b""), False, ErrorCode.H3_FRAME_UNEXPECTED),
        (None, b"\x21\x80\x10\0\0" + b"x" * 5000, False, ErrorCode.H3_EXCESSIVE_LOAD),
        (None, b"", True, ErrorCode.H3_CLOSED_CRITICAL_STREAM),
    ],
)
async def test_one_way_streams_are_checked(
    front3: Front, kind: int | None, data: bytes, end: bool, code: ErrorCode
) -> None:
    node = await front3()
    async with node.connect() as h3:
        assert (await h3.get()).status == 200
        if kind is None:  # the control stream that there is
            stream_id = h3.h3._local_control_stream_id
            assert stream_id is not None
        else:
            stream_id = h3.quic.get_next_available_stream_id(is_unidirectional=True)
            data = encode_uint_var(kind) + data
        h3.raw(stream_id, data, end=end)
        assert await ended(h3) == code


async def test_a_control_stream_may_not_be_reset(front3: Front) -> None:
    node = await front3()
    async with node.connect() as h3:
        assert (await h3.get()).status == 200
        assert h3.h3._local_control_stream_id is not None
        h3.quic.reset_stream(h3.h3._local_control_stream_id, 0)
        h3.transmit()
        assert await ended(h3) == ErrorCode.H3_CLOSED_CRITICAL_STREAM


# -- floods -----------------------------------------------------------------------------------


async def test_a_flood_of_resets_costs_few_dials(
    front3: Front, http3_origin: ScriptedUpstream
) -> None:
    http3_origin.handle(lambda _: [silence()])
    node = await front3()
    async with node.connect() as h3:
        for _ in range(5000):
            if h3.over:
                break
            stream_id, _ = h3.open()
            h3.quic.reset_stream(stream_id, ErrorCode.H3_REQUEST_CANCELLED)
            h3.quic.stop_stream(stream_id, ErrorCode.H3_REQUEST_CANCELLED)
            h3.transmit()
            await asyncio.sleep(0)
        assert await ended(h3) == ErrorCode.H3_EXCESSIVE_LOAD
    assert http3_origin.connections <= 100
    await eventually(lambda: not node.handlers)


async def test_a_flood_of_malformed_requests_is_ended(front3: Front) -> None:
    node = await front3()
    async with node.connect() as h3:
        for _ in range(1000):
            if h3.over:
                break
            h3.head(GET)
            await asyncio.sleep(0)
        assert await ended(h3) == ErrorCode.H3_EXCESSIVE_LOAD


async def test_a_flood_of_pings_is_ended(front3: Front) -> None:
    node = await front3()
    async with node.connect() as h3:
        assert (await h3.get()).status == 200
        write = h3.quic._write_ping_frame

        def many(builder: Any, *_: Any, **__: Any) -> None:
            for _ in range(500):
                write(builder)

        h3.quic._write_ping_frame = many  # type: ignore[method-assign]
        for number in range(20):
            if h3.over:
                break
            h3.quic.send_ping(number)
            h3.transmit()
            await asyncio.sleep(0.01)
        assert await ended(h3) == ErrorCode.H3_EXCESSIVE_LOAD


# -- time -------------------------------------------------------------------------------------


async def test_a_handshake_that_is_not_finished_is_given_up(front3: Front) -> None:
    node = await front3(gateway='deadlines = { head = "1s" }')
    loop = asyncio.get_running_loop()
    quic = QuicConnection(
        configuration=QuicConfiguration(alpn_protocols=["h3"], server_name="localhost")
    )
    quic.connect(("127.0.0.1", node.port), now=loop.time())
    hello = [datagram for datagram, _ in quic.datagrams_to_send(now=loop.time())]
    sockets = []
    for datagram in (hello[0], b"junk", bytes(1200), b"\xc0" + b"\xff" * 1300, b""):
        transport, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, remote_addr=("127.0.0.1", node.port)
        )
        transport.sendto(datagram)
        sockets.append(transport)
    await eventually(lambda: node.handlers)
    await eventually(lambda: not node.handlers)
    for transport in sockets:
        transport.close()
    async with node.connect() as h3:
        assert (await h3.get()).status == 200


async def test_a_head_that_does_not_end_is_given_up(front3: Front) -> None:
    node = await front3(gateway='deadlines = { head = "1s" }')
    async with node.connect() as h3:
        h3.raw(h3.quic.get_next_available_stream_id(), b"\x01\x20")
        assert await ended(h3) == ErrorCode.H3_NO_ERROR


async def test_an_idle_connection_is_closed_and_told_so(front3: Front) -> None:
    node = await front3(gateway='deadlines = { keepalive = "1s" }')
    async with node.connect() as h3:
        assert (await h3.get()).status == 200
        assert await ended(h3) == ErrorCode.H3_NO_ERROR
    await eventually(lambda: not node.handlers)


async def test_a_connection_is_left_after_its_requests(front3: Front) -> None:
    node = await front3(gateway="limits = { requests = 3 }")
    async with node.connect() as h3:
        goaways: list[bytes] = []
        take = h3.h3._handle_control_frame

        def listen(kind: int, data: bytes) -> None:
            if kind == FrameType.GOAWAY:
                goaways.append(data)
            take(kind, data)

        h3.h3._handle_control_frame = listen  # type: ignore[method-assign]
        for _ in range(3):
            assert (await h3.get()).status == 200
        await h3.until(lambda: goaways)
        assert goaways == [encode_uint_var(12)]
        assert (await h3.get()).reset == ErrorCode.H3_REQUEST_REJECTED
        assert await ended(h3) == ErrorCode.H3_NO_ERROR
