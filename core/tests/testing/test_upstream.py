"""The scripted upstream does what it is told, byte by byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tidegate.testing import ScriptedUpstream, script

GET = b"GET /a?b=1 HTTP/1.1\r\nHost: x\r\nX-A: 1\r\nx-a: 2\r\n\r\n"


@asynccontextmanager
async def connected(
    upstream: ScriptedUpstream,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", upstream.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def said(upstream: ScriptedUpstream, request: bytes = GET) -> bytes:
    """All that is said on a connection until its end."""
    async with connected(upstream) as (reader, writer), asyncio.timeout(10):
        writer.write(request)
        return await reader.read()


async def test_it_keeps_what_it_received(upstream):
    body = b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n"
    upstream.answer(*script.body(b"ok"))
    async with connected(upstream) as (reader, writer):
        for request in (GET, body, b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}"):
            writer.write(request)
            assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 OK\r\n")
    first, second, third = upstream.requests
    assert (first.method, first.target, first.version) == ("GET", "/a?b=1", "HTTP/1.1")
    assert first.values("X-A") == ["1", "2"]
    assert first.raw == GET
    assert (second.body, second.raw, second.trailers) == (b"abc", body, (("X-T", "1"),))
    assert third.json() == {}
    assert {r.connection for r in upstream.requests} == {1}


@pytest.mark.parametrize(
    ("actions", "expected"),
    [
        ((script.send(b"garbage\r\n"), script.close()), b"garbage\r\n"),
        (script.cut_body(b"12345"), b"HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n12345"),
        (script.cut_chunk(b"12"), b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nc\r\n12"),
        ((script.early_hints(), *script.body(b"x"), script.close()), None),
        ((*script.chunked(b"a", trailers={"x-t": "1"}), script.close()), None),
        ((script.drip(b"slow", 0.001), script.close()), b"slow"),
    ],
)  # fmt: skip
async def test_it_says_what_the_script_says(upstream, actions, expected):
    upstream.answer(*actions)
    got = await said(upstream)
    if expected is not None:
        assert got == expected
    elif got.startswith(b"HTTP/1.1 103 Early Hints\r\n"):
        assert b"HTTP/1.1 200 OK" in got
    else:
        assert got.endswith(b"1\r\na\r\n0\r\nx-t: 1\r\n\r\n")


async def test_it_resets(upstream):
    upstream.answer(script.head(200, {"content-length": "5"}), script.sleep(0.05), script.reset())
    with pytest.raises(ConnectionResetError):
        await said(upstream)


async def test_it_streams_events_as_they_come(upstream):
    upstream.answer(*script.sse("one", "two", pause=0.05))
    async with connected(upstream) as (reader, writer):
        writer.write(GET)
        for text in (b"data: one\n\n", b"data: two\n\n", b"data: [DONE]\n\n", b"0\r\n\r\n"):
            assert (await reader.readuntil(text)).endswith(text)


async def test_scripts_for_the_next_requests_and_by_request(upstream):
    upstream.answers((*script.body(b"1"), script.close()), (*script.body(b"2"), script.close()))
    assert [(await said(upstream))[-1:] for _ in range(3)] == [b"1", b"2", b"2"]
    upstream.handle(lambda request: (*script.body(request.target.encode()), script.close()))
    assert (await said(upstream)).endswith(b"/a?b=1")


async def test_it_may_answer_before_the_body(upstream):
    upstream.early = True
    upstream.answer(*script.body(b"no", 413), script.close())
    got = await said(upstream, b"POST / HTTP/1.1\r\nContent-Length: 1000\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 413 ")


async def test_it_knows_when_the_peer_goes_away(upstream):
    upstream.answer(script.silence())
    async with connected(upstream) as (_, writer):
        writer.write(GET)
        await upstream.until(lambda: len(upstream.requests) == 1)
        assert (upstream.connections, upstream.open) == (1, 1)
    await upstream.until(lambda: upstream.open == 0)


async def test_it_closes_an_idle_connection_after_an_answer(upstream):
    upstream.answer(*script.body(b"ok"), script.sleep(0.05), script.close())
    assert (await said(upstream)).endswith(b"ok")


async def test_at_its_end_it_leaves_no_connection_open():
    async with ScriptedUpstream(script.silence()) as upstream:
        reader, writer = await asyncio.open_connection("127.0.0.1", upstream.port)
        writer.write(GET)
        await upstream.until(lambda: len(upstream.requests) == 1)
    assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()
