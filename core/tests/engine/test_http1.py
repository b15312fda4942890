"""Plain exchanges over HTTP/1.1."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from mitmproxy import http

from tidegate.api import Denial, Plugin, hook
from tidegate.testing.script import (
    body,
    chunked,
    close,
    early_hints,
    head,
    send,
    sleep,
    switch_protocols,
)


async def test_a_get_passes(serve: Any, upstream: Any, route_to: Any) -> None:
    upstream.answer(*body(b"hello", headers={"x-up": "1", "keep-alive": "timeout=5"}))
    serving = await serve(route_to(upstream.url))
    answer = await serving.get("/a%7Eb?q=1", "X-Forwarded-For: 6.6.6.6", "Te: trailers")
    assert (answer.status, answer.body, answer["x-up"]) == (200, b"hello", "1")
    assert "keep-alive" not in answer
    assert "server" not in answer
    received = upstream.requests[0]
    assert received.target == "/a~b?q=1"
    assert received.values("host") == [f"127.0.0.1:{upstream.port}"]
    assert received.values("x-forwarded-for") == ["127.0.0.1"]
    assert received.values("te") == []
    exchange = await serving.last()
    assert exchange.outcome == "answered"
    assert answer["x-request-id"] == exchange.id
    assert exchange.bytes_out == 5
    attempt = exchange.attempts[0]
    assert (attempt.status, attempt.error) == (200, "")
    assert (attempt.bytes_sent, attempt.bytes_received) == (0, 5)
    assert attempt.started <= attempt.connected <= attempt.first_byte <= attempt.ended


async def test_bodies_pass_with_a_length_and_in_chunks(
    serve: Any, upstream: Any, route_to: Any
) -> None:
    upstream.handle(lambda request: body(request.body[::-1]))
    serving = await serve(route_to(upstream.url))
    async with serving.client() as client:
        assert (await client.post("/", content=b"abc")).content == b"cba"

        async def pieces() -> Any:
            yield b"ab"
            await asyncio.sleep(0.01)
            yield b"cd"

        assert (await client.post("/", content=pieces())).content == b"dcba"
        assert (await client.post("/", content=b"")).content == b""
    assert upstream.requests[0].values("content-length") == ["3"]
    assert upstream.requests[1].values("transfer-encoding") == ["chunked"]
    assert upstream.requests[2].values("content-length") == ["0"]
    assert (await serving.last(3)).bytes_in == 0


async def test_connections_are_kept_alive_on_both_sides(
    serve: Any, upstream: Any, route_to: Any
) -> None:
    serving = await serve(route_to(upstream.url))
    async with serving.client() as client:
        for _ in range(3):
            assert (await client.get("/")).text == "ok"
    assert upstream.connections == 1
    assert (await serving.last(3)).attempts[0].reused


async def test_pipelined_requests_are_answered_in_order(
    serve: Any, upstream: Any, route_to: Any
) -> None:
    upstream.handle(lambda request: body(request.target.encode()))
    serving = await serve(route_to(upstream.url))
    one = b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n"
    two = b"GET /2 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    answer = await serving.raw(one + two)
    assert answer.raw.index(b"/1") < answer.raw.index(b"/2")
    assert answer.raw.count(b"HTTP/1.1 200") == 2


async def test_head_204_and_304_have_no_body(serve: Any, upstream: Any, route_to: Any) -> None:
    serving = await serve(route_to(upstream.url))
    upstream.answers(
        [head(200, {"content-length": "5"})],
        [head(204)],
        [head(304, {"etag": '"x"'})],
        body(b"whole"),
    )
    async with serving.client() as client:
        answer = await client.head("/")
        assert (answer.status_code, answer.headers["content-length"]) == (200, "5")
        answer = await client.get("/")
        assert (answer.status_code, answer.content) == (204, b"")
        assert "content-length" not in answer.headers
        answer = await client.get("/")
        assert (answer.status_code, answer.headers["etag"]) == (304, '"x"')
        assert (await client.get("/")).text == "whole"


async def test_100_continue_is_said_only_when_the_body_is_wanted(
    serve: Any, upstream: Any, route_to: Any
) -> None:
    serving = await serve(route_to(upstream.url))
    reader, writer = await serving.connect()
    writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
    writer.write(b"hi")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    writer.close()
    assert upstream.requests[0].body == b"hi"
    assert upstream.requests[0].values("expect") == []


async def test_interim_answers_are_not_the_final_one(
    serve: Any, upstream: Any, route_to: Any
) -> None:
    upstream.answer(early_hints(), head(100), *body(b"final"))
    serving = await serve(route_to(upstream.url))
    answer = await serving.get()
    assert (answer.status, answer.body) == (200, b"final")


async def test_a_101_that_nobody_asked_for_is_an_error(
    serve: Any, upstream: Any, route_to: Any
) -> None:
    upstream.answer(switch_protocols())
    serving = await serve(route_to(upstream.url))
    answer = await serving.get()
    assert (answer.status, answer.code) == (502, "unexpected_upgrade")
    await upstream.until(lambda: upstream.open == 0)


async def test_an_upgrade_is_refused_where_the_upstream_does_not_speak_websocket(
    serve: Any, upstream: Any, route_to: Any
) -> None:
    serving = await serve(route_to(upstream.url))
    for protocol in ("websocket", "foo", "h2c"):
        answer = await serving.get("/", f"Upgrade: {protocol}")
        assert (answer.status, answer.code) == (400, "upgrade_not_allowed")
    assert upstream.requests == []


async def test_trailers_of_an_answer_pass(serve: Any, upstream: Any, route_to: Any) -> None:
    upstream.answer(*chunked(b"data", trailers={"x-sum": "42"}))
    serving = await serve(route_to(upstream.url))
    answer = await serving.get()
    assert answer.status == 200
    assert answer.raw.endswith(b"4\r\ndata\r\n0\r\nx-sum: 42\r\n\r\n")


async def test_trailers_of_a_request_are_dropped(serve: Any, upstream: Any, route_to: Any) -> None:
    serving = await serve(route_to(upstream.url))
    answer = await serving.raw(
        b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"2\r\nhi\r\n0\r\nX-Admin: yes\r\n\r\n"
    )
    assert answer.status == 200
    assert (upstream.requests[0].body, upstream.requests[0].trailers) == (b"hi", ())


async def test_http_1_0_gets_a_body_that_ends_with_the_connection(
    serve: Any, upstream: Any, route_to: Any
) -> None:
    upstream.answer(*chunked(b"one", b"two"))
    serving = await serve(route_to(upstream.url))
    answer = await serving.raw(b"GET / HTTP/1.0\r\n\r\n")
    assert (answer.status, answer.body) == (200, b"onetwo")
    assert "transfer-encoding" not in answer


async def test_an_answer_that_ends_with_the_connection_arrives_whole(
    serve: Any, upstream: Any, route_to: Any
) -> None:
    upstream.answer(head(200), send(b"until "), sleep(0.05), send(b"the end"), close())
    serving = await serve(route_to(upstream.url))
    async with serving.client() as client:
        assert (await client.get("/")).text == "until the end"


async def test_a_local_answer_meets_the_outer_transforms(
    serve: Any, upstream: Any, route_to: Any
) -> None:
    class Outer(Plugin):
        @hook
        def transform_response(self, exchange: Any) -> None:
            exchange.response.headers["x-outer"] = "yes"

    class Local(Plugin):
        @hook
        def transform_request(self, exchange: Any) -> http.Response:
            return http.Response.make(200, b"here", {"x-local": "1"})

    class Inner(Plugin):
        @hook
        def transform_response(self, exchange: Any) -> None:
            exchange.response.headers["x-inner"] = "no"

    serving = await serve(Outer, Local, Inner, route_to(upstream.url))
    answer = await serving.get()
    assert (answer.status, answer.body, answer["x-outer"]) == (200, b"here", "yes")
    assert "x-inner" not in answer
    answer = await serving.get(method="HEAD")
    assert (answer.body, answer["content-length"]) == (b"", "4")
    assert upstream.requests == []


async def test_transforms_change_what_goes_up_and_what_comes_down(
    serve: Any, upstream: Any, route_to: Any
) -> None:
    class Change(Plugin):
        @hook
        def transform_request(self, exchange: Any) -> None:
            exchange.request.headers["x-team"] = "blue"
            exchange.request.path = "/other"

        @hook
        def transform_response(self, exchange: Any) -> None:
            exchange.response.status_code = 418
            exchange.response.headers.pop("content-type", None)

    serving = await serve(Change, route_to(upstream.url))
    answer = await serving.get()
    assert answer.status == 418
    assert "content-type" not in answer
    assert upstream.requests[0].target == "/other"
    assert upstream.requests[0].values("x-team") == ["blue"]


async def test_denials_carry_the_envelope(serve: Any, upstream: Any, route_to: Any) -> None:
    class No(Plugin):
        @hook
        def authorize(self, exchange: Any) -> Denial:
            return Denial(429, "too_many", "Slow down.", retry_after=2.2)

    serving = await serve(No, route_to(upstream.url))
    answer = await serving.get()
    assert (answer.status, answer.code, answer["retry-after"]) == (429, "too_many", "3")
    exchange = await serving.last()
    assert exchange.outcome == "denied"
    assert exchange.id == answer["x-request-id"]
    assert upstream.connections == 0


@pytest.mark.parametrize(
    ("line", "fields", "said"),
    [
        ("GET / HTTP/1.1", "", None),
        ("GET / HTTP/1.1", "Connection: keep-alive\r\n", None),
        ("GET / HTTP/1.1", "Connection: close\r\n", "close"),
        ("GET / HTTP/1.1", "Connection: TE, Close\r\nTE: trailers\r\n", "close"),
        ("GET / HTTP/1.0", "", "close"),
        ("GET / HTTP/1.0", "Connection: Keep-Alive\r\n", "keep-alive"),
    ],
)
@pytest.mark.parametrize("script", [body(b"whole"), chunked(b"in ", b"pieces")])
async def test_an_answer_says_what_becomes_of_its_connection(
    serve: Any, upstream: Any, route_to: Any, line: str, fields: str, said: str | None, script: Any
) -> None:
    upstream.answer(*script)
    serving = await serve(route_to(upstream.url), gateway='deadlines = { keepalive = "500ms" }')
    answer = await serving.raw(f"{line}\r\nHost: a\r\n{fields}\r\n".encode())
    if line.endswith("1.0") and "content-length" not in answer:
        said = "close"  # which is how the body ends
    assert dict(answer.fields).get("connection") == said


async def test_a_small_body_that_comes_slowly_passes_as_it_comes(
    serve: Any, upstream: Any, route_to: Any
) -> None:
    gate = asyncio.Event()

    async def wait(_: Any) -> None:
        await gate.wait()

    upstream.answer(head(200, {"content-length": "6"}), send(b"abc"), wait, send(b"def"))
    serving = await serve(route_to(upstream.url))
    reader, writer = await serving.connect()
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    async with asyncio.timeout(20):
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(3) == b"abc"
        gate.set()
        assert await reader.readexactly(3) == b"def"
    writer.close()
    exchange = await serving.last()
    assert (exchange.bytes_out, exchange.attempts[0].bytes_received) == (6, 6)
    assert exchange.outcome == "answered"
