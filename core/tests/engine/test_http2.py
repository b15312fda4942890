"""HTTP/2 from clients: what floods, bombs and slow readers get. Each was a gap of mitmproxy's."""

from __future__ import annotations

import asyncio
import gc
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from h2.errors import ErrorCodes
from hpack import Encoder
from hyperframe import frame as frames

from tidegate.api import Exchange, Plugin, hook
from tidegate.testing.certificates import Authority
from tidegate.testing.script import body, chunk, head, silence

from .http2 import Http2Client

CALM = int(ErrorCodes.ENHANCE_YOUR_CALM)
type Front = Callable[..., Awaitable[Any]]


@pytest.fixture
def front(serve: Any, tmp_path: Path) -> Front:
    """`await front(plugin, …, gateway="…")`: a listener with HTTP/2, and `connect()` to it."""
    authority = Authority()
    certificate, key = authority.issue("localhost")
    (tmp_path / "pair.pem").write_bytes(certificate + key)
    (tmp_path / "ca.pem").write_bytes(authority.pem)

    async def start(*plugins: Any, **options: Any) -> Any:
        lines = 'cert = "pair.pem"\nkey = "pair.pem"\nalpn = ["h2", "http/1.1"]'
        serving = await serve(*plugins, listener=lines, **options)

        def connect(**more: Any) -> Http2Client:
            trust = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
            return Http2Client(serving.port, trust, **more)

        serving.http2 = connect
        return serving

    return start


async def test_http2_is_only_there_where_the_listener_says_so(
    serve: Any, upstream: Any, route_to: Any, tmp_path: Path
) -> None:
    authority = Authority()
    certificate, key = authority.issue("localhost")
    (tmp_path / "pair.pem").write_bytes(certificate + key)
    serving = await serve(route_to(upstream.url), listener='cert = "pair.pem"\nkey = "pair.pem"')
    trust = ssl.create_default_context(cadata=authority.pem.decode())
    trust.set_alpn_protocols(["h2", "http/1.1"])
    _, writer = await asyncio.open_connection(
        "127.0.0.1", serving.port, ssl=trust, server_hostname="localhost"
    )
    assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
    writer.close()


# -- windows (G7) -----------------------------------------------------------------------------


async def test_the_windows_that_are_advertised_are_small(
    front: Front, upstream: Any, route_to: Any
) -> None:
    serving = await front(route_to(upstream.url))
    async with serving.http2() as client:
        assert (await client.get("/")).body == b"ok"
        settings = client.h2.remote_settings
        assert settings.initial_window_size == 64 * 1024
        assert settings.max_concurrent_streams == 100
        assert settings.max_header_list_size == 32 * 1024
        assert client.h2.outbound_flow_control_window == 1024 * 1024


async def test_a_client_that_opens_no_window_holds_its_upstream_and_no_one_else(
    front: Front, upstream: Any, route_to: Any
) -> None:
    sent = 0

    async def endless(turn: Any) -> None:
        nonlocal sent
        for _ in range(800):  # 50 MiB
            await turn.write(b"x" * 65536)
            sent += 65536

    large = [head(200, {"content-length": str(800 * 65536)}), endless]
    upstream.handle(lambda r: large if r.target == "/large" else body(b"small"))
    serving = await front(route_to(upstream.url))
    async with serving.http2(auto=False) as client:
        stream = client.streams[client.open("/large")]
        await client.until(lambda: len(stream.body) == 65535)
        for _ in range(3):  # other streams go on; the connection's own window is the client's
            client.h2.increment_flow_control_window(65536)
            assert (await client.get("/small")).body == b"small"
        assert len(stream.body) < 200_000
        assert sent < 20 * 1024 * 1024  # what fits into the buffers of two sockets, and ours
        exchange = next(iter(serving.engine._master.handlers)).http2
        assert sum(map(exchange.h2_conn.backlog, exchange.calls)) < 1024 * 1024


