"""Upstreams, clients and plugins that fail."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from typing import Any

import pytest

from tidegate.api import Body, Plugin, Timeouts, hook
from tidegate.engine.bridge import Bridge
from tidegate.testing.faults import (
    bad_header_plugin,
    block_plugin,
    crash_plugin,
    hang_plugin,
    wrong_type_plugin,
)
from tidegate.testing.script import (
    body,
    chunked,
    close,
    cut_body,
    cut_chunk,
    head,
    reset,
    send,
    silence,
    sleep,
    sse,
)

from .conftest import Answer


async def test_an_upstream_that_refuses_is_502_and_the_next_request_works(
    serve: Any, route_to: Any, upstream: Any
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    serving = await serve(route_to(f"http://127.0.0.1:{port}"))
    async with serving.client() as client:
        answer = await client.get("/")
        assert answer.status_code == 502
        assert answer.json()["error"]["code"] == "upstream_unreachable"
        assert "127.0.0.1" not in answer.text
        assert "server" not in answer.headers
        server = await asyncio.start_server(_ok, "127.0.0.1", port)
        answer = await client.get("/")  # on the same client connection (G9)
        assert answer.status_code == 200
        server.close()
    exchange = (await serving.last(2)) and serving.logged[0]
    assert [a.error for a in exchange.attempts] == ["upstream_unreachable"]
    assert exchange.outcome == "failed"


async def test_without_a_file_descriptor_for_an_upstream_the_answer_is_503(
    serve: Any, route_to: Any, upstream: Any
) -> None:
    serving = await serve(route_to(upstream.url))
    reader, writer = await serving.connect()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with asyncio.timeout(20):
        while not serving.engine._master.handlers:
            await asyncio.sleep(0.01)
    spare = os.open("/dev/null", os.O_RDONLY)  # the lowest that is free
    os.close(spare)
    resource.setrlimit(resource.RLIMIT_NOFILE, (spare, hard))
    try:
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        answer = Answer(await asyncio.wait_for(reader.read(-1), 20))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    writer.close()
    assert (answer.status, answer.code, answer["retry-after"]) == (503, "overloaded", "1")
    assert (await serving.get()).body == b"ok"


async def _ok(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    await writer.drain()
    writer.close()


@pytest.mark.parametrize(
    "script",
    [
        [reset()],
        [close()],
        [send(b"\x00\x01garbage\r\n\r\n")],
        [send(b"HTTP/1.1 two hundred\r\n\r\n")],
        [head(200, {"content-length": "x"})],
        [head(200, [("content-length", "1"), ("content-length", "2")])],
        [send(b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n")],
        cut_body(b"small"),
    ],
    ids=["reset", "close", "garbage", "status", "length", "lengths", "field", "cut"],
)
async def test_an_answer_that_is_not_http_is_502(
    serve: Any, upstream: Any, route_to: Any, script: Any
) -> None:
    upstream.answers(script, body(b"fine"))
    serving = await serve(route_to(upstream.url))
    async with serving.client() as client:
        answer = await client.get("/")
        assert answer.status_code == 502
        assert answer.json()["error"]["code"] == "upstream_protocol_error"
        assert (await client.get("/")).text == "fine"
    assert (await serving.last(2)).outcome == "answered"
    assert serving.logged[0].outcome == "failed"


@pytest.mark.parametrize("script", [cut_body(bytes(100_000)), cut_chunk(b"abc")])
async def test_a_body_cut_after_its_head_is_cut_for_the_client(
    serve: Any, upstream: Any, route_to: Any, script: Any
) -> None:
    upstream.answer(*script)
    serving = await serve(route_to(upstream.url))
    answer = await serving.get()
    assert answer.status == 200
    assert not answer.raw.endswith(b"0\r\n\r\n")
    exchange = await serving.last()
    assert (exchange.outcome, exchange.denial.code) == ("failed", "upstream_protocol_error")


async def test_a_silent_upstream_is_504(serve: Any, upstream: Any, route_to: Any) -> None:
    upstream.answers([silence()], body(b"fine"))
    serving = await serve(route_to(upstream.url, timeouts=Timeouts(first_byte=0.3)))
    async with serving.client() as client:
        answer = await client.get("/")
        assert answer.status_code == 504
        assert answer.json()["error"]["code"] == "upstream_timeout"
        assert (await client.get("/")).text == "fine"
    await upstream.until(lambda: upstream.open == 1)


async def test_a_stream_that_falls_silent_is_cut(serve: Any, upstream: Any, route_to: Any) -> None:
    upstream.answer(*sse("1", done=False)[:-1], silence())
    serving = await serve(route_to(upstream.url, timeouts=Timeouts(idle=0.3)))
    answer = await serving.get()
    assert answer.status == 200
    assert b"upstream_timeout" in answer.body


async def test_a_total_timeout_ends_a_stream_that_never_falls_silent(
    serve: Any, upstream: Any, route_to: Any
) -> None:
    upstream.answer(*sse(*map(str, range(1000)), pause=0.05))
    serving = await serve(route_to(upstream.url, timeouts=Timeouts(total=0.5)))
    assert b"upstream_timeout" in (await serving.get()).body


async def test_a_connect_that_is_never_answered_is_504(serve: Any, route_to: Any) -> None:
    full = socket.create_server(("127.0.0.1", 0), backlog=0)
    address = full.getsockname()
    fillers = []
    for _ in range(3):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(address)
        fillers.append(filler)
    await asyncio.sleep(0.05)
    target = f"http://127.0.0.1:{address[1]}"
    serving = await serve(route_to(target, timeouts=Timeouts(connect=0.3)))
    answer = await serving.get()
    assert (answer.status, answer.code) == (504, "upstream_timeout")
    for sock in (full, *fillers):
        sock.close()


async def test_an_idle_connection_closed_as_it_is_reused_is_tried_once_more(
    serve: Any, upstream: Any, route_to: Any
) -> None:
    seen: list[int] = []

    def script(request: Any) -> Any:
        seen.append(request.connection)
        return [close()] if len(seen) == 2 else body(b"ok")

    upstream.handle(script)
    serving = await serve(route_to(upstream.url))
    async with serving.client() as client:
        assert (await client.get("/")).text == "ok"
        assert (await client.get("/")).text == "ok"
    assert seen == [1, 1, 2]
    exchange = await serving.last(2)
    assert [(a.reused, a.error) for a in exchange.attempts] == [
        (True, "upstream_unreachable"),
        (False, ""),
    ]


async def test_a_post_is_not_sent_twice(serve: Any, upstream: Any, route_to: Any) -> None:
    upstream.answers(body(b"ok"), [close()], body(b"ok"))
    serving = await serve(route_to(upstream.url))
    async with serving.client() as client:
        await client.get("/")
        assert (await client.post("/", content=b"x")).status_code == 502
    assert len(upstream.requests) == 2


@pytest.mark.parametrize("method", ["PUT", "POST"])
async def test_a_connection_that_was_closed_unheard_is_not_used_again(
    serve: Any, route_to: Any, method: str
) -> None:
    """What streams can't be sent twice, so that it must not go where nobody reads."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> socket.socket:
            sock, _ = listening.accept()
            sock.recv(4096)
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            return sock

        serving = await serve(route_to(f"http://127.0.0.1:{listening.getsockname()[1]}"))
        with socket.create_connection(("127.0.0.1", serving.port)) as client:
            client.settimeout(20)
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            first = await asyncio.to_thread(answer)
            assert (await asyncio.to_thread(client.recv, 4096)).endswith(b"ok")
            client.sendall(
                b"%b / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx" % method.encode()
            )
            first.close()  # the gateway's loop sees both at once, the request first
            second = asyncio.create_task(asyncio.to_thread(answer))
            got = await asyncio.to_thread(client.recv, 4096)
            if not got.startswith(b"HTTP/1.1 200"):  # then nobody came
                socket.create_connection(listening.getsockname()).close()
            (await second).close()
        assert got.startswith(b"HTTP/1.1 200")


