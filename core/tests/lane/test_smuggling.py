"""What must not be taken: each vector is refused, nothing of it goes upstream, and the
connection closes (RELIABILITY: framing strict, sizes, request target)."""

from __future__ import annotations

import asyncio

import pytest

from tidegate.api import errors, upstream_from_url
from tidegate.lane.requests import RequestReader
from tidegate.runtime.settings import Limits
from tidegate.testing import ScriptedUpstream

from .conftest import Serve

HOST = b"Host: api.test\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: api.test\r\n\r\n"


def get(*fields: bytes, line: bytes = b"GET / HTTP/1.1", host: bytes = HOST) -> bytes:
    return line + b"\r\n" + host + b"".join(field + b"\r\n" for field in fields) + b"\r\n"


def post(*fields: bytes, body: bytes = b"") -> bytes:
    return get(*fields, line=b"POST / HTTP/1.1") + body


CHUNKED = b"Transfer-Encoding: chunked"

FRAMING = {
    "length and coding": post(b"Content-Length: 4", CHUNKED, body=b"0\r\n\r\n" + SMUGGLED),
    "coding and length": post(CHUNKED, b"Content-Length: 4", body=b"0\r\n\r\n" + SMUGGLED),
    "two lengths": post(b"Content-Length: 1", b"Content-Length: 2", body=b"ab"),
    "the same length twice": post(b"Content-Length: 1", b"Content-Length: 1", body=b"a"),
    "a list of lengths": post(b"Content-Length: 1, 1", body=b"a"),
    "a signed length": post(b"Content-Length: +1", body=b"a"),
    "a negative length": post(b"Content-Length: -1", body=b"a"),
    "a hexadecimal length": post(b"Content-Length: 0x1", body=b"a"),
    "a length with a space in it": post(b"Content-Length: 1 1", body=b"a" * 11),
    "an empty length": post(b"Content-Length:", body=b"a"),
    "a huge length": post(b"Content-Length: 99999999999999999999", body=b"a"),
    "a length over 18 digits": post(b"Content-Length: 1234567890123456789", body=b"a"),
    "another coding": post(b"Transfer-Encoding: gzip", body=b"a"),
    "another coding before chunked": post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"),
    "chunked before another coding": post(b"Transfer-Encoding: chunked, gzip", body=b"0\r\n\r\n"),
    "identity": post(b"Transfer-Encoding: identity", b"Content-Length: 1", body=b"a"),
    "chunked twice in a field": post(b"Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n"),
    "chunked in two fields": post(CHUNKED, CHUNKED, body=b"0\r\n\r\n"),
    "a coding that looks like chunked": post(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n"),
    "chunked with a vertical tab": post(b"Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n"),
    "chunked in quotes": post(b'Transfer-Encoding: "chunked"', body=b"0\r\n\r\n"),
    "an empty coding": post(b"Transfer-Encoding:", body=b"0\r\n\r\n"),
    "a coding in HTTP/1.0": b"POST / HTTP/1.0\r\n" + HOST + CHUNKED + b"\r\n\r\n0\r\n\r\n",
    "a folded line": get(b"A: b", b" c"),
    "a folded coding": post(b"Transfer-Encoding:\r\n chunked", body=b"0\r\n\r\n"),
    "a space first in the head": get(b"A: b", host=b" " + HOST),
    "a space before the colon": post(b"Content-Length : 1", body=b"a"),
    "a tab before the colon": post(b"Transfer-Encoding\t: chunked", body=b"0\r\n\r\n"),
    "a space in a name": get(b"A b: c"),
    "a line without a colon": get(b"nonsense"),
    "an empty name": get(b": c"),
    "NUL in a value": get(b"A: b\0c"),
    "NUL in a name": get(b"A\0: b"),
    "a control character in a value": get(b"A: b\x01c"),
    "DEL in a value": get(b"A: b\x7fc"),
    "bare LF after the request line": b"GET / HTTP/1.1\n" + HOST + b"\r\n",
    "bare LF after a field": get(b"A: b\nC: d"),
    "bare LF at the end of the head": b"GET / HTTP/1.1\r\n" + HOST + b"\n",
    "bare CR in a value": get(b"A: b\rC: d"),
    "bare CR after a field": b"GET / HTTP/1.1\r\n" + b"A: b\r" + HOST + b"\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/0.9 by name": get(line=b"GET / HTTP/0.9"),
    "HTTP/1.2": get(line=b"GET / HTTP/1.2"),
    "HTTP/2.0": get(line=b"GET / HTTP/2.0"),
    "HTTP/1.10": get(line=b"GET / HTTP/1.10"),
    "lower case http": get(line=b"GET / http/1.1"),
    "another protocol": get(line=b"GET / ICE/1.0"),
    "RTSP": get(line=b"DESCRIBE / RTSP/1.0"),
    "RTSP with a method of HTTP": get(line=b"OPTIONS / RTSP/1.0"),
    "two spaces before the target": get(line=b"GET  / HTTP/1.1"),
    "two spaces after the target": get(line=b"GET /  HTTP/1.1"),
    "a tab in the request line": get(line=b"GET\t/ HTTP/1.1"),
    "a space after the version": get(line=b"GET / HTTP/1.1 "),
    "a space before the method": get(line=b" GET / HTTP/1.1"),
    "no target": get(line=b"GET HTTP/1.1"),
    "a method in lower case": get(line=b"get / HTTP/1.1"),
    "a method that is none": get(line=b"<script> / HTTP/1.1"),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 32,
    "rubbish": b"\xff\xfe rubbish\r\n\r\n",
    "a chunk size that is none": post(CHUNKED, body=b"x\r\na\r\n0\r\n\r\n"),
    "a chunk size with a prefix": post(CHUNKED, body=b"0x1\r\na\r\n0\r\n\r\n"),
    "a signed chunk size": post(CHUNKED, body=b"+1\r\na\r\n0\r\n\r\n"),
    "an empty chunk size": post(CHUNKED, body=b"\r\na\r\n0\r\n\r\n"),
    "a chunk size with a space": post(CHUNKED, body=b"1 \r\na\r\n0\r\n\r\n"),
    "a chunk size that overflows": post(CHUNKED, body=b"10000000000000001\r\na\r\n0\r\n\r\n"),
    "a chunk longer than its size": post(CHUNKED, body=b"1\r\nab\r\n0\r\n\r\n"),
    "a chunk that ends in LF": post(CHUNKED, body=b"1\r\na\n0\r\n\r\n"),
    "a chunk size that ends in LF": post(CHUNKED, body=b"1\na\r\n0\r\n\r\n"),
    "LF in a chunk extension": post(CHUNKED, body=b"1;a\nb\r\na\r\n0\r\n\r\n"),
    "CR in a chunk extension": post(CHUNKED, body=b"1;a\rb\r\na\r\n0\r\n\r\n"),
    "NUL in a chunk extension": post(CHUNKED, body=b"1;a\0\r\na\r\n0\r\n\r\n"),
    "a flood of chunk extensions": post(
        CHUNKED, body=(b"1;" + b"x" * 4000 + b"\r\na\r\n") * 20 + b"0\r\n\r\n"
    ),
    "a trailer with a bare LF": post(CHUNKED, body=b"0\r\nA: b\n\r\n"),
    "a folded trailer": post(CHUNKED, body=b"0\r\nA: b\r\n c\r\n\r\n"),
}

TARGETS = {
    "another host than Host's": get(line=b"GET http://evil.test/ HTTP/1.1"),
    "another scheme": get(line=b"GET ftp://api.test/ HTTP/1.1"),
    "two slashes first": get(line=b"GET //evil.test/ HTTP/1.1"),
    "an escaped slash": get(line=b"GET /a%2fb HTTP/1.1"),
    "an escaped backslash": get(line=b"GET /a%5cb HTTP/1.1"),
    "dot segments": get(line=b"GET /a/../b HTTP/1.1"),
    "escaped dot segments": get(line=b"GET /a/%2e%2e/b HTTP/1.1"),
    "half escaped dot segments": get(line=b"GET /a/.%2e/b HTTP/1.1"),
    "dots behind an escaped slash": get(line=b"GET /a/..%2fb HTTP/1.1"),
    "an escaped NUL": get(line=b"GET /a%00b HTTP/1.1"),
    "a broken escape": get(line=b"GET /a%zz HTTP/1.1"),
    "a fragment": get(line=b"GET /a#f HTTP/1.1"),
    "a backslash": get(line=b"GET /a\\b HTTP/1.1"),
    "asterisk for GET": get(line=b"GET * HTTP/1.1"),
    "an authority": get(line=b"GET api.test:80 HTTP/1.1"),
    "no Host": get(host=b""),
    "two Hosts": get(b"Host: api.test"),
    "two Hosts in one": get(host=b"Host: api.test, evil.test\r\n"),
    "a Host with user information": get(host=b"Host: api.test@evil.test\r\n"),
    "a Host with a path": get(host=b"Host: api.test/x\r\n"),
    "a Host with a port that is none": get(host=b"Host: api.test:99999\r\n"),
    "a Host with a space": get(host=b"Host: api test\r\n"),
}

SIZES = {
    "a target over 8 KiB": (get(line=b"GET /" + b"a" * 9000 + b" HTTP/1.1"), 414, "uri_too_long"),
    "101 fields": (get(*[b"A: b"] * 100), 431, "headers_too_large"),
    "33 KiB of fields": (get(b"A: " + b"b" * 33_000), 431, "headers_too_large"),
    "a field without an end": (
        b"GET / HTTP/1.1\r\n" + HOST + b"A: " + b"b" * 40_000,
        431,
        "headers_too_large",
    ),
    "a target without an end": (b"GET /" + b"a" * 40_000, 414, "uri_too_long"),
    "a length over the limit": (post(b"Content-Length: 2000001"), 413, "body_too_large"),
    "a chunked body over the limit": (
        post(CHUNKED, body=b"2dc6c0\r\n" + b"x" * 3_000_000 + b"\r\n0\r\n\r\n"),
        413,
        "body_too_large",
    ),
}


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