async def test_a_stream_that_its_client_takes_nothing_of_is_reset(
    front: Front, upstream: Any, route_to: Any
) -> None:
    """However often it sends a PING."""
    upstream.handle(lambda r: body(bytes(500_000)) if r.target == "/large" else body(b"small"))
    serving = await front(route_to(upstream.url), gateway='deadlines = { write = "1s" }')
    async with serving.http2(auto=False) as client:
        stream = client.streams[client.open("/large")]
        async with asyncio.timeout(20):
            while stream.reset is None:
                client.raw(ping())
                await asyncio.sleep(0.1)
        client.h2.increment_flow_control_window(65536)
        assert (await client.get("/small")).body == b"small"


async def test_a_large_answer_comes_whole(front: Front, upstream: Any, route_to: Any) -> None:
    content = bytes(range(256)) * 20_000
    upstream.answer(*body(content))
    serving = await front(route_to(upstream.url))
    async with serving.http2() as client:
        answers = await asyncio.gather(*(client.get(f"/{n}") for n in range(5)))
        assert {answer.body == content and answer.ended for answer in answers} == {True}
    assert [e.bytes_out for e in serving.logged] == [len(content)] * 5


async def test_an_upload_waits_for_a_slow_upstream_and_no_one_else(
    front: Front, upstream: Any, route_to: Any
) -> None:
    gate = asyncio.Event()

    async def wait(_: Any) -> None:
        await gate.wait()

    upstream.early = True
    upstream.handle(lambda r: [wait, *body(b"late")] if r.method == "POST" else body(b"quick"))
    serving = await front(route_to(upstream.url))
    async with serving.http2() as client:
        slow = client.open("/up", method="POST", end=False)
        total = 0
        for _ in range(200):
            room = min(client.h2.local_flow_control_window(slow), 16384)
            if room:
                client.h2.send_data(slow, b"x" * room)
                client.flush()
                total += room
            await asyncio.sleep(0.005)
        assert total < 16 * 1024 * 1024
        assert (await client.get("/quick")).body == b"quick"
        gate.set()
        await client.until(lambda: client.streams[slow].ended)
        assert client.streams[slow].body == b"late"


async def test_an_upload_comes_whole_and_in_order(
    front: Front, upstream: Any, route_to: Any
) -> None:
    upstream.handle(lambda r: body(b"%d" % len(r.body)))
    serving = await front(route_to(upstream.url))
    async with serving.http2() as client:
        stream = client.open("/up", method="POST", end=False)
        content = bytes(range(256)) * 4096
        at = 0
        while at < len(content):
            room = min(client.h2.local_flow_control_window(stream), 16384, len(content) - at)
            if room:
                client.h2.send_data(stream, content[at : at + room])
                client.flush()
                at += room
            else:
                client.changed.clear()
                await client.changed.wait()
        client.h2.end_stream(stream)
        client.flush()
        await client.until(lambda: client.streams[stream].ended)
        assert client.streams[stream].body == b"%d" % len(content)
    assert upstream.requests[0].body == content


# -- floods (G6) ------------------------------------------------------------------------------


async def test_resets_are_budgeted_and_cost_few_connections(
    front: Front, upstream: Any, route_to: Any
) -> None:
    upstream.answer(silence())
    serving = await front(route_to(upstream.url))
    async with serving.http2() as client:
        for _ in range(2000):
            if client.gone is not None:
                break
            stream = client.h2.get_next_available_stream_id()
            fields = [(":method", "GET"), (":scheme", "https"), (":authority", "localhost")]
            client.h2.send_headers(stream, [*fields, (":path", "/")], end_stream=True)
            client.h2.reset_stream(stream)
            if stream % 20 == 1:
                client.flush()
                await asyncio.sleep(0.001)
        client.flush()
        await client.until(lambda: client.closed)
        assert client.gone == CALM
    assert upstream.connections <= 100
    async with asyncio.timeout(20):
        while serving.engine.active:
            await asyncio.sleep(0.01)
    assert {e.outcome for e in serving.logged} <= {"client_cancelled"}