async def test_a_client_that_leaves_closes_the_upstream(
    serve: Any, upstream: Any, route_to: Any
) -> None:
    upstream.answers([silence()], [*sse("1", done=False)[:-1], silence()])
    serving = await serve(route_to(upstream.url))
    for number in (1, 2):
        reader, writer = await serving.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await upstream.until(lambda n=number: len(upstream.requests) == n)
        if number == 2:
            await reader.readuntil(b"data: 1")
        writer.close()
        await upstream.until(lambda: upstream.open == 0)
        assert (await serving.last(number)).outcome == "client_cancelled"
    assert serving.engine.active == 0


async def test_a_client_that_leaves_ends_the_hook_that_waits_for_it(
    serve: Any, upstream: Any, route_to: Any
) -> None:
    entered, left = asyncio.Event(), asyncio.Event()

    class Wait(Plugin):
        @hook
        async def authorize(self, exchange: Any) -> None:
            entered.set()
            try:
                await asyncio.sleep(3600)
            finally:
                left.set()

    serving = await serve(Wait, route_to(upstream.url))
    _, writer = await serving.connect()
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await entered.wait()
    writer.close()
    await asyncio.wait_for(left.wait(), 10)
    assert (await serving.last()).outcome == "client_cancelled"
    assert upstream.connections == 0
    assert serving.engine.active == 0


