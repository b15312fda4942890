"""An answer with a prepared head is, on the wire and for hooks, what a usual one would be."""

from __future__ import annotations

from typing import Any

import pytest
from mitmproxy import http

from tidegate.api import (
    AddonConfig,
    Body,
    Denial,
    Event,
    EventResult,
    Exchange,
    Plugin,
    SseEvent,
    hook,
    upstream_from_url,
)
from tidegate.api.messages import PreparedHead, PreparedResponse, make_response
from tidegate.testing import ScriptedUpstream, Use
from tidegate.testing.script import body

from .conftest import Answer, Serve

FIELDS = (
    (b"Content-Type", b"text/plain"),
    (b"X-Request-Id", b"the origin's"),
    (b"Keep-Alive", b"timeout=5"),
    (b"ETag", b'"a"'),
)


class Cached(Plugin):
    """Answers everything: with a prepared head, or in the usual way where the query says so."""

    class Config(AddonConfig):
        status: int = 200
        size: int = 5
        field: str = ""

    def __init__(self, config: Any, context: Any) -> None:
        super().__init__(config, context)
        fields = (*FIELDS, (b"x-own", config.field.encode()))
        self.head = PreparedHead(config.status, b"", fields)

    @hook
    def cache_lookup(self, exchange: Exchange) -> http.Response | None:
        content, now = b"x" * self.config.size, exchange.now
        if exchange.request.query.get("usual"):
            fields = (*self.head.fields, (b"age", b"7"), (b"cache-status", b"tidegate; hit; ttl=9"))
            return make_response(self.head.status, b"", fields, content, now)
        return PreparedResponse(self.head, content, 7, 9, now)


class Mark(Plugin):
    """A response transform: it looks at the answer, and changes it."""

    @hook
    def transform_response(self, exchange: Exchange) -> None:
        assert exchange.response is not None
        exchange.response.headers["x-mark"] = exchange.response.headers["age"]
        exchange.response.content = b"marked"


def plain(answer: Answer) -> tuple[Any, ...]:
    fields = [(n, v) for n, v in answer.headers if n != "x-request-id"]
    return answer.status, sorted(fields), answer.body


@pytest.mark.parametrize("status", [200, 204, 304, 404])
@pytest.mark.parametrize("size", [0, 5, 70_000])
async def test_it_is_sent_like_a_usual_answer(serve: Serve, status: int, size: int) -> None:
    running = await serve(None, Use(Cached, {"status": status, "size": size}))
    peer = await running.connect()
    usual = await peer.get("/a?usual=1")
    for _ in range(2):
        prepared = await peer.get("/a")
        assert plain(prepared) == plain(usual)
        assert prepared.get("keep-alive") is None
        assert prepared["x-request-id"] != "the origin's"
    ended = await running.ended(3)
    assert len({exchange.bytes_out for exchange in ended}) == 1


async def test_head_has_no_body(serve: Serve) -> None:
    peer = await (await serve(None, Cached)).connect()
    await peer.get("/a")
    await peer.send(b"HEAD /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    answer = await peer.answer("HEAD")
    assert answer["content-length"] == "5"
    assert answer["connection"] == "close"
    assert await peer.closed() == b""


async def test_transforms_see_it_and_may_change_it(serve: Serve) -> None:
    peer = await (await serve(None, Mark, Cached)).connect()
    for _ in range(2):
        answer = await peer.get("/a")
        assert answer["x-mark"] == "7"
        assert answer["cache-status"] == "tidegate; hit; ttl=9"
        assert answer.body == b"marked"


async def test_log_hooks_see_it(serve: Serve) -> None:
    running = await serve(None, Cached)
    await (await running.connect()).get("/a")
    (exchange,) = await running.ended()
    assert exchange.status == 200
    assert exchange.from_cache
    assert exchange.response is not None
    assert exchange.response.headers["age"] == "7"
    assert exchange.response.copy().content == b"xxxxx"


async def test_one_with_a_field_that_can_not_be_sent_is_a_miss(serve: Serve) -> None:
    peer = await (await serve(None, Use(Cached, {"field": "a\r\nb: c"}))).connect()
    for _ in range(2):
        answer = await peer.get("/a")
        assert answer.status == 404  # there is no route
        assert answer.get("b") is None


STREAM = b": hello\n\ndata: secret one\n\nevent: x\ndata: two\n\n"


class Kept(Plugin):
    """A cache that has a stream."""

    @hook
    def cache_lookup(self, exchange: Exchange) -> http.Response:
        fields = ((b"content-type", b"text/event-stream"),)
        return make_response(200, b"", fields, STREAM, exchange.now)


class Redact(Plugin):
    """An event transform."""

    @hook
    def transform_event(self, exchange: Exchange, event: Event) -> EventResult:
        assert isinstance(event, SseEvent)
        if event.data == "two" and exchange.path == "/stop":
            return Denial(403, "stopped", "No.")
        event.data = event.data.replace("secret", "***")
        return None


class Whole(Plugin):
    """Needs bodies whole, and so has streams gathered."""

    @hook(needs=Body(response=True))
    def transform_response(self, exchange: Exchange) -> None:
        assert exchange.response is not None
        exchange.response.headers["x-whole"] = "1"


async def test_event_hooks_see_a_stream_that_comes_from_a_cache(serve: Serve) -> None:
    peer = await (await serve(None, Redact, Kept)).connect()
    answer = await peer.get("/a")
    assert answer.body == STREAM.replace(b"secret", b"***")
    assert (await peer.get("/stop")).status == 403


async def test_event_hooks_see_a_stream_that_was_gathered(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    upstream.answer(*body(STREAM, headers={"content-type": "text/event-stream"}))
    peer = await (await serve(upstream_from_url(upstream.url), Redact, Whole)).connect()
    answer = await peer.get("/a")
    assert answer["x-whole"] == "1"
    assert answer.body == STREAM.replace(b"secret", b"***")