async def test_a_client_that_comes_back_has_no_more_resets_than_before(
    front: Front, upstream: Any, route_to: Any
) -> None:
    """The full count is `bench/h2_abuse.py`."""
    upstream.answer(silence())
    serving = await front(route_to(upstream.url))
    sent = 0
    while sent < 500:
        async with serving.http2() as client:
            while client.gone is None and sent < 500:
                stream = client.open("/")
                await asyncio.sleep(0.001)  # the head is there before its reset
                if client.streams[stream].reset is None and client.gone is None:
                    client.h2.reset_stream(stream)
                    client.flush()
                sent += 1
    assert upstream.connections <= 130  # 100 and what 500 of them take time for


async def test_streams_that_a_client_has_us_reset_are_budgeted_too(
    front: Front, upstream: Any, route_to: Any
) -> None:
    """A window beyond its maximum makes the server reset the stream (CVE-2025-8671)."""
    upstream.answer(silence())
    serving = await front(route_to(upstream.url))
    too_much = 2**31 - 1
    async with serving.http2() as client:
        for _ in range(2000):
            if client.gone is not None:
                break
            stream = client.h2.get_next_available_stream_id()
            fields = [(":method", "GET"), (":scheme", "https"), (":authority", "localhost")]
            client.h2.send_headers(stream, [*fields, (":path", "/")], end_stream=True)
            client.flush()
            client.raw(frames.WindowUpdateFrame(stream, window_increment=too_much).serialize())
            if stream % 20 == 1:
                await asyncio.sleep(0.001)
        await client.until(lambda: client.closed)
        assert client.gone == CALM
    assert upstream.connections <= 200


async def test_a_frame_longer_than_allowed_is_refused_before_its_payload_comes(
    front: Front, upstream: Any, route_to: Any
) -> None:
    serving = await front(route_to(upstream.url))
    async with serving.http2() as client:
        client.raw(b"\xff\xff\xff\x00\x00\x00\x00\x00\x01")
        await client.until(lambda: client.closed)
        assert client.gone == int(ErrorCodes.FRAME_SIZE_ERROR)


async def test_a_reset_ends_its_exchange_at_once(
    front: Front, upstream: Any, route_to: Any
) -> None:
    upstream.answer(silence())
    serving = await front(route_to(upstream.url))
    async with serving.http2() as client:
        for _ in range(20):  # in one write: heads and their resets
            stream = client.h2.get_next_available_stream_id()
            fields = [(":method", "GET"), (":scheme", "https"), (":authority", "localhost")]
            client.h2.send_headers(stream, [*fields, (":path", "/")], end_stream=True)
            client.h2.reset_stream(stream)
        client.flush()
        await serving.last(20)
        assert serving.engine.active == 0
        await upstream.until(lambda: upstream.open == 0)


def ping() -> bytes:
    return frames.PingFrame(0, opaque_data=b"12345678").serialize()


FLOODS = {
    "PING": ping,
    "SETTINGS": lambda: frames.SettingsFrame(0, {4: 65535}).serialize(),
    "PRIORITY": lambda: frames.PriorityFrame(1, depends_on=3, stream_weight=1).serialize(),
    "empty DATA": lambda: frames.DataFrame(1, b"").serialize(),
    "WINDOW_UPDATE": lambda: frames.WindowUpdateFrame(0, window_increment=1).serialize(),
    "unknown": lambda: b"\x00\x00\x01\x50\x00\x00\x00\x00\x01x",
}


@pytest.mark.parametrize("kind", FLOODS)
async def test_a_flood_of_control_frames_ends_the_connection(
    front: Front, upstream: Any, route_to: Any, kind: str
) -> None:
    upstream.answer(silence())
    serving = await front(route_to(upstream.url))
    async with serving.http2() as client:
        client.open("/", method="POST", end=False)
        one = FLOODS[kind]()
        for _ in range(50):
            client.raw(one * 100)
        await client.until(lambda: client.closed)
        assert client.gone == CALM


