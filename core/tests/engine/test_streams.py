"""Bodies that stream, and bodies that are gathered."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any

import pytest

from tidegate.api import Body, Plugin, SseEvent, hook
from tidegate.testing.faults import SlowSink, crash_plugin
from tidegate.testing.script import body, chunk, chunked, cut_chunk, head, last_chunk, send, sse


class Shout(Plugin):
    @hook
    def transform_event(self, exchange: Any, event: Any) -> Any:
        assert isinstance(event, SseEvent)
        if event.data == "drop":
            return []
        if event.data == "two":
            return [SseEvent("one"), SseEvent("more")]
        event.data = event.data.upper()
        return None


def waits(gate: asyncio.Event) -> Any:
    async def run(_: Any) -> None:
        await gate.wait()

    return run


async def test_the_first_event_arrives_while_the_upstream_still_sends(
    serve: Any, upstream: Any, route_to: Any
) -> None:
    gate = asyncio.Event()
    kind = {"content-type": "text/event-stream", "transfer-encoding": "chunked"}
    upstream.answer(
        head(200, kind), chunk(b"data: 1\n\n"), waits(gate), chunk(b"data: 2\n\n"), last_chunk()
    )
    serving = await serve(route_to(upstream.url))
    async with serving.client() as client, client.stream("GET", "/") as answer:
        pieces = answer.aiter_raw()
        assert await anext(pieces) == b"data: 1\n\n"
        gate.set()
        assert await anext(pieces) == b"data: 2\n\n"


async def test_a_body_of_unknown_length_passes_at_once(
    serve: Any, upstream: Any, route_to: Any
) -> None:
    gate = asyncio.Event()
    upstream.answer(
        head(200, {"transfer-encoding": "chunked"}), chunk(b"a"), waits(gate), last_chunk()
    )
    serving = await serve(route_to(upstream.url))
    async with serving.client() as client, client.stream("GET", "/") as answer:
        assert await anext(answer.aiter_raw()) == b"a"
        gate.set()


async def test_a_large_body_streams_with_its_length(
    serve: Any, upstream: Any, route_to: Any
) -> None:
    data = bytes(300_000)
    gate = asyncio.Event()
    upstream.answer(
        head(200, {"content-length": "300000"}), send(data[:1]), waits(gate), send(data[1:])
    )
    serving = await serve(route_to(upstream.url))
    async with serving.client() as client, client.stream("GET", "/") as answer:
        assert answer.headers["content-length"] == "300000"
        pieces = answer.aiter_raw()
        got = await anext(pieces)
        gate.set()
        async for piece in pieces:
            got += piece
    assert got == data


async def test_events_pass_the_hooks_one_by_one(serve: Any, upstream: Any, route_to: Any) -> None:
    upstream.answer(*sse("a", "drop", "two", done=False))
    serving = await serve(Shout, route_to(upstream.url))
    answer = await serving.get("/", "Accept-Encoding: gzip")
    text = b"".join(answer.body.split(b"\r\n")[1::2])
    assert text == b"data: A\n\ndata: one\n\ndata: more\n\n"
    assert upstream.requests[0].values("accept-encoding") == ["identity"]


async def test_events_are_decoded_where_the_upstream_codes_them_all_the_same(
    serve: Any, upstream: Any, route_to: Any
) -> None:
    upstream.answer(
        *chunked(
            gzip.compress(b"data: a\n\n"),
            headers={"content-type": "text/event-stream", "content-encoding": "gzip"},
        )
    )
    serving = await serve(Shout, route_to(upstream.url))
    answer = await serving.get()
    assert "content-encoding" not in answer
    assert b"data: A\n\n" in answer.body


async def test_a_failing_event_hook_cuts_the_stream_with_an_error_event(
    serve: Any, upstream: Any, route_to: Any
) -> None:
    upstream.answer(*sse("a"))
    serving = await serve(crash_plugin("transform_event"), route_to(upstream.url))
    answer = await serving.get()
    assert answer.status == 200
    assert not answer.raw.endswith(b"0\r\n\r\n")
    event = answer.body.split(b"data: ")[1].split(b"\n")[0]
    assert json.loads(event)["error"]["code"] == "plugin_failed"
    exchange = await serving.last()
    assert (exchange.outcome, exchange.failed_addon) == ("failed", "p0")
    await upstream.until(lambda: upstream.open == 0)


async def test_a_stream_that_the_upstream_cuts_ends_with_an_error_event(
    serve: Any, upstream: Any, route_to: Any
) -> None:
    upstream.answer(
        head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"}),
        chunk(b"data: 1\n\n"),
        *cut_chunk(b"x")[1:],
    )
    serving = await serve(route_to(upstream.url))
    answer = await serving.get()
    assert b"data: 1\n\n" in answer.body
    assert b"upstream_protocol_error" in answer.body
    assert not answer.raw.endswith(b"0\r\n\r\n")
    assert (await serving.last()).attempts[0].error == "upstream_protocol_error"


class Redact(Plugin):
    @hook(needs=Body(response=True, limit=100))
    def transform_response(self, exchange: Any) -> None:
        exchange.response.content = exchange.response.content.replace(b"secret", b"******")


async def test_a_redactor_sees_whole_bodies_and_streams_are_gathered_for_it(
    serve: Any, upstream: Any, route_to: Any
) -> None:
    upstream.answers(body(b"a secret"), sse("a secret", done=False))
    serving = await serve(Redact, route_to(upstream.url))
    assert (await serving.get()).body == b"a ******"
    answer = await serving.get()
    assert (answer.body, answer["content-length"]) == (b"data: a ******\n\n", "16")


@pytest.mark.parametrize("how", ["length", "chunks", "bomb"])
async def test_a_body_over_the_limit_of_its_reader_is_502(
    serve: Any, upstream: Any, route_to: Any, how: str
) -> None:
    if how == "length":
        upstream.answer(*body(bytes(101)))
    elif how == "chunks":
        upstream.answer(*chunked(bytes(60), bytes(60)))
    else:
        upstream.answer(*body(gzip.compress(bytes(5000)), headers={"content-encoding": "gzip"}))
    serving = await serve(Redact, route_to(upstream.url))
    answer = await serving.get()
    assert (answer.status, answer.code) == (502, "upstream_body_too_large")


async def test_a_transform_may_answer_in_place_of_a_stream(
    serve: Any, upstream: Any, route_to: Any
) -> None:
    from mitmproxy import http

    class Instead(Plugin):
        @hook
        def transform_response(self, exchange: Any) -> None:
            exchange.response = http.Response.make(200, b"instead")

    upstream.answer(*sse("a", pause=5))
    serving = await serve(Instead, route_to(upstream.url))
    assert (await serving.get()).body == b"instead"
    await upstream.until(lambda: upstream.open == 0)


async def test_sinks_see_a_streamed_body_and_its_end(
    serve: Any, upstream: Any, route_to: Any
) -> None:
    sinks: list[SlowSink] = []

    class Store(Plugin):
        @hook
        def cache_store(self, exchange: Any) -> Any:
            sinks.append(SlowSink(0))
            return sinks[-1]

    upstream.answers(chunked(b"ab", b"cd"), cut_chunk(b"ab"), body(b"small"))
    serving = await serve(Store, route_to(upstream.url))
    await serving.get()
    await serving.get()
    await serving.get()
    assert [(b"".join(s.chunks), s.complete) for s in sinks] == [
        (b"abcd", True),
        (b"ab", False),
        (b"small", True),
    ]


class ReadBody(Plugin):
    @hook(needs=Body(request=True, limit=10))
    def transform_request(self, exchange: Any) -> None:
        exchange.request.content = exchange.request.content + b"!"


async def test_a_hook_that_needs_the_request_body_sees_it_whole(
    serve: Any, upstream: Any, route_to: Any
) -> None:
    serving = await serve(ReadBody, route_to(upstream.url))
    async with serving.client() as client:
        await client.post("/", content=b"abc")

        async def pieces() -> Any:
            yield b"ab"
            yield b"cd"

        await client.post("/", content=pieces())
        await client.get("/")
    assert [r.body for r in upstream.requests] == [b"abc!", b"abcd!", b"!"]
    assert upstream.requests[1].values("transfer-encoding") == []


@pytest.mark.parametrize("how", ["length", "chunks", "bomb", "rubbish"])
async def test_a_request_body_over_its_limit_or_not_decodable_is_refused(
    serve: Any, upstream: Any, route_to: Any, how: str
) -> None:
    serving = await serve(ReadBody, route_to(upstream.url))
    start = b"POST / HTTP/1.1\r\nHost: a\r\n"
    if how == "length":
        data = start + b"Content-Length: 11\r\n\r\n" + bytes(11)
    elif how == "chunks":
        data = start + b"Transfer-Encoding: chunked\r\n\r\n" + b"b\r\n%s\r\n" % bytes(11)
    else:
        coded = b"\x1f\x8bxxxxx" if how == "rubbish" else gzip.compress(b"", mtime=0)[:9]
        data = start + b"Content-Encoding: gzip\r\nConnection: close\r\n"
        data += b"Content-Length: %d\r\n\r\n%s" % (len(coded), coded)
    answer = await serving.raw(data)
    expected = (400, "bad_request_body") if how in ("rubbish", "bomb") else (413, "body_too_large")
    assert (answer.status, answer.code) == expected
    assert upstream.requests == []


async def test_a_streamed_upload_over_the_gateways_limit_is_413(
    serve: Any, upstream: Any, route_to: Any
) -> None:
    serving = await serve(
        route_to(upstream.url),
        gateway="limits = { body = 1000 }",
    )
    data = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = await serving.raw(data + b"258\r\n%s\r\n" % bytes(600) * 2)
    assert (answer.status, answer.code) == (413, "body_too_large")
    await upstream.until(lambda: upstream.open == 0)


async def test_an_upload_without_a_key_is_refused_at_its_head(
    serve: Any, upstream: Any, route_to: Any
) -> None:
    class Key(Plugin):
        @hook
        def authenticate(self, exchange: Any) -> None:
            return None

    serving = await serve(Key, route_to(upstream.url), gateway='limits = { body = "200MB" }')
    reader, writer = await serving.connect()
    writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n")
    sent = 0
    answered = asyncio.ensure_future(reader.readuntil(b"\r\n\r\n"))
    while not answered.done() and sent < 100_000_000:
        writer.write(bytes(64 * 1024))
        sent += 64 * 1024
        await asyncio.sleep(0)
    head_bytes = await answered
    assert head_bytes.startswith(b"HTTP/1.1 401 ")
    assert b"connection: close" in head_bytes
    assert sent < 10_000_000
    assert (await serving.last()).bytes_in == 0
    writer.close()
