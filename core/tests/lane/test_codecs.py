"""What a codec may do on the lane: refuse, be passed over, take a body piece by piece."""

from __future__ import annotations

import asyncio
from typing import Any

from mitmproxy import http

from tidegate.api import Body, Exchange, Plugin, Upstream, hook, upstream_from_url
from tidegate.testing import ScriptedUpstream
from tidegate.testing.script import body, chunk, head, json, last_chunk, sleep, sse

from .conftest import Serve


class Plain:
    """A codec that marks what it made."""

    def __init__(self, mark: str = "") -> None:
        self.mark = mark

    def encode(self, exchange: Exchange, request: Any) -> Any:
        request.content = self.mark.encode() + (request.content or b"")
        return request

    def decode(self, exchange: Exchange, response: Any) -> Any:
        response.content = self.mark.encode() + response.content
        return response

    def decode_event(self, exchange: Exchange, event: Any) -> Any:
        event.data += self.mark

    def decode_end(self, exchange: Exchange) -> Any:
        return None


class Refusing(Plain):
    """Can't say any request."""

    def encode(self, exchange: Exchange, request: Any) -> Any:
        return http.Response.make(400, b'{"no": 1}', {"content-type": "application/json"})


class Lines(Plain):
    """Turns lines into server-sent events, in upper case."""

    def decode_head(self, exchange: Exchange, response: http.Response) -> Any:
        if response.headers["content-type"] == "text/lines":
            response.headers["content-type"] = "text/event-stream"
            self.buffer = b""
            return self
        return None

    def feed(self, data: bytes) -> bytes:
        *lines, self.buffer = (self.buffer + data).split(b"\n")
        if b"bad" in lines:
            raise ValueError("a bad line")
        return b"".join(b"data: %b\n\n" % line.upper() for line in lines)

    def end(self) -> bytes:
        return b"data: end\n\n"


class Chain(Upstream):
    """Tries one leaf after the other, also after errors of 400 and up."""

    def __init__(self, *leaves: Upstream) -> None:
        super().__init__("chain", "http", "", 0, judges=True)
        self.leaves = leaves
        self.seen: list[tuple[int, bytes]] = []

    def pick(self, exchange: Exchange, tried: Any) -> Upstream | None:
        return self.leaves[len(tried)] if len(tried) < len(self.leaves) else None

    def rejects(self, exchange: Exchange, attempt: Any, response: http.Response) -> bool:
        self.seen.append((response.status_code, response.content or b""))
        return response.status_code != 404