async def test_a_client_that_acknowledges_every_piece_is_no_flood(
    front: Front, upstream: Any, route_to: Any
) -> None:
    upstream.answer(*body(b"x" * 8_000_000))
    serving = await front(route_to(upstream.url))
    async with serving.http2(auto=False) as client:
        stream = client.streams[client.open("/")]
        seen = 0
        async with asyncio.timeout(60):
            while not stream.ended:
                client.changed.clear()
                await client.changed.wait()
                size, seen = len(stream.body) - seen, len(stream.body)
                for piece in [16384] * (size // 16384) + [size % 16384] * bool(size % 16384):
                    client.h2.increment_flow_control_window(piece)
                    if not stream.ended:
                        client.h2.increment_flow_control_window(piece, 1)
                client.flush()
                assert not client.closed
        assert len(stream.body) == 8_000_000


async def test_a_stream_too_many_is_refused_and_the_others_go_on(
    front: Front, upstream: Any, route_to: Any
) -> None:
    gate = asyncio.Event()

    async def wait(_: Any) -> None:
        await gate.wait()

    upstream.answer(wait, *body(b"late"))
    serving = await front(route_to(upstream.url))
    async with serving.http2() as client:
        client.h2.remote_settings.max_concurrent_streams = 1000
        streams = [client.open(f"/{n}") for n in range(105)]
        refused = [client.streams[s] for s in streams[100:]]
        await client.until(lambda: all(s.reset is not None for s in refused))
        assert {s.reset for s in refused} == {int(ErrorCodes.REFUSED_STREAM)}
        gate.set()
        kept = [client.streams[s] for s in streams[:100]]
        await client.until(lambda: all(s.ended for s in kept))
        assert {s.body for s in kept} == {b"late"}
        assert (await client.get("/again")).body == b"late"


# -- heads ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "fields", "status", "code"),
    [
        ("/", [("x", "y" * 33 * 1024)], 431, "headers_too_large"),
        ("/", [(f"x-{n}", "y") for n in range(101)], 431, "headers_too_large"),
        ("/" + "p" * 9 * 1024, [], 414, "uri_too_long"),
        ("/a/../b", [], 400, "bad_request_target"),
    ],
)
async def test_heads_have_the_limits_that_they_have_on_http1(
    front: Front,
    upstream: Any,
    route_to: Any,
    path: str,
    fields: list[tuple[str, str]],
    status: int,
    code: str,
) -> None:
    serving = await front(route_to(upstream.url))
    async with serving.http2() as client:
        answer = await client.get(path, *fields)
        assert answer.status == status
        assert b'"%s"' % code.encode() in answer.body
        assert "x-request-id" in answer.fields
        assert (await client.get("/")).body == b"ok"  # the connection is as good as before
    assert len(upstream.requests) == 1


async def test_a_host_field_that_differs_from_the_authority_is_refused(
    front: Front, upstream: Any, route_to: Any
) -> None:
    serving = await front(route_to(upstream.url))
    async with serving.http2() as client:
        await client.get("/", ("host", "other.test"))
    assert upstream.requests == []


async def test_a_field_bomb_ends_the_connection(front: Front, upstream: Any, route_to: Any) -> None:
    serving = await front(route_to(upstream.url))
    async with serving.http2() as client:
        encoder = Encoder()
        first = encoder.encode([(":method", "GET"), (":scheme", "https"), (":path", "/"),
                                (":authority", "localhost"), ("bomb", "x" * 4000)])  # fmt: skip
        block = first + b"\xbe" * 12_000  # 12,000 times the same entry of the table
        client.raw(frames.HeadersFrame(1, block, flags=["END_HEADERS", "END_STREAM"]).serialize())
        await client.until(lambda: client.closed)
        assert client.gone == CALM
    assert upstream.requests == []


async def test_an_endless_field_block_ends_the_connection(
    front: Front, upstream: Any, route_to: Any
) -> None:
    serving = await front(route_to(upstream.url))
    async with serving.http2() as client:
        client.raw(frames.HeadersFrame(1, b"\x82").serialize())
        for _ in range(40):
            client.raw(frames.ContinuationFrame(1, b"x" * 4000).serialize())
        await client.until(lambda: client.closed)
        assert client.gone == CALM