GATES = ["authenticate", "authorize", "route"]
TRANSFORMS = ["transform_request", "transform_response"]


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("name", [*GATES, *TRANSFORMS])
@pytest.mark.parametrize("error", [RuntimeError, SystemExit, asyncio.CancelledError])
async def test_a_hook_that_raises_denies(
    serve: Any, upstream: Any, route_to: Any, name: str, error: Any, is_async: bool
) -> None:
    serving = await serve(crash_plugin(name, error, is_async=is_async), route_to(upstream.url))
    expected = 503 if name in GATES else 502
    for _ in range(2):
        answer = await serving.get()
        assert answer.status == expected
        assert answer.code in ("plugin_failed", "plugin_timeout")
    assert len(upstream.requests) == (2 if name == "transform_response" else 0)
    exchange = await serving.last(2)
    assert (exchange.outcome, exchange.failed_addon) == ("failed", "p0")


@pytest.mark.parametrize("name", [*GATES, *TRANSFORMS])
async def test_a_hook_that_hangs_ends_with_the_deadline(
    serve: Any, upstream: Any, route_to: Any, name: str
) -> None:
    serving = await serve(
        hang_plugin(name), route_to(upstream.url), gateway='deadlines = { hooks = "200ms" }'
    )
    answer = await serving.get()
    assert (answer.status, answer.code) == (503 if name in GATES else 502, "plugin_timeout")


@pytest.mark.parametrize("name", ["authorize", "transform_response"])
async def test_a_hook_that_blocks_is_interrupted(
    serve: Any, upstream: Any, route_to: Any, name: str
) -> None:
    serving = await serve(block_plugin(name), route_to(upstream.url), guarded=True)
    answer = await serving.get()
    assert (answer.status, answer.code) == (503 if name in GATES else 502, "plugin_timeout")


@pytest.mark.parametrize("name", [*GATES, *TRANSFORMS])
async def test_a_hook_that_returns_a_wrong_type_is_500(
    serve: Any, upstream: Any, route_to: Any, name: str
) -> None:
    serving = await serve(wrong_type_plugin(name), route_to(upstream.url))
    answer = await serving.get()
    assert (answer.status, answer.code) == (500, "plugin_invalid_output")


@pytest.mark.parametrize("name", TRANSFORMS)
async def test_a_line_end_in_a_field_is_500(
    serve: Any, upstream: Any, route_to: Any, name: Any
) -> None:
    serving = await serve(bad_header_plugin(name), route_to(upstream.url))
    answer = await serving.get()
    assert (answer.status, answer.code) == (500, "plugin_invalid_output")
    assert b"evil" not in answer.raw


@pytest.mark.parametrize("name", ["cache_lookup", "cache_store", "log"])
async def test_an_observer_that_fails_costs_nobody_an_answer(
    serve: Any, upstream: Any, route_to: Any, name: str
) -> None:
    serving = await serve(crash_plugin(name, SystemExit), route_to(upstream.url))
    assert (await serving.get()).body == b"ok"


