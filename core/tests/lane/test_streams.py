"""Streams, hooks that need bodies or suspend, backpressure, clients that leave."""

from __future__ import annotations

import asyncio
import gzip
import time

import pytest

from tidegate.api import (
    Body,
    Denial,
    Exchange,
    Plugin,
    Principal,
    SseEvent,
    Timeouts,
    hook,
    upstream_from_url,
)
from tidegate.testing import ScriptedUpstream, Use
from tidegate.testing.script import (
    body,
    chunk,
    chunked,
    close,
    cut_chunk,
    head,
    last_chunk,
    send,
    silence,
    sleep,
    sse,
)

from .conftest import Serve


class Shout(Plugin):
    @hook
    def transform_event(self, exchange: Exchange, event: SseEvent) -> None:
        if event.data != "[DONE]":
            event.data = event.data.upper()


class CrashOnTwo(Plugin):
    @hook
    def transform_event(self, exchange: Exchange, event: SseEvent) -> None:
        if event.data == "2":
            raise RuntimeError("two")


class Reverse(Plugin):
    """Needs both bodies, and turns them round."""

    @hook(needs=Body(request=True, limit=1000))
    def transform_request(self, exchange: Exchange) -> None:
        exchange.request.content = exchange.request.content[::-1]

    @hook(needs=Body(response=True, limit=1000))
    def transform_response(self, exchange: Exchange) -> None:
        exchange.response.content = exchange.response.content[::-1]

    @hook
    def transform_event(self, exchange: Exchange, event: SseEvent) -> None:
        pass


class Redactor(Plugin):
    """Needs answers, and has no hook for events: nothing passes it."""

    @hook(needs=Body(response=True, limit=1000))
    def transform_response(self, exchange: Exchange) -> None:
        exchange.response.content = exchange.response.content.replace(b"secret", b"******")


class Slow(Plugin):
    """Async hooks that wait a little."""

    @hook
    async def authenticate(self, exchange: Exchange) -> Principal | Denial:
        await asyncio.sleep(0.01)
        if exchange.consume_header("x-key") is None:
            return Denial(401, "invalid_api_key", "no")
        return Principal("someone")

    @hook
    async def transform_response(self, exchange: Exchange) -> None:
        await asyncio.sleep(0.05)
        exchange.response.headers["x-late"] = "1"


class Hang(Plugin):
    @hook
    async def authorize(self, exchange: Exchange) -> None:
        await asyncio.sleep(3600)


async def test_each_event_leaves_as_it_came(serve: Serve, upstream: ScriptedUpstream) -> None:
    upstream.answer(*sse("a", "b", pause=0.1))
    running = await serve(upstream_from_url(upstream.url))
    peer = await running.connect()
    await peer.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (await peer.head())["transfer-encoding"] == "chunked"
    began = time.monotonic()
    assert await peer.line() == "9"
    assert await peer.line() == "data: a\n\n"
    assert time.monotonic() - began < 0.1
    assert b"[DONE]" in await peer.reader.readuntil(b"0\r\n\r\n")


async def test_events_are_transformed_one_by_one(serve: Serve, upstream: ScriptedUpstream) -> None:
    upstream.answer(
        head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"}),
        chunk(b": comment\n\ndata: a"),
        sleep(0.02),
        chunk(b"bc\n\ndata: d\n\n"),
        chunk(b"event: x\ndata: e\n\ndata: [DONE]\n\n"),
        last_chunk(),
    )
    running = await serve(upstream_from_url(upstream.url), Shout)
    peer = await running.connect()
    for _ in range(2):
        answer = await peer.get(accept_encoding="gzip")
        assert answer.body == (
            b": comment\n\ndata: ABC\n\ndata: D\n\nevent: x\ndata: E\n\ndata: [DONE]\n\n"
        )
    assert upstream.requests[0].values("accept-encoding") == ["identity"]
    assert upstream.connections == 1