async def test_a_field_block_that_is_not_finished_in_time_ends_the_connection(
    front: Front, upstream: Any, route_to: Any
) -> None:
    serving = await front(route_to(upstream.url), gateway='deadlines = { head = "500ms" }')
    async with serving.http2() as client:
        client.raw(frames.HeadersFrame(1, b"\x82").serialize())
        await client.until(lambda: client.closed)


async def test_cookies_are_one_field_upstream(front: Front, upstream: Any, route_to: Any) -> None:
    serving = await front(route_to(upstream.url))
    async with serving.http2() as client:
        assert (await client.get("/", ("cookie", "a=1"), ("cookie", "b=2"))).body == b"ok"
    assert upstream.requests[0].values("cookie") == ["a=1; b=2"]


async def test_an_early_answer_to_an_upload_comes_whole(
    front: Front, upstream: Any, route_to: Any
) -> None:
    """It is larger than the client's window: the reset must wait until it is out."""

    class Refuse(Plugin):
        @hook
        def authorize(self, exchange: Exchange) -> Any:
            from mitmproxy import http

            return http.Response.make(200, b"n" * 300_000)

    serving = await front(Refuse, route_to(upstream.url))
    async with serving.http2() as client:
        stream = client.streams[client.open("/", method="POST", end=False)]
        await client.until(lambda: stream.reset is not None)
        assert (len(stream.body), stream.ended) == (300_000, True)
        assert stream.reset == int(ErrorCodes.NO_ERROR)


# -- life (G8) --------------------------------------------------------------------------------


async def test_after_its_requests_a_connection_is_asked_to_leave(
    front: Front, upstream: Any, route_to: Any
) -> None:
    serving = await front(route_to(upstream.url), gateway="limits = { requests = 5 }")
    async with serving.http2() as client:
        for _ in range(5):
            assert (await client.get("/")).body == b"ok"
        await client.until(lambda: client.closed)
        assert client.gone == int(ErrorCodes.NO_ERROR)
    assert len(upstream.requests) == 5


async def test_a_drain_asks_to_leave_and_lets_streams_end(
    front: Front, upstream: Any, route_to: Any
) -> None:
    gate = asyncio.Event()

    async def wait(_: Any) -> None:
        await gate.wait()

    upstream.answer(
        head(200, {"transfer-encoding": "chunked"}), chunk(b"one"), wait, chunk(b"two"), chunk(b"")
    )
    serving = await front(route_to(upstream.url))
    async with serving.http2() as client:
        stream = client.streams[client.open("/")]
        await client.until(lambda: stream.body == b"one")
        draining = asyncio.ensure_future(serving.engine.drain(20))
        await asyncio.sleep(0.1)
        gate.set()
        await client.until(lambda: stream.ended)
        assert stream.body == b"onetwo"
        await draining


async def test_many_exchanges_on_one_connection_leave_nothing_behind(
    front: Front, upstream: Any, route_to: Any
) -> None:
    """mitmproxy keeps 3 to 5 KiB of each: 33 to 54 MiB per 10,000."""
    serving = await front(route_to(upstream.url), gateway="limits = { requests = 100_000 }")
    async with serving.http2() as client:

        async def some(count: int) -> None:
            for _ in range(count):
                stream = client.open("/")
                await client.until(lambda s=client.streams[stream]: s.ended)
                del client.streams[stream]
                client.events.clear()
            serving.logged.clear()

        await some(300)
        gc.collect()
        handler = serving.engine._master.handlers[0]
        before = len(gc.get_objects())
        await some(600)
        gc.collect()
        grown = len(gc.get_objects()) - before
        assert grown < 900  # h2 keeps one of each closed stream, up to a limit
        layer = handler.layer
        assert len(layer.streams) == 0
        assert len(layer.connections) <= 2
        assert len(handler.http2.streams) == len(handler.http2.calls) == 0
