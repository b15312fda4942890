"""What parsers may read differently gets the answer here that it gets on the lane.

The tables are the lane's: two carriers that differ would themselves be a way to smuggle.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tidegate.testing.smuggling import FRAMING, SIZES, SMUGGLED, TARGETS


@pytest.mark.parametrize("name", FRAMING)
async def test_bad_framing_is_refused(serve: Any, upstream: Any, route_to: Any, name: str) -> None:
    serving = await serve(route_to(upstream.url))
    answer = await serving.raw(FRAMING[name])
    assert (answer.status, answer.code) == (400, "bad_request_framing")
    assert answer["connection"] == "close"
    assert not any(request.target == "/smuggled" for request in upstream.requests)
    assert all(request.body == b"" for request in upstream.requests)


@pytest.mark.parametrize("name", TARGETS)
async def test_a_bad_target_is_refused(serve: Any, upstream: Any, route_to: Any, name: str) -> None:
    serving = await serve(route_to(upstream.url))
    answer = await serving.raw(TARGETS[name] + SMUGGLED)
    assert answer.status == 400
    assert answer.code in ("bad_request_target", "bad_request_framing")
    assert answer["connection"] == "close"
    assert upstream.requests == []


@pytest.mark.parametrize("name", SIZES)
async def test_what_is_too_large_is_refused(
    serve: Any, upstream: Any, route_to: Any, name: str
) -> None:
    data, status, code = SIZES[name]
    serving = await serve(route_to(upstream.url), gateway="limits = { body = 2_000_000 }")
    answer = await serving.raw(data)
    assert (answer.status, answer.code) == (status, code)


@pytest.mark.parametrize("name", ["HTTP/2.0", "two lengths", "a chunk size that is none"])
async def test_a_refusal_waits_for_the_answers_before_it(
    serve: Any, upstream: Any, route_to: Any, name: str
) -> None:
    serving = await serve(route_to(upstream.url))
    answer = await serving.raw(
        b"GET / HTTP/1.1\r\nHost: api.test\r\n\r\n" + FRAMING[name] + SMUGGLED
    )
    assert answer.status == 200
    assert answer.body.startswith(b"ok")
    assert answer.raw.count(b"HTTP/1.1 ") == 2
    assert b"bad_request_framing" in answer.raw
    assert not any(request.target == "/smuggled" for request in upstream.requests)


CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "body",
    [
        b"4\r\nabcd\r\n0\r\n\r\n",
        b'4;name=value;other="a b"\r\nabcd\r\n0\r\n\r\n',
        b"0004\r\nabcd\r\n000\r\n\r\n",
        b"1\r\na\r\n3\r\nbcd\r\n0\r\nX-Trailer: y\r\nOther: z\r\n\r\n",
    ],
    ids=repr,
)
@pytest.mark.parametrize("size", [1, 3, 1000])
async def test_chunks_that_are_right_arrive_however_they_are_cut(
    serve: Any, upstream: Any, route_to: Any, body: bytes, size: int
) -> None:
    serving = await serve(route_to(upstream.url))
    reader, writer = await serving.connect()
    raw = CHUNKED + body
    for at in range(0, len(raw), size):
        writer.write(raw[at : at + size])
        await asyncio.sleep(0)
    async with asyncio.timeout(20):
        assert (await reader.read(-1)).endswith(b"ok")
    writer.close()
    assert upstream.requests[0].body == b"abcd"


async def test_trailers_have_the_limits_of_a_head(serve: Any, upstream: Any, route_to: Any) -> None:
    serving = await serve(route_to(upstream.url))
    for trailers in (b"x: y\r\n" * 200, b"x: " + b"y" * 100_000 + b"\r\n"):
        answer = await serving.raw(CHUNKED + b"0\r\n" + trailers + b"\r\n")
        assert (answer.status, answer.code) == (431, "headers_too_large")