async def test_a_codec_may_refuse_a_request_in_the_callers_shape(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    running = await serve(upstream_from_url(upstream.url, codec=Refusing()))
    peer = await running.connect()
    for _ in range(2):
        answer = await peer.post(b"x")
        assert (answer.status, answer.body) == (400, b'{"no": 1}')
    assert upstream.connections == 0
    exchange = (await running.ended())[0]
    assert [(a.status, a.error) for a in exchange.attempts] == [(400, "")]


async def test_what_one_codec_refuses_another_may_send(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    upstream.handle(lambda request: body(request.body))
    chain = Chain(
        upstream_from_url("http://127.0.0.1:9", codec=Refusing()),
        upstream_from_url(upstream.url, codec=Plain("b")),
    )
    running = await serve(chain)
    assert (await (await running.connect()).post(b"x")).body == b"bbx"
    assert chain.seen == [(400, b'{"no": 1}')]


async def test_an_error_is_decoded_and_judged_before_another_attempt_starts_from_the_request(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    upstream.answers(json({"error": 1}, 429), json({"error": 2}, 500), body(b"third"))
    leaves = [upstream_from_url(upstream.url, codec=Plain(mark)) for mark in "abc"]
    chain = Chain(*leaves)
    running = await serve(chain)
    assert (await (await running.connect()).post(b"x")).body == b"cthird"
    assert [request.body for request in upstream.requests] == [b"ax", b"bx", b"cx"]
    assert [status for status, _ in chain.seen] == [429, 500]
    assert chain.seen[0][1].startswith(b'a{"error"')
    assert upstream.connections == 1


async def test_the_last_error_is_the_answer_where_nothing_is_left_to_try(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    upstream.answers(json({"error": 1}, 429), json({"error": 2}, 500))
    running = await serve(Chain(*[upstream_from_url(upstream.url) for _ in range(2)]))
    answer = await (await running.connect()).post(b"x")
    assert (answer.status, answer.body) == (500, b'{"error":2}')
    exchange = (await running.ended())[0]
    assert exchange.outcome == "answered"


async def test_an_error_that_is_not_rejected_passes(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    upstream.answers(json({"error": 1}, 404), body(b"never"))
    running = await serve(Chain(*[upstream_from_url(upstream.url) for _ in range(2)]))
    assert (await (await running.connect()).post(b"x")).status == 404
    assert len(upstream.requests) == 1


FIELDS = {"content-type": "text/lines", "transfer-encoding": "chunked"}


async def test_a_body_is_translated_piece_by_piece_as_it_comes(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    go = asyncio.Event()

    async def wait(_: Any) -> None:
        await go.wait()

    upstream.answer(head(200, FIELDS), chunk(b"one\nt"), wait, chunk(b"wo\n"), last_chunk())
    running = await serve(upstream_from_url(upstream.url, codec=Lines()))
    peer = await running.connect()
    await peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
    first = await asyncio.wait_for(peer.reader.readuntil(b"data: ONE\n\n"), 5)
    assert b"content-type: text/event-stream" in first.lower()
    go.set()
    assert b"data: TWO\n\n" in await asyncio.wait_for(peer.reader.readuntil(b"0\r\n\r\n"), 5)


async def test_event_hooks_see_the_events_that_come_out_of_it(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    class Mark(Plugin):
        @hook
        def transform_event(self, exchange: Exchange, event: Any) -> None:
            event.data += "!"

    upstream.answer(head(200, FIELDS), chunk(b"one\n"), last_chunk())
    running = await serve(upstream_from_url(upstream.url, codec=Lines()), Mark)
    answer = await (await running.connect()).post(b"")
    assert answer.body == b"data: ONE!\n\ndata: end!\n\n"


async def test_bytes_that_make_no_sense_cut_the_stream(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    upstream.answer(head(200, FIELDS), chunk(b"one\n"), sleep(0.05), chunk(b"bad\n"), last_chunk())
    running = await serve(upstream_from_url(upstream.url, codec=Lines()))
    peer = await running.connect()
    await peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
    data = await asyncio.wait_for(peer.reader.read(-1), 5)
    assert b"event: error\ndata: " in data
    assert b"upstream_protocol_error" in data
    assert not data.endswith(b"0\r\n\r\n")


async def test_a_stream_that_a_hook_must_see_whole_is_decoded_whole(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    class Redactor(Plugin):
        @hook(needs=Body(response=True))
        def transform_response(self, exchange: Exchange) -> None:
            assert exchange.response is not None
            exchange.response.content = (exchange.response.content or b"") + b": seen\n\n"

    upstream.answer(*sse("one", done=False))
    running = await serve(upstream_from_url(upstream.url, codec=Plain("+")), Redactor)
    answer = await (await running.connect()).post(b"")
    assert answer.body == b"+data: one\n\n: seen\n\n"


class Large(Plain):
    """Bears more than the gateway gathers."""

    limit = 8 * 1024 * 1024


async def test_a_codec_may_bear_more_than_hooks_do(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    small = {"gateway": {"limits": {"gather": 1024}}}
    upstream.handle(lambda request: body(request.body))
    running = await serve(upstream_from_url(upstream.url, codec=Plain()), **small)
    assert (await (await running.connect()).post(b"x" * 5000)).status == 413
    running = await serve(upstream_from_url(upstream.url, codec=Large()), **small)
    assert (await (await running.connect()).post(b"x" * 5000)).body == b"x" * 5000
    upstream.answer(*body(b"y" * 5000))
    running = await serve(upstream_from_url(upstream.url, codec=Plain()), **small)
    answer = await (await running.connect()).post(b"x")
    assert (answer.status, answer.code) == (502, "upstream_body_too_large")
