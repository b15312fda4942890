"""Clients that take nothing, or give little: whom they hold up, and for how long."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tidegate.engine import pace
from tidegate.testing.certificates import Authority
from tidegate.testing.script import head


async def endless(turn: Any) -> None:
    for _ in range(2000):
        await turn.write(b"x" * 65536)


LARGE = (head(200, {"content-length": str(2000 * 65536)}), endless)


async def test_a_client_that_takes_nothing_of_an_answer_is_closed(
    serve: Any, upstream: Any, route_to: Any
) -> None:
    upstream.answer(*LARGE)
    serving = await serve(route_to(upstream.url), gateway='deadlines = { write = "1s" }')
    _, writer = await serving.connect()
    writer.transport.pause_reading()
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    exchange = await serving.last()
    assert exchange.outcome == "client_cancelled"
    await upstream.until(lambda: upstream.open == 0)
    writer.transport.abort()


async def test_a_client_that_takes_nothing_though_the_upstream_is_done_is_closed(
    serve: Any, upstream: Any, route_to: Any
) -> None:
    size = 200 * 65536
    upstream.answer(head(200, {"content-length": str(size)}), lambda turn: turn.write(bytes(size)))
    serving = await serve(route_to(upstream.url), gateway='deadlines = { write = "1s" }')
    _, writer = await serving.connect()
    writer.transport.pause_reading()
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    async with asyncio.timeout(20):
        while not serving.engine._master.handlers:
            await asyncio.sleep(0.01)
        while serving.engine._master.handlers:
            await asyncio.sleep(0.05)
    writer.transport.abort()


async def test_a_client_that_reads_in_steps_gets_all(
    serve: Any, upstream: Any, route_to: Any
) -> None:
    size = 64 * 65536
    upstream.answer(head(200, {"content-length": str(size)}), lambda turn: turn.write(bytes(size)))
    serving = await serve(route_to(upstream.url), gateway='deadlines = { write = "2s" }')
    reader, writer = await serving.connect()
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    got = 0
    async with asyncio.timeout(60):
        while data := await reader.read(400_000):
            got += len(data)
            await asyncio.sleep(0.05)
    assert got > size
    writer.close()


@pytest.mark.parametrize("carrier", ["engine", "lane"])
@pytest.mark.parametrize("begun", [b"", b"\x16\x03\x01\x02"])
async def test_a_handshake_that_does_not_end_is_closed(
    serve: Any, upstream: Any, route_to: Any, tmp_path: Path, begun: bytes, carrier: str
) -> None:
    (tmp_path / "pair.pem").write_bytes(b"".join(Authority().issue("localhost")))
    serving = await serve(
        route_to(upstream.url),
        listener='cert = "pair.pem"\nkey = "pair.pem"\nalpn = ["h2", "http/1.1"]',
        gateway='deadlines = { head = "500ms" }',
        carrier=carrier,
    )
    reader, writer = await serving.connect()
    writer.write(begun)
    async with asyncio.timeout(20):
        with suppress(ConnectionError):
            assert await reader.read() == b""
    writer.close()


async def test_a_body_that_trickles_is_408_though_it_never_pauses_for_long(
    serve: Any, upstream: Any, route_to: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(pace, "GRACE", 1.0)
    serving = await serve(route_to(upstream.url))
    reader, writer = await serving.connect()
    writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4096\r\n\r\n")
    answering = asyncio.create_task(reader.read(-1))
    async with asyncio.timeout(20):
        while not answering.done():
            writer.write(b"x")
            await asyncio.sleep(0.05)
    assert b"408" in answering.result()
    assert b"request_timeout" in answering.result()
    writer.close()
    assert upstream.requests == []
