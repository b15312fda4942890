"""Bad input and abuse that mitmproxy lets through, each with the answer that it gets here."""

from __future__ import annotations

import asyncio
import gc
import logging
import ssl
import tracemalloc
from typing import Any

import pytest

from tidegate.api import Body, Plugin, Tls, hook
from tidegate.engine.sparse import BURST, Sparse
from tidegate.testing import ScriptedUpstream
from tidegate.testing.certificates import Authority
from tidegate.testing.script import Turn, body, close, head, send

HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HTTP/1.1\nHost: a\n\n",
        HEAD + b"X: 1\n\r\n",
        HEAD + b"X: 1\rY: 2\r\n\r\n",
        HEAD + b"X: a\x00b\r\n\r\n",
        HEAD + b"X: a\x7fb\r\n\r\n",
        HEAD + b"X\x00: a\r\n\r\n",
        HEAD + b"X(y): a\r\n\r\n",
        HEAD + b": a\r\n\r\n",
        HEAD + b"X: 1\r\n folded\r\n\r\n",
        b" " + HEAD + b"\r\n",
        b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.2\r\nHost: a\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        b"G\x00T / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Content-Length: 4, 4\r\n\r\nabcd",
        POST + b"Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd",
        POST + b"Content-Length: 0x4\r\n\r\nabcd",
        POST + b"Content-Length: -1\r\n\r\n",
        POST + b"Content-Length: 1_0\r\n\r\n0123456789",
        POST + b"Content-Length: \r\n\r\n",
    ],
    ids=repr,
)
async def test_framing_that_parsers_may_read_differently_is_refused(
    serve: Any, upstream: Any, route_to: Any, raw: bytes
) -> None:
    serving = await serve(route_to(upstream.url))
    answer = await serving.raw(raw)
    assert (answer.status, answer.code) == (400, "bad_request_framing")
    assert upstream.requests == []


