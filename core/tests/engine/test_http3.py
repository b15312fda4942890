"""HTTP/3 from clients to `reverse:http3:`: exchanges, what is kept of them, and their pace."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
from aioquic.h3.connection import ErrorCode, Setting

from tidegate.api import Exchange, Plugin, Upstream, hook, upstream_from_url
from tidegate.testing import ScriptedUpstream
from tidegate.testing.script import body, chunk, head, last_chunk

from .http3 import Client, client
from .http3_node import Front, ended, eventually


async def test_a_request_meets_the_hooks_and_goes_on_by_tcp(
    front3: Front, http3_origin: ScriptedUpstream
) -> None:
    node = await front3()
    async with node.connect() as h3:
        got = await h3.get("/x?y=1", (b"x-mine", b"1"))
        assert (got.status, got.body) == (200, b"ok")
        posted = await h3.get("/post", body=b"z" * 300_000, method=b"POST")
        assert posted.status == 200
    assert http3_origin.requests[0].target == "/x?y=1"
    assert http3_origin.requests[0].values("x-mine") == ["1"]
    assert http3_origin.requests[1].body == b"z" * 300_000
    assert [x.denial for x in node.logged] == [None, None]


async def test_the_origin_is_verified(front3: Front, http3_origin: ScriptedUpstream) -> None:
    node = await front3(lines="")  # nobody knows its CA
    async with node.connect() as h3:
        got = await h3.get()
    assert (got.status, b"upstream_tls_invalid" in got.body) == (502, True)
    assert http3_origin.requests == []


async def test_a_client_that_does_not_trust_the_ca_is_told_of(front3: Front) -> None:
    node = await front3()
    with pytest.raises(ConnectionError):
        async with client(node.port, None):
            pass
    await eventually(lambda: node.engine.refusals() and not node.handlers)
    assert "does not trust the CA" in node.engine.refusals()[0]["reason"]


async def test_long_fields_of_an_answer_arrive(
    front3: Front, http3_origin: ScriptedUpstream
) -> None:
    """aioquic's encoder takes none over 4 KiB."""
    http3_origin.handle(lambda _: [head(200, {"x-long": "y" * 9000, "content-length": "0"})])
    node = await front3()
    async with node.connect() as h3:
        assert (await h3.get()).heads[0][b"x-long"] == b"y" * 9000


async def test_events_come_one_by_one(front3: Front, http3_origin: ScriptedUpstream) -> None:
    go_on = asyncio.Event()

    async def wait(_: Any) -> None:
        await go_on.wait()

    sse = head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
    script = [sse, chunk(b"data: 1\n\n"), wait, chunk(b"data: 2\n\n"), last_chunk()]
    http3_origin.handle(lambda _: script)
    node = await front3()
    async with node.connect() as h3:
        _, stream = h3.open()
        await h3.until(lambda: stream.body == b"data: 1\n\n")
        go_on.set()
        await h3.until(lambda: stream.ended)
        assert stream.body == b"data: 1\n\ndata: 2\n\n"


async def test_a_node_that_stops_tells_its_clients(front3: Front) -> None:
    node = await front3()
    async with node.connect() as h3:
        assert (await h3.get()).status == 200
        await node.engine.stop()
        assert await ended(h3) == ErrorCode.H3_NO_ERROR


# -- what is over is forgotten ----------------------------------------------------------------


async def test_nothing_is_kept_of_streams_that_are_over(front3: Front) -> None:
    node = await front3()
    async with node.connect() as h3:
        for _ in range(300):  # more than may be open at a time
            assert (await h3.get()).status == 200
        [handler] = node.handlers
        server, quic = handler.http3, handler.quic
        await eventually(lambda: not server.calls and len(server.h3_conn.open) == 3)
        assert all(one % 4 == 2 for one in server.h3_conn.open)  # the client's one-way streams
        assert len(quic._streams) == 6
        assert len(quic._streams_finished._above) == 0
        assert not server.held
        assert not server._unread
        assert not server._headless
        assert not server.h3_conn._closed_streams
        assert len(quic._taken) == 3
    await eventually(lambda: not node.handlers)


