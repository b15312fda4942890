"""HTTP as callers and upstreams see it: the same on both carriers."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tidegate.testing import Gateway, ScriptedUpstream
from tidegate.testing.script import (
    Action,
    body,
    chunk,
    chunked,
    close,
    early_hints,
    head,
    last_chunk,
    send,
    sleep,
    sse,
)

from .raw import Raw

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def origin() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["engine", "lane"])
async def served(
    request: pytest.FixtureRequest,
    origin: ScriptedUpstream,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Gateway]:
    """A gateway with one route, to `origin`, and no other addon: one for all tests here."""
    config = (
        '[gateway]\nworkers = 1\n\n[[addon]]\nuse = "route-static"\n'
        f'routes = [{{ path = "/", upstream = "{origin.url}/base" }}]\n'
    )
    folder = tmp_path_factory.mktemp("served")
    async with Gateway(folder, config, carrier=request.param) as running:
        yield running


@pytest.fixture
def upstream(origin: ScriptedUpstream) -> ScriptedUpstream:
    """The one upstream, as new."""
    origin.requests.clear()
    origin.connections = 0
    origin.answer(*body(b"ok"))
    return origin


def get(target: str = "/", *fields: str, method: str = "GET", version: str = "1.1") -> bytes:
    lines = [f"{method} {target} HTTP/{version}", "Host: api.test", *fields]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def test_requests_and_answers_keep_what_is_theirs(
    served: Gateway, upstream: ScriptedUpstream
) -> None:
    upstream.answer(
        *body(
            b"hello",
            201,
            {"X-Answer": "a", "set-cookie": "k=v", "connection": "x-hop", "x-hop": "1"},
        )
    )
    async with Raw(served.url) as raw:
        fields = ("X-Mine: 1", "Connection: x-private", "X-Private: no", "Content-Length: 4")
        await raw.send(get("/a%2Db?q=1&q=%20", *fields, method="POST") + b"ping")
        answer = await raw.answer()
    assert (answer.status, answer.body) == (201, b"hello")
    assert answer.get("x-answer") == "a"
    assert answer.get("set-cookie") == "k=v"
    assert answer.get("x-hop") is None
    assert len(answer.get("x-request-id") or "") == 24
    [request] = upstream.requests
    assert (request.method, request.target, request.body) == (
        "POST",
        "/base/a-b?q=1&q=%20",
        b"ping",
    )
    assert request.values("x-mine") == ["1"]
    assert request.values("x-private") == []
    assert request.values("host") == [upstream.url.removeprefix("http://")]
    assert request.values("x-forwarded-for") == ["127.0.0.1"]
    assert request.values("x-forwarded-host") == ["api.test"]
    assert request.values("via") == ["1.1 tidegate"]
    assert request.values("x-request-id") == [answer.get("x-request-id")]


async def test_a_connection_carries_many_exchanges(
    served: Gateway, upstream: ScriptedUpstream
) -> None:
    upstream.answers(body(b"one"), chunked(b"t", b"wo"), body(b"", 204), body(b"three"))
    async with Raw(served.url) as raw:
        seen = []
        for _ in range(4):
            await raw.send(get())
            seen.append(await raw.answer())
    assert [a.body for a in seen] == [b"one", b"two", b"", b"three"]
    assert seen[2].status == 204
    assert seen[2].get("content-length") is None
    assert upstream.connections <= 1  # 0: a pooled one of an earlier test


async def test_pipelined_requests_are_answered_in_order(
    served: Gateway, upstream: ScriptedUpstream
) -> None:
    upstream.answers((sleep(0.2), *body(b"slow")), body(b"quick"), chunked(b"third"), body(b"last"))
    async with Raw(served.url) as raw:
        await raw.send(
            get("/1") + get("/2", "Content-Length: 2", method="POST") + b"xy" + get("/3")
        )
        await raw.send(get("/4"))
        bodies = [(await raw.answer()).body for _ in range(4)]
    assert bodies == [b"slow", b"quick", b"third", b"last"]
    assert [r.target for r in upstream.requests] == ["/base/1", "/base/2", "/base/3", "/base/4"]


async def test_a_chunked_request_with_trailers_arrives_whole(
    served: Gateway, upstream: ScriptedUpstream
) -> None:
    async with Raw(served.url) as raw:
        await raw.send(get("/", "Transfer-Encoding: chunked", "Trailer: x-sum", method="PUT"))
        await raw.send(b"4\r\nwiki\r\n5;ext=1\r\npedia\r\n0\r\nx-sum: 9\r\n\r\n")
        assert (await raw.answer()).status == 200
        await raw.send(get("/next"))
        assert (await raw.answer()).status == 200
    assert upstream.requests[0].body == b"wikipedia"
    assert upstream.requests[0].values("content-length") in ([], ["9"])


async def test_response_trailers_reach_the_caller_or_are_dropped_whole(
    served: Gateway, upstream: ScriptedUpstream
) -> None:
    upstream.answer(*chunked(b"data", trailers={"x-checksum": "1", "content-length": "99"}))
    async with Raw(served.url) as raw:
        await raw.send(get())
        answer = await raw.answer()
        assert answer.body == b"data"
        assert answer.trailers in ([("x-checksum", "1")], [])
        await raw.send(get())
        assert (await raw.answer()).status == 200


@pytest.mark.parametrize(
    "interim", [early_hints(), head(102), head(100)], ids=["103", "102", "100"]
)
async def test_interim_answers_are_not_taken_for_the_final_one(
    served: Gateway, upstream: ScriptedUpstream, interim: Action
) -> None:
    upstream.answer(interim, *body(b"final"))
    async with Raw(served.url) as raw:
        await raw.send(get())
        answer = await raw.answer()
    assert (answer.status, answer.body) == (200, b"final")


async def test_head_has_the_length_and_no_body(served: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.answer(head(200, {"content-length": "1234", "content-type": "text/plain"}))
    async with Raw(served.url) as raw:
        await raw.send(get(method="HEAD"))
        answer = await raw.answer(method="HEAD")
        assert answer.get("content-length") == "1234"
        upstream.answer(*body(b"after"))
        await raw.send(get())
        assert (await raw.answer()).body == b"after"


async def test_not_modified_keeps_its_fields(served: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.answer(head(304, {"etag": '"v1"'}))
    async with Raw(served.url) as raw:
        await raw.send(get("/", 'If-None-Match: "v1"'))
        answer = await raw.answer()
    assert (answer.status, answer.get("etag")) == (304, '"v1"')


async def test_an_old_client_is_answered_without_chunks_and_closed(
    served: Gateway, upstream: ScriptedUpstream
) -> None:
    upstream.answer(*chunked(b"a", b"b"))
    async with Raw(served.url) as raw:
        await raw.send(get(version="1.0"))
        answer = await raw.answer()
        assert answer.body == b"ab"
        assert answer.get("transfer-encoding") is None
        assert await raw.closed()


async def test_an_answer_until_close_is_passed_on_whole(
    served: Gateway, upstream: ScriptedUpstream
) -> None:
    upstream.answer(
        head(200, {"content-type": "text/plain"}), send(b"until "), send(b"close"), close()
    )
    async with Raw(served.url) as raw:
        await raw.send(get())
        assert (await raw.answer()).body == b"until close"


async def test_events_pass_while_the_upstream_still_speaks(
    served: Gateway, upstream: ScriptedUpstream
) -> None:
    released = asyncio.Event()

    async def wait(_: object) -> None:
        await released.wait()

    upstream.answer(
        head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"}),
        chunk(b"data: 1\n\n"), wait, chunk(b"data: 2\n\n"), last_chunk(),
    )  # fmt: skip
    async with Raw(served.url) as raw:
        await raw.send(get())
        answer = await raw.head()
        assert answer.get("content-type") == "text/event-stream"
        first = await asyncio.wait_for(raw.reader.readuntil(b"data: 1\n\n"), 20)
        assert b"data: 2" not in first
        released.set()
        assert b"data: 2\n\n" in await asyncio.wait_for(raw.reader.readuntil(b"0\r\n\r\n"), 20)


async def test_a_stream_keeps_its_bytes(served: Gateway, upstream: ScriptedUpstream) -> None:
    events = ['{"a": 1}', "", "zwölf", "x" * 70_000]
    upstream.answer(*sse(*events))
    async with Raw(served.url) as raw:
        await raw.send(get())
        answer = await raw.answer()
    assert answer.body == "".join(f"data: {e}\n\n" for e in [*events, "[DONE]"]).encode()


async def test_a_compressed_answer_passes_untouched(
    served: Gateway, upstream: ScriptedUpstream
) -> None:
    packed = gzip.compress(b"compress me " * 100)
    upstream.answer(*body(packed, headers={"content-encoding": "gzip"}))
    async with Raw(served.url) as raw:
        await raw.send(get("/", "Accept-Encoding: gzip"))
        answer = await raw.answer()
    assert answer.body == packed
    assert upstream.requests[0].values("accept-encoding") == ["gzip"]


async def test_expect_continue_is_answered_and_the_body_sent(
    served: Gateway, upstream: ScriptedUpstream
) -> None:
    async with Raw(served.url) as raw:
        await raw.send(get("/", "Expect: 100-continue", "Content-Length: 5", method="POST"))
        assert (await raw.line()).startswith(b"HTTP/1.1 100")
        assert await raw.line() == b"\r\n"
        await raw.send(b"hello")
        assert (await raw.answer()).status == 200
    assert upstream.requests[0].body == b"hello"


async def test_a_caller_that_goes_away_ends_the_upstream_s_work(
    served: Gateway, upstream: ScriptedUpstream
) -> None:
    stream = [chunk(b"data: x\n\n"), sleep(0.05)] * 400
    upstream.answer(
        head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"}), *stream
    )
    before = upstream.open
    async with Raw(served.url) as raw:
        await raw.send(get())
        await raw.head()
    async with asyncio.timeout(10):
        while upstream.open > before:
            await asyncio.sleep(0.02)


TARGETS = {
    "absolute-form of another host": "GET http://evil.test/ HTTP/1.1\r\nHost: api.test\r\n\r\n",
    "dot segments": "GET /a/../b HTTP/1.1\r\nHost: api.test\r\n\r\n",
    "escaped dots": "GET /a/%2e%2e/b HTTP/1.1\r\nHost: api.test\r\n\r\n",
    "escaped slash": "GET /a/..%2fb HTTP/1.1\r\nHost: api.test\r\n\r\n",
    "NUL": "GET /a%00 HTTP/1.1\r\nHost: api.test\r\n\r\n",
    "two slashes": "GET //evil.test/ HTTP/1.1\r\nHost: api.test\r\n\r\n",
    "fragment": "GET /a#b HTTP/1.1\r\nHost: api.test\r\n\r\n",
    "two hosts": "GET / HTTP/1.1\r\nHost: api.test\r\nHost: evil.test\r\n\r\n",
    "odd host": "GET / HTTP/1.1\r\nHost: api.test/x\r\n\r\n",
    "no host": "GET / HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("target", TARGETS, ids=str)
async def test_odd_targets_are_refused(
    served: Gateway, upstream: ScriptedUpstream, target: str
) -> None:
    async with Raw(served.url) as raw:
        await raw.send(TARGETS[target].encode())
        answer = await raw.answer()
        assert answer.status == 400
        assert b'"code":"bad_request_target"' in answer.body
        assert await raw.closed()
    assert upstream.requests == []


POST = "POST / HTTP/1.1\r\nHost: a\r\n"
GET = "GET / HTTP/1.1\r\nHost: a\r\n"
FRAMINGS = {
    "length and chunked": f"{POST}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": f"{POST}Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
    "signed length": f"{POST}Content-Length: +4\r\n\r\nabcd",
    "unknown coding": f"{POST}Transfer-Encoding: gzip\r\n\r\n",
    "space before colon": f"{GET}X-A : 1\r\n\r\n",
    "folded field": f"{GET}X-A: 1\r\n 2\r\n\r\n",
    "NUL in a value": f"{GET}X-A: 1\x002\r\n\r\n",
    "junk": "not http at all\r\n\r\n",
    "bad chunk size": f"{POST}Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
}


@pytest.mark.parametrize("framing", FRAMINGS, ids=str)
async def test_bad_framing_is_refused(
    served: Gateway, upstream: ScriptedUpstream, framing: str
) -> None:
    async with Raw(served.url) as raw:
        await raw.send(FRAMINGS[framing].encode("latin-1"))
        answer = await raw.answer()
        assert answer.status == 400
        assert b'"code":"bad_request_framing"' in answer.body
        assert await raw.closed()
    assert all(r.body == b"" for r in upstream.requests)


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        (get("/" + "a" * 9000), 414, b"uri_too_long"),
        (get("/", "X-Long: " + "a" * 33_000), 431, b"headers_too_large"),
        (get("/", *(f"X-{n}: 1" for n in range(101))), 431, b"headers_too_large"),
        (get("api.test:443", method="CONNECT"), 400, b"upgrade_not_allowed"),
        (get("/", "Connection: upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
             "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="), 400, b"upgrade_not_allowed"),
    ],
    ids=["target", "head", "fields", "CONNECT", "upgrade"],
)  # fmt: skip
async def test_too_large_heads_and_upgrades_are_refused(
    served: Gateway, upstream: ScriptedUpstream, request_bytes: bytes, status: int, code: bytes
) -> None:
    async with Raw(served.url) as raw:
        await raw.send(request_bytes)
        answer = await raw.answer()
        assert (answer.status, code in answer.body) == (status, True), answer
    assert upstream.requests == []


async def test_a_large_body_passes_in_both_directions(
    served: Gateway, upstream: ScriptedUpstream
) -> None:
    data = bytes(range(256)) * 32_768  # 8 MiB
    upstream.handle(lambda request: body(request.body))
    async with Raw(served.url) as raw:
        await raw.send(get("/", f"Content-Length: {len(data)}", method="POST"))
        sending = asyncio.create_task(raw.send(data))
        answer = await raw.answer()
        await sending
    assert answer.body == data