async def test_encoded_events_are_decoded_for_the_hooks(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    upstream.answer(
        *chunked(
            gzip.compress(b"data: a\n\n"),
            headers={"content-type": "text/event-stream", "content-encoding": "gzip"},
        )
    )
    running = await serve(upstream_from_url(upstream.url), Shout)
    answer = await (await running.connect()).get()
    assert answer.body == b"data: A\n\n"
    assert answer.get("content-encoding") is None


async def test_a_failing_event_hook_cuts_the_stream_with_an_error_event(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    upstream.answer(*sse("1", "2", "3", pause=0.02))
    running = await serve(upstream_from_url(upstream.url), CrashOnTwo)
    peer = await running.connect()
    await peer.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    stream = await peer.closed()
    assert b"data: 1\n\n" in stream
    assert b"event: error\ndata: {" in stream
    assert b"plugin_failed" in stream
    assert not stream.endswith(b"0\r\n\r\n")
    await upstream.until(lambda: upstream.open == 0)


async def test_a_stream_that_is_cut_ends_with_an_error_event(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    upstream.answer(*sse("1", done=False)[:-1], sleep(0.02), close())
    running = await serve(upstream_from_url(upstream.url))
    peer = await running.connect()
    await peer.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    stream = await peer.closed()
    assert b"upstream_protocol_error" in stream
    assert not stream.endswith(b"0\r\n\r\n")


async def test_hooks_that_need_bodies_get_them_whole(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    upstream.handle(lambda request: chunked(request.body[:2], request.body[2:]))
    running = await serve(upstream_from_url(upstream.url), Reverse)
    peer = await running.connect()
    answer = await peer.post(b"hello")
    assert upstream.requests[0].body == b"olleh"
    assert answer.body == b"hello"
    assert answer["content-length"] == "5"
    await peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe")
    await asyncio.sleep(0.02)
    await peer.send(b"llo")
    assert (await peer.answer()).body == b"hello"


@pytest.mark.parametrize(
    ("data", "coding"),
    [(b"x" * 1001, ""), (gzip.compress(b"x" * 100_000), "gzip")],
)
async def test_a_body_over_the_limit_of_a_hook_is_refused(
    serve: Serve, upstream: ScriptedUpstream, data: bytes, coding: str
) -> None:
    running = await serve(upstream_from_url(upstream.url), Reverse)
    answer = await (await running.connect()).post(data, content_encoding=coding or "identity")
    assert (answer.status, answer.code) == (413, "body_too_large")
    assert upstream.requests == []


async def test_an_answer_over_the_limit_of_a_hook_is_refused(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    running = await serve(upstream_from_url(upstream.url), Redactor)
    peer = await running.connect()
    for script in (
        body(b"x" * 1001),
        chunked(*[b"x" * 300] * 4),
        body(gzip.compress(b"x" * 100_000), headers={"content-encoding": "gzip"}),
    ):
        upstream.answer(*script)
        answer = await peer.get()
        assert (answer.status, answer.code) == (502, "upstream_body_too_large")
    upstream.answer(*body(b"not gzip", headers={"content-encoding": "gzip"}))
    assert (await peer.get()).code == "upstream_protocol_error"


async def test_nothing_passes_a_redactor(serve: Serve, upstream: ScriptedUpstream) -> None:
    upstream.answer(*sse("a sec", "ret", "a secret"))
    running = await serve(upstream_from_url(upstream.url), Redactor)
    answer = await (await running.connect()).get()
    assert b"a ******" in answer.body
    assert b"a secret" not in answer.body


async def test_async_hooks_work_and_bodies_wait_for_them(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    data = b"x" * 3_000_000
    upstream.handle(lambda request: chunked(request.body))
    running = await serve(upstream_from_url(upstream.url), Slow)
    peer = await running.connect()
    head = f"POST / HTTP/1.1\r\nHost: a\r\nX-Key: 1\r\nContent-Length: {len(data)}\r\n\r\n"
    for _ in range(2):
        sender = asyncio.ensure_future(peer.send(head.encode() + data))
        answer = await peer.answer()
        await sender
        assert answer["x-late"] == "1"
        assert answer.body == data
    assert upstream.requests[0].values("x-key") == []
    assert (await peer.get()).status == 401


async def test_a_hook_that_hangs_ends_with_its_deadline(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    running = await serve(
        upstream_from_url(upstream.url), Hang, gateway={"deadlines": {"hooks": "200ms"}}
    )
    answer = await (await running.connect()).get()
    assert (answer.status, answer.code) == (503, "plugin_timeout")


@pytest.mark.parametrize("script", [(silence(),), (*sse("1", "2", pause=0.05)[:-1], silence())])
async def test_a_client_that_leaves_ends_what_is_done_for_it(
    serve: Serve, upstream: ScriptedUpstream, script: tuple
) -> None:
    upstream.answer(*script)
    running = await serve(upstream_from_url(upstream.url))
    peer = await running.connect()
    await peer.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await upstream.until(lambda: len(upstream.requests) == 1)
    await asyncio.sleep(0.2)
    peer.close()
    began = time.monotonic()
    await upstream.until(lambda: upstream.open == 0)
    assert time.monotonic() - began < 2
    exchange = (await running.ended())[0]
    assert exchange.outcome == "client_cancelled"
    assert running.lane.active == 0


async def test_a_client_that_leaves_during_a_hook_ends_the_hook(serve: Serve) -> None:
    running = await serve(None, Hang)
    peer = await running.connect()
    await peer.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await asyncio.sleep(0.1)
    peer.close()
    assert (await running.ended())[0].outcome == "client_cancelled"


async def test_a_client_that_half_closes_gets_its_answer(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    upstream.answer(sleep(0.2), *body(b"late"))
    running = await serve(upstream_from_url(upstream.url))
    peer = await running.connect()
    await peer.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    peer.writer.write_eof()
    assert (await peer.head()).status == 100  # asks whether somebody is still there
    answer = await peer.answer()
    assert answer.body == b"late"
    assert answer["connection"] == "close"
    assert await peer.closed() == b""


async def test_a_client_that_half_closes_in_the_middle_of_its_body_is_gone(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    running = await serve(upstream_from_url(upstream.url))
    peer = await running.connect()
    await peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
    await asyncio.sleep(0.05)
    peer.writer.write_eof()
    assert await peer.closed() == b""
    assert (await running.ended())[0].outcome == "client_cancelled"
    assert upstream.requests == []


async def test_a_slow_client_bounds_what_is_read_from_the_upstream(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    sent = 0

    async def flood(turn) -> None:
        nonlocal sent
        for _ in range(800):
            await turn.write(b"x" * 65536)
            sent += 65536

    upstream.answer(head(200, {"content-length": str(800 * 65536)}), flood)
    running = await serve(upstream_from_url(upstream.url))
    peer = await running.connect()
    peer.reader._limit = 65536  # the test's client itself must not read ahead
    await peer.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await peer.head()
    await asyncio.sleep(0.5)
    assert sent < 30_000_000
    connection = next(iter(running.lane.clients))
    assert connection.transport.get_write_buffer_size() < 1_000_000
    await peer.reader.readexactly(800 * 65536)
    assert (await running.ended())[0].bytes_out == 800 * 65536


async def test_a_slow_upstream_bounds_what_is_read_from_the_client(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    async def read_late(turn) -> None:
        await asyncio.sleep(0.5)
        left = 50_000_000
        while left:
            left -= len(await turn.reader.read(65536))

    upstream.early = True
    upstream.answer(read_late, *body(b"thanks"))
    running = await serve(upstream_from_url(upstream.url))
    peer = await running.connect()
    sender = asyncio.ensure_future(
        peer.send(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50000000\r\n\r\n" + b"x" * 50_000_000
        )
    )
    await asyncio.sleep(0.4)
    carriage = next(iter(running.lane.clients)).carriage
    assert carriage.incoming.size < 30_000_000
    assert carriage.delivery.origin.transport.get_write_buffer_size() < 1_000_000
    assert (await peer.answer()).body == b"thanks"
    await sender


async def test_an_answer_before_the_body_is_passed_on(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    upstream.early = True
    upstream.answer(*body(b"no thanks", status=403))
    running = await serve(upstream_from_url(upstream.url))
    peer = await running.connect()
    await peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" + b"x" * 70000)
    answer = await peer.answer()
    assert (answer.status, answer.body) == (403, b"no thanks")
    assert answer["connection"] == "close"
    assert await peer.closed() == b""


SHORT = {"deadlines": {"head": "300ms", "body": "300ms", "keepalive": "300ms"}}


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HT",
        b"GET / HTTP/1.1\r\nHost: a\r\nA: ",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc",
    ],
)
async def test_a_request_that_does_not_go_on_is_408(
    serve: Serve, upstream: ScriptedUpstream, data: bytes
) -> None:
    running = await serve(upstream_from_url(upstream.url), gateway=SHORT)
    peer = await running.connect()
    await peer.send(data)
    answer = await peer.answer()
    assert (answer.status, answer.code) == (408, "request_timeout")
    assert await peer.closed() == b""


async def test_a_head_that_trickles_is_408(serve: Serve) -> None:
    running = await serve(None, gateway=SHORT)
    peer = await running.connect()
    answer = asyncio.ensure_future(peer.answer())
    for byte in b"GET / HTTP/1.1\r\nHost: a\r\n" + b"a: b\r\n" * 50:
        if answer.done():
            break
        await peer.send(bytes((byte,)))
        await asyncio.sleep(0.02)
    assert (await answer).code == "request_timeout"


async def test_an_idle_connection_closes_without_a_word(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    running = await serve(upstream_from_url(upstream.url), gateway=SHORT)
    fresh, used = await running.connect(), await running.connect()
    assert (await used.get()).status == 200
    assert await fresh.closed() == b""
    assert await used.closed() == b""


@pytest.mark.parametrize(
    ("script", "timeouts"),
    [
        ((silence(),), Timeouts(first_byte=0.2)),
        ((silence(),), Timeouts(total=0.2)),
        ((send(b"HTTP/1.1 200 OK\r\n"), silence()), Timeouts(first_byte=0.2)),
    ],
)
async def test_a_silent_upstream_is_504(
    serve: Serve, upstream: ScriptedUpstream, script: tuple, timeouts: Timeouts
) -> None:
    upstream.answers(script, body(b"next"))
    running = await serve(upstream_from_url(upstream.url, timeouts=timeouts))
    peer = await running.connect()
    answer = await peer.get()
    assert (answer.status, answer.code) == (504, "upstream_timeout")
    assert (await peer.get()).body == b"next"


async def test_an_upstream_that_falls_silent_in_a_stream_is_cut(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    upstream.answer(*sse("1")[:2], silence())
    running = await serve(upstream_from_url(upstream.url, timeouts=Timeouts(idle=0.3)))
    peer = await running.connect()
    await peer.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    stream = await peer.closed()
    assert b"upstream_timeout" in stream


async def test_cut_chunks_do_not_end_as_whole(serve: Serve, upstream: ScriptedUpstream) -> None:
    upstream.answer(*cut_chunk(b"abc"))
    running = await serve(upstream_from_url(upstream.url), Use(Redactor))
    answer = await (await running.connect()).get()
    assert answer.code == "upstream_protocol_error"
