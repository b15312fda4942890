"""Plain HTTP/1.1 through the lane: framing of both bodies, keep-alive, pipelining, errors."""

from __future__ import annotations

import asyncio

import pytest

from tidegate.api import upstream_from_url
from tidegate.testing import ScriptedUpstream
from tidegate.testing.script import (
    body,
    chunked,
    close,
    cut_body,
    cut_chunk,
    early_hints,
    head,
    json,
    reset,
    send,
    sleep,
    switch_protocols,
)

from .conftest import Serve

CHUNKED_POST = (
    b"POST /up HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
)


async def test_an_answer_passes_whole_and_the_connection_stays(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    upstream.answer(*json({"a": 1}, headers={"x-own": "1"}))
    running = await serve(upstream_from_url(upstream.url))
    peer = await running.connect()
    for _ in range(3):
        answer = await peer.get("/v1?q=1")
        assert answer.status == 200
        assert answer.body == b'{"a":1}'
        assert answer["x-own"] == "1"
        assert answer["content-length"] == "7"
        assert answer.get("connection") is None
    assert upstream.connections == 1
    first = upstream.requests[0]
    assert first.target == "/v1?q=1"
    assert first.values("host") == [f"127.0.0.1:{upstream.port}"]
    assert first.values("x-request-id") == [(await running.ended(3))[0].id]


async def test_a_body_with_a_length_passes(serve: Serve, upstream: ScriptedUpstream) -> None:
    running = await serve(upstream_from_url(upstream.url))
    peer = await running.connect()
    answer = await peer.post(b"x" * 1000)
    assert answer.status == 200
    assert upstream.requests[0].body == b"x" * 1000
    assert upstream.requests[0].values("content-length") == ["1000"]


async def test_a_chunked_body_that_has_come_whole_passes(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    running = await serve(upstream_from_url(upstream.url))
    peer = await running.connect()
    await peer.send(CHUNKED_POST)
    assert (await peer.answer()).status == 200
    assert upstream.requests[0].body == b"hello world"


async def test_a_large_body_streams_both_ways(serve: Serve, upstream: ScriptedUpstream) -> None:
    data = bytes(range(256)) * 16384
    upstream.handle(lambda request: chunked(request.body))
    running = await serve(upstream_from_url(upstream.url))
    peer = await running.connect()
    await peer.send(b"POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    sender = asyncio.ensure_future(
        peer.send(
            b"".join(
                b"%x\r\n%b\r\n" % (65536, data[i : i + 65536]) for i in range(0, len(data), 65536)
            )
            + b"0\r\nx-sum: 7\r\n\r\n"
        )
    )
    answer = await peer.answer()
    await sender
    assert answer.body == data
    assert upstream.requests[0].values("transfer-encoding") == ["chunked"]
    assert upstream.requests[0].trailers == (("x-sum", "7"),)
    exchange = (await running.ended())[0]
    assert exchange.bytes_in == len(data)
    assert exchange.bytes_out == len(data)


async def test_trailers_of_an_answer_pass(serve: Serve, upstream: ScriptedUpstream) -> None:
    upstream.answer(*chunked(b"abc", trailers={"x-sum": "7", "set-cookie": "a=b"}))
    running = await serve(upstream_from_url(upstream.url))
    answer = await (await running.connect()).get()
    assert answer.body == b"abc"
    assert answer.trailers == [("x-sum", "7")]


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_without_a_body_by_its_status_has_none(
    serve: Serve, upstream: ScriptedUpstream, status: int
) -> None:
    upstream.answer(head(status, {"etag": '"1"'}))
    running = await serve(upstream_from_url(upstream.url))
    peer = await running.connect()
    for _ in range(2):
        answer = await peer.get()
        assert (answer.status, answer.body) == (status, b"")
        assert answer.get("content-length") is None
    assert upstream.connections == 1


async def test_head_is_told_the_length_and_gets_no_body(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    upstream.answer(head(200, {"content-length": "1234"}))
    running = await serve(upstream_from_url(upstream.url))
    peer = await running.connect()
    for _ in range(2):
        await peer.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = await peer.answer("HEAD")
        assert answer["content-length"] == "1234"
    upstream.answer(*body(b"later"))
    assert (await peer.get()).body == b"later"
    assert upstream.connections == 1


async def test_pipelined_requests_are_answered_in_order(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    upstream.handle(lambda request: body(request.target.encode() + request.body))
    running = await serve(upstream_from_url(upstream.url))
    peer = await running.connect()
    gets = b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % i for i in range(2000))
    await peer.send(CHUNKED_POST + gets)
    assert (await peer.answer()).body == b"/uphello world"
    for i in range(2000):
        assert (await peer.answer()).body == b"/%d" % i


async def test_bytes_that_trickle_in_make_the_same_request(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    upstream.handle(lambda request: body(request.body))
    running = await serve(upstream_from_url(upstream.url))
    peer = await running.connect()
    for i in range(len(CHUNKED_POST)):
        await peer.send(CHUNKED_POST[i : i + 1])
        await asyncio.sleep(0)
    assert (await peer.answer()).body == b"hello world"


async def test_http10_gets_a_body_that_ends_with_the_connection(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    upstream.answer(
        head(200, {"transfer-encoding": "chunked"}),
        send(b"3\r\nabc\r\n"),
        sleep(0.05),
        send(b"3\r\ndef\r\n0\r\n\r\n"),
    )
    running = await serve(upstream_from_url(upstream.url))
    peer = await running.connect()
    await peer.send(b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n")
    answer = await peer.answer()
    assert answer.get("transfer-encoding") is None
    assert answer.body == b"abcdef"


async def test_http10_keeps_the_connection_where_asked(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    running = await serve(upstream_from_url(upstream.url))
    peer = await running.connect()
    for _ in range(2):
        await peer.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        answer = await peer.answer()
        assert answer["connection"] == "keep-alive"
        assert answer.body == b"ok"
    await peer.send(b"GET / HTTP/1.0\r\n\r\n")
    assert (await peer.answer())["connection"] == "close"
    assert await peer.closed() == b""


async def test_connection_close_is_honoured(serve: Serve, upstream: ScriptedUpstream) -> None:
    running = await serve(upstream_from_url(upstream.url))
    peer = await running.connect()
    answer = await peer.get(connection="close")
    assert answer["connection"] == "close"
    assert await peer.closed() == b""


async def test_a_body_is_asked_for_only_when_it_is_wanted(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    running = await serve(upstream_from_url(upstream.url))
    peer = await running.connect()
    await peer.send(
        b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    )
    assert (await peer.head()).status == 100
    await peer.send(b"hello")
    assert (await peer.answer()).status == 200
    assert upstream.requests[0].body == b"hello"
    assert upstream.requests[0].values("expect") == []


async def test_an_upload_that_is_not_wanted_is_refused_at_its_head(serve: Serve) -> None:
    running = await serve(None)
    peer = await running.connect()
    await peer.send(
        b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    )
    answer = await peer.answer()
    assert (answer.status, answer.code) == (404, "no_route")
    assert answer["connection"] == "close"
    assert await peer.closed() == b""


async def test_interim_answers_pass_and_the_final_one_is_awaited(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    upstream.answer(send(b"HTTP/1.1 100 Continue\r\n\r\n"), early_hints(), *body(b"final"))
    running = await serve(upstream_from_url(upstream.url))
    peer = await running.connect()
    await peer.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (await peer.head()).status == 103
    assert (await peer.answer()).body == b"final"
    await peer.send(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n")
    assert (await peer.answer()).status == 200


@pytest.mark.parametrize(
    ("script", "status", "code"),
    [
        ((switch_protocols(),), 502, "unexpected_upgrade"),
        ((send(b"HTTP/1.1 101 Switch\r\n\r\n"),), 502, "unexpected_upgrade"),
        ((send(b"rubbish\r\n\r\n"),), 502, "upstream_protocol_error"),
        ((send(b"HTTP/1.1 200 OK\r\nContent-Le"), close()), 502, "upstream_protocol_error"),
        ((reset(),), 502, "upstream_unreachable"),
        (
            (send(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 600 + b"\r\n"),),
            502,
            "upstream_protocol_error",
        ),
        (
            (send(b"HTTP/1.1 200 OK\r\na: " + b"b" * 300_000),),
            502,
            "upstream_protocol_error",
        ),
        (
            (head(200, [("content-length", "2"), ("content-length", "3")]), send(b"abc")),
            502,
            "upstream_protocol_error",
        ),
        (
            (head(200, [("content-length", "2"), ("transfer-encoding", "chunked")]),),
            502,
            "upstream_protocol_error",
        ),
        ((head(200, {"transfer-encoding": "gzip"}), send(b"abc")), 502, "upstream_protocol_error"),
        ((send(b"HTTP/1.1 700 No\r\n\r\n"),), 502, "upstream_protocol_error"),
    ],
)
async def test_what_an_upstream_does_wrong_is_told_and_the_next_exchange_works(
    serve: Serve, upstream: ScriptedUpstream, script: tuple, status: int, code: str
) -> None:
    upstream.answers(script, body(b"next"))
    running = await serve(upstream_from_url(upstream.url))
    peer = await running.connect()
    answer = await peer.get()
    assert (answer.status, answer.code) == (status, code)
    exchange = (await running.ended())[0]
    assert exchange.outcome == "failed"
    assert [attempt.error for attempt in exchange.attempts] == [code]
    assert (await peer.get()).body == b"next"


@pytest.mark.parametrize("script", [cut_body(b"x" * 10), cut_chunk(b"x" * 10)])
async def test_a_body_that_is_cut_is_cut_for_the_client_too(
    serve: Serve, upstream: ScriptedUpstream, script: tuple
) -> None:
    upstream.answer(script[0], script[1], sleep(0.05), script[2])
    running = await serve(upstream_from_url(upstream.url))
    answer = await (await running.connect()).get()
    assert answer.status == 200
    assert not answer.complete
    exchange = (await running.ended())[0]
    assert exchange.outcome == "failed"
    assert exchange.denial.code == "upstream_protocol_error"


async def test_a_body_without_a_length_ends_with_the_connection(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    upstream.answer(head(200), send(b"abc"), sleep(0.02), send(b"def"), close())
    running = await serve(upstream_from_url(upstream.url))
    peer = await running.connect()
    for _ in range(2):
        assert (await peer.get()).body == b"abcdef"
    assert upstream.connections == 2


async def test_nothing_listens_is_said(serve: Serve) -> None:
    running = await serve(upstream_from_url("http://127.0.0.1:9"))
    answer = await (await running.connect()).get()
    assert (answer.status, answer.code) == (502, "upstream_unreachable")


async def test_bytes_after_an_answer_never_answer_the_next_request(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    evil = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    upstream.answers((*body(b"first"), send(evil)), body(b"second"))
    running = await serve(upstream_from_url(upstream.url))
    peer = await running.connect()
    assert (await peer.get()).body == b"first"
    await asyncio.sleep(0.05)
    assert (await peer.get()).body == b"second"
    assert upstream.connections == 2
