"""What must not be taken: each vector is refused, nothing of it goes upstream, and the
connection closes (RELIABILITY: framing strict, sizes, request target)."""

from __future__ import annotations

import asyncio

import pytest

from tidegate.api import errors, upstream_from_url
from tidegate.lane.requests import RequestReader
from tidegate.runtime.settings import Limits
from tidegate.testing import ScriptedUpstream
from tidegate.testing.smuggling import CHUNKED, FRAMING, SIZES, SMUGGLED, TARGETS, get, post

from .conftest import Serve


@pytest.mark.parametrize("name", FRAMING)
async def test_bad_framing_is_refused(serve: Serve, upstream: ScriptedUpstream, name: str) -> None:
    running = await serve(upstream_from_url(upstream.url))
    peer = await running.connect()
    await peer.send(FRAMING[name])
    answer = await peer.answer()
    assert (answer.status, answer.code) == (400, "bad_request_framing")
    assert answer["connection"] == "close"
    assert await peer.closed() == b""
    assert upstream.requests == []


@pytest.mark.parametrize("name", TARGETS)
async def test_a_bad_target_is_refused(serve: Serve, upstream: ScriptedUpstream, name: str) -> None:
    running = await serve(upstream_from_url(upstream.url))
    peer = await running.connect()
    await peer.send(TARGETS[name] + SMUGGLED)
    answer = await peer.answer()
    assert answer.status == 400
    assert answer.code in ("bad_request_target", "bad_request_framing")
    assert answer["connection"] == "close"
    assert await peer.closed() == b""
    assert upstream.requests == []


@pytest.mark.parametrize("name", SIZES)
async def test_what_is_too_large_is_refused(
    serve: Serve, upstream: ScriptedUpstream, name: str
) -> None:
    data, status, code = SIZES[name]
    running = await serve(upstream_from_url(upstream.url), gateway={"limits": {"body": 2_000_000}})
    peer = await running.connect()
    sender = asyncio.ensure_future(peer.send(data))
    answer = await peer.answer()
    assert (answer.status, answer.code) == (status, code)
    await asyncio.gather(sender, return_exceptions=True)
    assert await peer.closed() == b""


@pytest.mark.parametrize("name", ["HTTP/2.0", "two lengths", "a chunk size that is none"])
async def test_a_refusal_waits_for_the_answers_before_it(
    serve: Serve, upstream: ScriptedUpstream, name: str
) -> None:
    running = await serve(upstream_from_url(upstream.url))
    peer = await running.connect()
    await peer.send(b"GET / HTTP/1.1\r\nHost: api.test\r\n\r\n" + FRAMING[name] + SMUGGLED)
    assert (await peer.answer()).body == b"ok"
    assert (await peer.answer()).code == "bad_request_framing"
    assert await peer.closed() == b""
    assert [request.target for request in upstream.requests] == ["/"]


async def test_framing_that_breaks_in_a_streamed_body_ends_the_exchange(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    running = await serve(upstream_from_url(upstream.url))
    peer = await running.connect()
    await peer.send(post(CHUNKED, body=b"5\r\nhello\r\n"))
    await asyncio.sleep(0.05)
    await peer.send(b"zz\r\n")
    assert (await peer.answer()).code == "bad_request_framing"
    assert await peer.closed() == b""
    assert upstream.requests == []
    assert (await running.ended())[0].denial.code == "bad_request_framing"


async def test_an_absolute_target_of_the_same_host_goes_upstream_in_origin_form(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    running = await serve(upstream_from_url(upstream.url))
    peer = await running.connect()
    await peer.send(get(line=b"GET http://API.test/a?b HTTP/1.1"))
    assert (await peer.answer()).status == 200
    assert upstream.requests[0].target == "/a?b"


@pytest.mark.parametrize(
    "data",
    [
        b"CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\n\r\n",
        get(b"Connection: upgrade", b"Upgrade: websocket"),
        get(b"Upgrade: foo"),
        get(b"Connection: upgrade, http2-settings", b"Upgrade: h2c", b"HTTP2-Settings: AA"),
        post(b"Connection: upgrade", b"Upgrade: foo", b"Content-Length: 3", body=b"abc"),
    ],
)
async def test_upgrades_and_tunnels_are_refused(
    serve: Serve, upstream: ScriptedUpstream, data: bytes
) -> None:
    running = await serve(upstream_from_url(upstream.url))
    peer = await running.connect()
    await peer.send(data + SMUGGLED)
    answer = await peer.answer()
    assert (answer.status, answer.code) == (400, "upgrade_not_allowed")
    assert await peer.closed() == b""
    assert upstream.requests == []


async def test_http2_is_refused_in_its_own_words(serve: Serve) -> None:
    running = await serve(None)
    peer = await running.connect()
    await peer.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
    frames = await peer.closed()
    assert frames[3] == 4
    assert frames[9 + 3] == 7
    assert int.from_bytes(frames[9 + 9 + 4 : 9 + 9 + 8]) == 0xD


async def test_connection_fields_and_forged_fields_stay_here(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    running = await serve(upstream_from_url(upstream.url))
    peer = await running.connect()
    await peer.get(
        Connection="keep-alive, x-secret",
        X_Secret="1",
        Keep_Alive="timeout=5",
        TE="trailers",
        Proxy_Authorization="Basic eA==",
        X_Forwarded_For="1.2.3.4",
        Forwarded="for=1.2.3.4",
        X_Real_IP="1.2.3.4",
        X_Original_URL="/admin",
        X_Own="kept",
    )
    seen = upstream.requests[0]
    assert seen.values("x-own") == ["kept"]
    assert seen.values("x-forwarded-for") == ["127.0.0.1"]
    for name in (
        "connection",
        "x-secret",
        "keep-alive",
        "te",
        "proxy-authorization",
        "forwarded",
        "x-real-ip",
        "x-original-url",
    ):
        assert seen.values(name) == []


@pytest.mark.parametrize("name", FRAMING)
def test_the_reader_refuses_bad_framing_however_it_is_split(name: str) -> None:
    reader = RequestReader(Limits())
    requests = []
    for byte in FRAMING[name]:
        reader.feed(bytes((byte,)))
        if (request := reader.take()) is not None:
            requests.append(request)
    assert len(requests) == 1
    assert requests[0].refusal == errors.BAD_REQUEST_FRAMING
    assert reader.stopped