async def test_a_client_that_leaves_ends_its_exchanges(
    front3: Front, http3_origin: ScriptedUpstream
) -> None:
    gone = asyncio.Event()

    async def until_gone(turn: Any) -> None:
        while await turn.reader.read(1000):
            pass
        gone.set()

    http3_origin.handle(lambda _: [head(200), until_gone])
    node = await front3()
    async with node.connect() as h3:
        _, stream = h3.open()
        await h3.until(lambda: stream.heads)
        stream_id, other = h3.open()
        await h3.until(lambda: other.heads)
        h3.quic.reset_stream(stream_id, ErrorCode.H3_REQUEST_CANCELLED)
        h3.quic.stop_stream(stream_id, ErrorCode.H3_REQUEST_CANCELLED)
        h3.transmit()
        await asyncio.wait_for(gone.wait(), 20)
        assert len(node.logged) == 1
        gone.clear()
    await asyncio.wait_for(gone.wait(), 20)
    await eventually(lambda: len(node.logged) == 2 and not node.handlers)


# -- windows ----------------------------------------------------------------------------------


async def test_what_is_advertised_is_small(front3: Front) -> None:
    node = await front3()
    async with node.connect() as h3:
        assert (await h3.get()).status == 200
        assert h3.settings[Setting.MAX_FIELD_SECTION_SIZE] == 32 * 1024
        assert h3.settings[Setting.QPACK_MAX_TABLE_CAPACITY] == 0
        assert h3.quic._remote_max_stream_data_bidi_remote == 64 * 1024
        assert 1024 * 1024 <= h3.quic._remote_max_data < 1100 * 1024
        assert h3.quic._remote_max_streams_bidi in (100, 101)


def deaf(h3: Client) -> None:
    """Let a client give no more room than it has given."""
    h3.quic._write_stream_limits = lambda **_: None  # type: ignore[method-assign]
    h3.quic._write_connection_limits = lambda **_: None  # type: ignore[method-assign]


async def test_a_client_that_gives_no_room_holds_its_upstream_and_no_one_else(
    front3: Front, http3_origin: ScriptedUpstream
) -> None:
    sent = 0

    async def endless(turn: Any) -> None:
        nonlocal sent
        for _ in range(800):  # 50 MiB
            await turn.write(b"x" * 65536)
            sent += 65536

    large = [head(200, {"content-length": str(800 * 65536)}), endless]
    http3_origin.handle(lambda r: large if r.target == "/large" else body(b"small"))
    node = await front3()
    async with node.connect(max_stream_data=100_000) as h3:
        deaf(h3)
        stream_id, stream = h3.open("/large")
        await h3.until(lambda: len(stream.body) > 90_000)
        for _ in range(3):
            assert (await h3.get("/small")).body == b"small"
        [handler] = node.handlers
        assert stream_id in handler.http3.held
        assert len(stream.body) <= 100_000
        assert handler.http3.backlog(stream_id) < 1024 * 1024
        assert sent < 20 * 1024 * 1024


async def test_a_stream_that_its_client_takes_nothing_of_is_reset(
    front3: Front, http3_origin: ScriptedUpstream
) -> None:
    http3_origin.handle(lambda r: body(bytes(500_000)) if r.target == "/large" else body(b"small"))
    node = await front3(gateway='deadlines = { write = "1s" }')
    async with node.connect(max_stream_data=100_000) as h3:
        deaf(h3)
        _, stream = h3.open("/large")
        await h3.until(lambda: stream.reset is not None)
        assert (await h3.get("/small")).body == b"small"


async def test_a_body_that_its_upstream_does_not_take_holds_its_own_stream(
    front3: Front, http3_origin: ScriptedUpstream
) -> None:
    http3_origin.handle(lambda r: body(b"small"))
    stalled = socket.socket()  # that accepts, and never reads
    stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    stalled.bind(("127.0.0.1", 0))
    stalled.listen()
    port = stalled.getsockname()[1]

    class Route(Plugin):
        @hook
        def route(self, exchange: Exchange) -> Upstream | None:
            large = exchange.path == "/large"
            return upstream_from_url(f"http://127.0.0.1:{port}") if large else None

    node = await front3(Route)
    async with node.connect() as h3:
        stream_id, _ = h3.open("/large", method=b"POST", body=bytes(30 * 1024 * 1024))
        sender = h3.quic._streams[stream_id].sender
        before = -1
        while sender.highest_offset != before:  # until it is held
            before = sender.highest_offset
            await asyncio.sleep(0.5)
        assert len(sender._buffer) > 15 * 1024 * 1024
        assert (await h3.get("/small")).body == b"small"
    stalled.close()


async def test_bodies_go_both_ways_in_full(front3: Front, http3_origin: ScriptedUpstream) -> None:
    data = bytes(range(256)) * 20_000
    http3_origin.handle(lambda r: body(r.body))
    node = await front3()
    async with node.connect() as h3:
        assert (await h3.get("/echo", method=b"POST", body=data)).body == data