@pytest.mark.parametrize("streams", [False, True])
async def test_a_failing_response_transform_of_a_stream_is_an_error_answer(
    serve: Any, upstream: Any, route_to: Any, streams: bool
) -> None:
    upstream.answer(*(chunked(b"x", b"y") if streams else body(b"x")))
    serving = await serve(crash_plugin("transform_response"), route_to(upstream.url))
    answer = await serving.get()
    assert (answer.status, answer.code) == (502, "plugin_failed")


@pytest.mark.parametrize("phase", ["_open", "answer_here", "drive"])
async def test_a_crash_in_the_bridge_denies(
    serve: Any, upstream: Any, route_to: Any, monkeypatch: Any, phase: str
) -> None:
    class Gather(Plugin):
        @hook(needs=Body(request=True))
        def transform_request(self, exchange: Any) -> Any:
            from tidegate.api import Denial

            return Denial(400, "no", "no")

    def broken(*_: Any, **__: Any) -> Any:
        raise SystemExit("a bug")

    serving = await serve(Gather, route_to(upstream.url))
    with monkeypatch.context() as patch:
        patch.setattr(Bridge, phase, broken)
        answer = await serving.get()
    assert (answer.status, answer.code) == (500, "internal_error")
    assert upstream.requests == []
    assert (await serving.get()).status == 400
    assert serving.engine.active == 0


async def test_a_crash_in_a_layer_answers_500_and_closes(
    serve: Any, upstream: Any, route_to: Any, monkeypatch: Any
) -> None:
    from tidegate.engine.http1 import Client

    def broken(*_: Any) -> Any:
        raise NotImplementedError("a bug")

    serving = await serve(route_to(upstream.url))
    with monkeypatch.context() as patch:
        patch.setattr(Client, "read_headers", broken)
        answer = await serving.get()
    assert (answer.status, answer.code) == (500, "internal_error")
    assert (await serving.last()).outcome == "failed"
    assert (await serving.get()).status == 200


@pytest.mark.parametrize(
    ("request_head", "status", "code"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400, "bad_request_target"),
        (b"GET http://evil.test/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_request_target"),
        (b"GET /../x HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_request_target"),
        (b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 400, "upgrade_not_allowed"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n", 400, "bad_request_framing"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n", 400, "bad_request_framing"),
        (b"nonsense\r\n\r\n", 400, "bad_request_framing"),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            "bad_request_framing",
        ),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            400,
            "bad_request_framing",
        ),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            400,
            "bad_request_framing",
        ),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + bytes(40000), 431, "headers_too_large"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"x: y\r\n" * 101 + b"\r\n", 431, "headers_too_large"),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414, "uri_too_long"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_bad_request_head_is_refused(
    serve: Any, upstream: Any, route_to: Any, request_head: bytes, status: int, code: str
) -> None:
    serving = await serve(route_to(upstream.url))
    answer = await serving.raw(request_head)
    assert (answer.status, answer.code) == (status, code)
    assert "x-request-id" in answer
    assert b"mitmproxy" not in answer.raw
    assert all(request.target == "/" for request in upstream.requests)


async def test_deadlines_of_heads_bodies_and_idle_connections(
    serve: Any, upstream: Any, route_to: Any
) -> None:
    serving = await serve(
        route_to(upstream.url),
        gateway='deadlines = { head = "500ms", body = "500ms", keepalive = "500ms" }',
    )
    answer = await serving.raw(b"GET / HTTP/1.1\r\nHo")
    assert (answer.status, answer.code) == (408, "request_timeout")
    answer = await serving.raw(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab")
    assert (answer.status, answer.code) == (408, "request_timeout")
    assert (await serving.raw(b"")).raw == b""
    answer = await serving.raw(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert answer.status == 200  # and then the idle connection was closed


async def test_a_slow_exchange_outlives_the_keepalive_deadline(
    serve: Any, upstream: Any, route_to: Any
) -> None:
    upstream.answer(sleep(1.0), *body(b"late"))
    serving = await serve(route_to(upstream.url), gateway='deadlines = { keepalive = "300ms" }')
    assert (await serving.get()).body == b"late"
