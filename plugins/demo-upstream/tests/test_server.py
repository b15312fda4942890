"""The HTTP server of the demo, byte by byte."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
from tidegate_demo_upstream import openai_format
from tidegate_demo_upstream.server import MAX_BODY, Answer, Server

CHAT = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]}).encode()


@asynccontextmanager
async def serving(handler=None):
    server = Server(handler or (lambda r: openai_format.answer(r, 0)), openai_format.error)
    await server.start("127.0.0.1")
    try:
        yield server
    finally:
        await server.close()


async def exchange(server, *pieces: bytes) -> bytes:
    """All that the server says to some bytes, sent piece by piece, until it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0.01)
    async with asyncio.timeout(10):
        data = await reader.read()
    writer.close()
    return data


def post(body: bytes, *fields: str, path: str = "/v1/chat/completions") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *fields, "", ""]
    return "\r\n".join(lines).encode() + body


CLOSING = b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


async def test_a_request_may_come_in_any_pieces():
    whole = post(CHAT, "Connection: close")
    async with serving() as server:
        out = await exchange(server, whole[:5], whole[5:60], whole[60:-3], whole[-3:])
    assert out.startswith(b"HTTP/1.1 200 OK\r\n")


async def test_a_chunked_body_is_read():
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = b"%x\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (10, CHAT[:10], len(CHAT) - 10, CHAT[10:])
    async with serving() as server:
        out = await exchange(server, head + body + CLOSING)
    assert out.count(b"HTTP/1.1 200 OK") == 2
    assert b"chat.completion" in out


async def test_pipelined_requests_are_answered_in_order_on_one_connection():
    first = b"GET /v1/models/one HTTP/1.1\r\nHost: x\r\n\r\n"
    async with serving() as server:
        out = await exchange(server, first + post(CHAT) + CLOSING)
    places = [out.index(mark) for mark in (b'"one"', b"chat.completion", b'"demo"')]
    assert places == sorted(places)
    assert out.count(b"HTTP/1.1 200 OK") == 3


async def test_http_1_0_gets_a_stream_without_chunks():
    body = json.dumps({**json.loads(CHAT), "stream": True}).encode()
    async with serving() as server:
        out = await exchange(server, post(body).replace(b"HTTP/1.1", b"HTTP/1.0"))
    head, _, rest = out.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert rest.startswith(b"data: {")
    assert rest.endswith(b"data: [DONE]\n\n")


async def test_a_client_that_asks_first_is_told_to_go_on():
    whole = post(CHAT, "Expect: 100-continue", "Connection: close")
    head, _, body = whole.partition(b"\r\n\r\n")
    async with serving() as server:
        out = await exchange(server, head + b"\r\n\r\n", body)
    assert out.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK")


async def test_head_gets_no_body():
    async with serving() as server:
        out = await exchange(server, CLOSING.replace(b"GET", b"HEAD"))
    assert out.startswith(b"HTTP/1.1 200 OK")
    assert out.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + b"X-Long: %b\r\n\r\n" % (b"a" * 40_000), 431),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20_000, 431),
        (b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY + 1) + b"a" * MAX_BODY, 413),
    ],
    ids=["nonsense", "two lengths", "bad field", "upgrade", "long field", "endless head", "body"],
)
async def test_bad_requests_are_refused_and_the_connection_closes(sent, status):
    async with serving() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(sent + (b"b" if status == 413 else b""))
        async with asyncio.timeout(10):
            head = await reader.readline()
        writer.close()
    assert head.startswith(b"HTTP/1.1 %d " % status)


async def test_a_handler_that_fails_is_a_500_and_the_connection_goes_on(caplog):
    failed = []

    def handler(request):
        if not failed:
            failed.append(request)
            raise ValueError("no")
        return Answer(200, b"fine")

    async with serving(handler) as server:
        out = await exchange(server, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + CLOSING)
    assert out.startswith(b"HTTP/1.1 500 ")
    assert out.endswith(b"fine")


async def test_a_client_that_leaves_stops_the_stream():
    ended = asyncio.Event()
    sent = 0

    async def endless():
        nonlocal sent
        try:
            while True:
                sent += 1
                yield b"data: x\n\n"
                await asyncio.sleep(0.005)
        finally:
            ended.set()

    async with serving(lambda _: Answer(200, endless())) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"data: x")
        writer.close()
        async with asyncio.timeout(10):
            await ended.wait()
        before = sent
        await asyncio.sleep(0.05)
        assert sent == before


async def test_closing_cuts_streams_and_idle_connections():
    async def endless():
        while True:
            yield b"x"
            await asyncio.sleep(0.01)

    async with serving(lambda _: Answer(200, endless())) as server:
        idle, keep = await asyncio.open_connection("127.0.0.1", server.port)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"x\r\n")
    async with asyncio.timeout(10):
        assert await idle.read() == b""
        assert not (await reader.read()).endswith(b"0\r\n\r\n"), "a cut stream has no end mark"
    keep.close()
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", server.port)
