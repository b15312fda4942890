"""Upstream connections: reuse, limits, stale ones, retries, addresses that are forbidden; the
lane's own limits, its drain, and connections that are handed over."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tidegate.api import Exchange, Plugin, Upstream, hook, upstream_from_url
from tidegate.api.balance import Failover, Retry
from tidegate.lane import Handover
from tidegate.runtime.dial import is_public
from tidegate.testing import ScriptedUpstream
from tidegate.testing.script import body, close, json, reset, silence, sleep, sse

from .conftest import Serve


async def test_clients_share_upstream_connections(serve: Serve, upstream: ScriptedUpstream) -> None:
    running = await serve(upstream_from_url(upstream.url))
    for _ in range(5):
        peer = await running.connect()
        assert (await peer.get()).status == 200
        peer.close()
    assert upstream.connections == 1


async def test_more_than_the_limit_waits_its_turn(serve: Serve, upstream: ScriptedUpstream) -> None:
    upstream.answer(sleep(0.05), *body(b"ok"))
    running = await serve(upstream_from_url(upstream.url, max_connections=2))
    peers = [await running.connect() for _ in range(6)]
    answers = await asyncio.gather(*(peer.get() for peer in peers))
    assert [answer.status for answer in answers] == [200] * 6
    assert upstream.connections == 2


async def test_who_waits_too_long_is_told_that_the_upstream_is_busy(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    from tidegate.api import Timeouts

    upstream.answer(silence())
    running = await serve(
        upstream_from_url(upstream.url, max_connections=1, timeouts=Timeouts(connect=0.1))
    )
    first, second = await running.connect(), await running.connect()
    await first.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await upstream.until(lambda: len(upstream.requests) == 1)
    answer = await second.get()
    assert (answer.status, answer.code) == (503, "upstream_busy")
    assert answer["retry-after"]


@pytest.mark.parametrize("end", [close(), reset()])
async def test_a_connection_that_closes_as_it_is_reused_costs_nothing(
    serve: Serve, upstream: ScriptedUpstream, end: Any
) -> None:
    def script(request: Any) -> tuple:
        used = sum(r.connection == request.connection for r in upstream.requests) > 1
        return (end,) if used else body(request.body)

    upstream.handle(script)
    running = await serve(upstream_from_url(upstream.url))
    peer = await running.connect()
    assert (await peer.post(b"one")).body == b"one"
    assert (await peer.post(b"two")).body == b"two"
    exchange = (await running.ended(2))[1]
    assert [(a.error, a.reused) for a in exchange.attempts] == [("", False)]


async def test_a_fresh_connection_that_closes_is_not_tried_again_for_a_post(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    upstream.answers((close(),), body(b"never"))
    running = await serve(Retry(upstream_from_url(upstream.url), retries=2))
    answer = await (await running.connect()).post(b"x")
    assert (answer.status, answer.code) == (502, "upstream_unreachable")
    assert len(upstream.requests) == 1


async def test_a_get_is_tried_again(serve: Serve, upstream: ScriptedUpstream) -> None:
    upstream.answers((close(),), (close(),), body(b"third"))
    running = await serve(Retry(upstream_from_url(upstream.url), retries=2))
    assert (await (await running.connect()).get()).body == b"third"
    exchange = (await running.ended())[0]
    assert [a.error for a in exchange.attempts] == ["upstream_unreachable"] * 2 + [""]


async def test_a_chain_goes_on_to_the_next_upstream_with_the_body(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    upstream.handle(lambda request: body(request.body))
    dead = upstream_from_url("http://127.0.0.1:9")
    running = await serve(Failover([dead, upstream_from_url(upstream.url)]))
    peer = await running.connect()
    assert (await peer.post(b"hello")).body == b"hello"
    await peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc")
    await asyncio.sleep(0.1)
    await peer.send(b"def")
    assert (await peer.answer()).body == b"abcdef"


class Upper:
    """A codec that shouts both ways."""

    def encode(self, exchange: Exchange, request: Any) -> Any:
        request.content = request.content.upper()
        return request

    def decode(self, exchange: Exchange, response: Any) -> Any:
        response.content = response.content.lower() + b"!"
        return response

    def decode_event(self, exchange: Exchange, event: Any) -> Any:
        event.data = event.data.lower()

    def decode_end(self, exchange: Exchange) -> Any:
        return None


async def test_a_codec_is_applied_to_each_attempt(serve: Serve, upstream: ScriptedUpstream) -> None:
    upstream.handle(lambda request: body(request.body))
    dead = upstream_from_url("http://127.0.0.1:9", codec=Upper())
    live = upstream_from_url(upstream.url, codec=Upper())
    running = await serve(Failover([dead, live]))
    peer = await running.connect()
    assert (await peer.post(b"Hello")).body == b"hello!"
    assert upstream.requests[0].body == b"HELLO"
    upstream.answer(*sse("ONE"))
    assert (await peer.post(b"x")).body == b"data: one\n\ndata: [done]\n\n"


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "169.254.169.254", "::ffff:169.254.169.254", "2130706433"]
)
async def test_an_upstream_that_nobody_vouches_for_may_not_be_here(
    serve: Serve, upstream: ScriptedUpstream, host: str
) -> None:
    running = await serve(Upstream("tenant", "http", host, upstream.port, trusted=False))
    answer = await (await running.connect()).get()
    assert (answer.status, answer.code) == (403, "upstream_address_forbidden")
    assert upstream.connections == 0


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("10.0.0.1", False),
        ("100.64.0.1", False),
        ("127.0.0.1", False),
        ("0.0.0.0", False),
        ("169.254.169.254", False),
        ("192.168.1.1", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fd00:ec2::254", False),
        ("fe80::1%eth0", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::a9fe:a9fe", False),
        ("2002:a9fe:a9fe::1", False),
    ],
)
def test_which_addresses_are_public(address: str, public: bool) -> None:
    assert is_public(address) is public


async def test_connections_over_the_limit_are_told_so(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    running = await serve(upstream_from_url(upstream.url), gateway={"limits": {"connections": 2}})
    peers = [await running.connect() for _ in range(2)]
    assert [(await peer.get()).status for peer in peers] == [200, 200]
    late = await running.connect()
    answer = await late.answer()
    assert (answer.status, answer.code) == (503, "overloaded")
    assert answer["retry-after"]
    assert await late.closed() == b""
    peers[0].close()
    late.close()
    await asyncio.sleep(0.1)
    assert (await (await running.connect()).get()).status == 200


async def test_a_loop_that_lags_sheds_new_requests(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    running = await serve(upstream_from_url(upstream.url))
    peer = await running.connect()
    assert (await peer.get()).status == 200
    running.lane.shedding = True
    answer = await peer.get()
    assert (answer.status, answer.code) == (503, "overloaded")
    running.lane.shedding = False
    assert (await peer.get()).status == 200


async def test_a_drain_finishes_what_is_in_progress_and_cuts_the_rest(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    upstream.handle(
        lambda request: (
            (*sse("1", pause=0.1)[:-1], silence())
            if request.target == "/endless"
            else (sleep(0.3), *json({}))
        )
    )
    running = await serve(upstream_from_url(upstream.url))
    idle, short, endless = [await running.connect() for _ in range(3)]
    await short.send(b"GET /short HTTP/1.1\r\nHost: a\r\n\r\n")
    await endless.send(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n")
    await upstream.until(lambda: len(upstream.requests) == 2)
    drain = asyncio.ensure_future(running.lane.drain(1.0))
    assert await idle.closed() == b""
    answer = await short.answer()
    assert (answer.status, answer["connection"]) == (200, "close")
    stream = await endless.closed()
    await drain
    assert b"data: 1" in stream
    assert b"server_draining" in stream
    assert running.lane.active == 0
    assert running.lane.clients == set()


class Note(Plugin):
    """Fails the test if a hook sees an upgrade."""

    @hook
    def authorize(self, exchange: Exchange) -> None:
        raise AssertionError


async def test_a_websocket_is_handed_over_before_any_hook(serve: Serve) -> None:
    taken: list[Handover] = []

    class Echo(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None: ...

    def take(handover: Handover) -> None:
        taken.append(handover)
        handover.transport.set_protocol(Echo())
        handover.transport.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")

    running = await serve(None, Note, handover=take)
    peer = await running.connect()
    await peer.send(
        b"GET /ws HTTP/1.1\r\nHost: api.test\r\nConnection: keep-alive, Upgrade\r\n"
        b"Upgrade: websocket\r\nSec-WebSocket-Key: eHh4eHh4eHh4eHh4eHh4eA==\r\n"
        b"Sec-WebSocket-Version: 13\r\n\r\n\x81\x00"
    )
    assert await peer.line() == "HTTP/1.1 101 Switching Protocols"
    assert taken[0].data.startswith(b"GET /ws HTTP/1.1\r\nHost: api.test\r\n")
    assert taken[0].data.endswith(b"connection: upgrade\r\n\r\n\x81\x00")
    assert running.lane.clients == set()
    taken[0].transport.abort()


async def test_new_settings_are_taken_without_a_restart(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    running = await serve(upstream_from_url(upstream.url))
    peer = await running.connect()
    assert (await peer.post(b"x" * 2000)).status == 200
    settings = running.lane.settings
    limits = settings.gateway.limits.model_copy(update={"body": 1000})
    gateway = settings.gateway.model_copy(update={"limits": limits})
    from dataclasses import replace

    running.lane.reconfigure(replace(settings, gateway=gateway))
    assert (await peer.post(b"x" * 2000)).code == "body_too_large"


class Broken(Upstream):
    """Raises where it may not."""

    def pick(self, exchange: Exchange, tried: Any) -> Upstream | None:
        if exchange.path == "/pick" or tried:
            raise RuntimeError("pick")
        return super().pick(exchange, tried)

    def ended(self, exchange: Exchange, attempt: Any) -> None:
        raise RuntimeError("ended")


async def test_an_upstream_object_that_raises_costs_its_own_exchange_only(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    running = await serve(Broken("broken", "http", "127.0.0.1", upstream.port))
    peer = await running.connect()
    answer = await peer.get("/pick")
    assert (answer.status, answer.code) == (500, "internal_error")
    assert (await peer.get("/")).body == b"ok"
    upstream.answer(close())
    assert (await (await running.connect()).get("/")).code == "internal_error"
    assert running.lane.active == 0