@pytest.mark.parametrize(
    "chunks",
    [
        b"xyz\r\n",
        b"-1\r\n\r\n",
        b"0x2\r\nab\r\n",
        b"2\r\nabc\r\n",
        b"2 ; ext\x00\r\nab\r\n",
        b"1" * 30 + b"\r\n",
        b"2;" + b"e" * 200_000,
    ],
    ids=lambda chunks: repr(chunks[:12]),
)
async def test_a_body_in_bad_chunks_is_refused(
    serve: Any, upstream: Any, route_to: Any, chunks: bytes
) -> None:
    serving = await serve(route_to(upstream.url))
    answer = await serving.raw(POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
    assert (answer.status, answer.code) == (400, "bad_request_framing")
    assert all(request.body == b"" for request in upstream.requests)


async def test_an_endless_chunk_line_of_an_upstream_is_cut(
    serve: Any, upstream: Any, route_to: Any
) -> None:
    async def endless(turn: Turn) -> None:
        for _ in range(200):
            await turn.write(b"e" * 65536)

    upstream.answer(head(200, {"transfer-encoding": "chunked"}), send(b"2;"), endless)
    serving = await serve(route_to(upstream.url))
    answer = await serving.get()
    assert answer.body == b""
    assert (await serving.last()).denial.code == "upstream_protocol_error"


async def test_an_address_that_was_not_the_operators_is_checked(
    serve: Any, upstream: Any, route_to: Any
) -> None:
    for host in ("127.0.0.1", "localhost", "2130706433", "169.254.169.254"):
        serving = await serve(route_to(f"http://{host}:{upstream.port}", trusted=False))
        answer = await serving.get()
        assert (answer.status, answer.code) == (403, "upstream_address_forbidden")
        await serving.engine.stop()
    assert upstream.requests == []


@pytest.mark.parametrize("declared", [b"Content-Length: 5\r\n\r\nplain", None])
async def test_a_transform_that_needs_no_body_may_put_one_in_its_place(
    serve: Any, upstream: Any, route_to: Any, declared: bytes | None
) -> None:
    class Replace(Plugin):
        @hook
        def transform_request(self, exchange: Any) -> None:
            exchange.request.content = b"in its place"

    serving = await serve(Replace, route_to(upstream.url))
    rest = declared or b"Transfer-Encoding: chunked\r\n\r\n5\r\nplain\r\n0\r\n\r\n"
    async with asyncio.timeout(20):
        reader, writer = await serving.connect()
        writer.write(POST + rest)
        assert b"200 OK" in await reader.readuntil(b"ok")
        writer.write(HEAD + b"\r\n")  # the connection is as good as before
        assert b"200 OK" in await reader.readuntil(b"ok")
        writer.close()
    assert [r.body for r in upstream.requests] == [b"in its place"] * 2


async def test_over_its_connections_the_engine_says_so_and_recovers(
    serve: Any, upstream: Any, route_to: Any
) -> None:
    serving = await serve(route_to(upstream.url), gateway="limits = { connections = 3 }")
    held = [await serving.connect() for _ in range(3)]
    for reader, writer in held:
        writer.write(HEAD + b"\r\n")
        await reader.readuntil(b"ok")
    answer = await serving.get()
    assert (answer.status, answer.code, answer["retry-after"]) == (503, "overloaded", "1")
    for _, writer in held:
        writer.close()
    async with asyncio.timeout(20):
        while (await serving.get()).status != 200:
            await asyncio.sleep(0.05)


def test_lines_that_others_cause_are_left_out_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told = Sparse(logging.getLogger("tidegate.test"))
    for _ in range(1000):
        told.warning("too many %s", "files")
    assert BURST <= len(caplog.records) < BURST + 10
    told._left = 2.0
    told.warning("and now")
    assert "lines that were left out" in caplog.records[-1].getMessage()


async def test_bodies_that_were_gathered_do_not_wait_for_the_garbage_collector(
    serve: Any, upstream: Any, route_to: Any
) -> None:
    class Look(Plugin):
        @hook(needs=Body(request=True, response=True, limit=8_000_000))
        def transform_response(self, exchange: Any) -> None:
            assert exchange.response.content

    upstream.answer(*body(b"x" * 2_000_000))
    serving = await serve(Look, route_to(upstream.url))
    raw = POST + b"Connection: close\r\nContent-Length: 1000000\r\n\r\n" + b"y" * 1_000_000
    assert (await serving.raw(raw)).status == 200
    serving.logged.clear()
    upstream.requests.clear()
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(10):
            assert (await serving.raw(raw)).status == 200
            serving.logged.clear()
            upstream.requests.clear()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
        gc.enable()
    assert grown < 6_000_000  # two exchanges' worth; all ten would be 30 MB


async def test_the_tail_of_an_answer_is_not_lost_where_a_tls_upstream_closes(
    serve: Any, route_to: Any, tmp_path: Any
) -> None:
    """uvloop's own TLS drops what it has received when the peer closes while we are paused."""
    authority = Authority()
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    content = bytes(range(256)) * 16_000
    fields = {"content-length": str(len(content)), "connection": "close"}
    async with ScriptedUpstream(tls=authority.server("localhost")) as upstream:
        upstream.answer(head(200, fields), send(content), close())
        target = f"https://localhost:{upstream.port}"
        serving = await serve(route_to(target, tls=Tls(ca=str(tmp_path / "ca.pem"))))
        reader, writer = await asyncio.open_connection("127.0.0.1", serving.port, limit=4096)
        writer.write(HEAD + b"Connection: close\r\n\r\n")
        await asyncio.sleep(0.5)  # everything on the way fills up
        async with asyncio.timeout(20):
            got = await reader.read()
        assert got.partition(b"\r\n\r\n")[2] == content
        writer.close()


async def test_a_listener_does_not_fall_back_to_old_tls(
    serve: Any, upstream: Any, route_to: Any, tmp_path: Any
) -> None:
    authority = Authority()
    (tmp_path / "pair.pem").write_bytes(b"".join(authority.issue("localhost")))
    serving = await serve(route_to(upstream.url), listener='cert = "pair.pem"\nkey = "pair.pem"')
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.load_verify_locations(cadata=authority.pem.decode())
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection(
            "127.0.0.1", serving.port, ssl=old, server_hostname="localhost"
        )
