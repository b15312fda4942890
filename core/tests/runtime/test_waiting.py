"""What a cache may do: wait in a plain hook, stand in for an upstream, renew beside an exchange."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from mitmproxy import http

from tidegate.api import Denial, Plugin, hook, upstream_from_url
from tidegate.api.errors import NO_ROUTE, UPSTREAM_TIMEOUT
from tidegate.runtime.drive import drive, run_until_wait
from tidegate.testing import Harness, Use, make_exchange


def asking():
    """An exchange that has an upstream already."""
    exchange = make_exchange()
    exchange.upstream = upstream_from_url("http://upstream.test")
    return exchange


def stored() -> http.Response:
    return http.Response.make(200, b"stored")


class Waiting(Plugin):
    """Waits for `gate` in a plain `cache_lookup`, where there is one."""

    gate: asyncio.Future[http.Response] | None = None

    @hook
    def cache_lookup(self, exchange):
        return None if self.gate is None else self._wait()

    async def _wait(self):
        return await self.gate


async def running(harness, exchange):
    """The request phases of an exchange, as a carrier drives them in a task."""
    pipeline = harness.runtime.begin("gateway", exchange.host, exchange.path, "GET")
    try:
        return await drive(pipeline.request(exchange), pipeline, exchange, 5.0)
    finally:
        pipeline.finish(exchange)


async def test_a_plain_hook_that_need_not_wait_needs_no_task():
    async with Harness(Waiting) as harness:
        exchange = asking()
        pipeline = harness.runtime.begin("gateway", exchange.host, exchange.path, "GET")
        assert not pipeline.suspends
        passed, rest = run_until_wait(pipeline.request(exchange))
        assert (passed, rest) == (True, None)
        pipeline.finish(exchange)


async def test_a_plain_hook_may_wait_and_answer():
    async with Harness(Waiting) as harness:
        harness.plugin("Waiting").gate = gate = asyncio.get_running_loop().create_future()
        exchange = asking()
        task = asyncio.create_task(running(harness, exchange))
        await asyncio.sleep(0.01)
        assert not task.done()
        gate.set_result(stored())
        assert await task is False
        assert exchange.from_cache
        assert exchange.response.content == b"stored"


async def test_who_leaves_while_a_hook_waits_is_cancelled():
    async with Harness(Waiting) as harness:
        harness.plugin("Waiting").gate = asyncio.get_running_loop().create_future()
        exchange = asking()
        task = asyncio.create_task(running(harness, exchange))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert exchange.response is None


async def test_what_a_hook_waited_for_may_fail_and_counts_as_a_miss():
    async with Harness(Waiting) as harness:
        harness.plugin("Waiting").gate = gate = asyncio.get_running_loop().create_future()
        exchange = asking()
        task = asyncio.create_task(running(harness, exchange))
        await asyncio.sleep(0.01)
        gate.set_exception(RuntimeError("lost"))
        assert await task is True
        assert exchange.response is None


@pytest.mark.parametrize(
    ("error", "fallback", "answered"),
    [
        (UPSTREAM_TIMEOUT, lambda exchange, denial: stored(), True),
        (UPSTREAM_TIMEOUT, lambda exchange, denial: None, False),
        (UPSTREAM_TIMEOUT, lambda exchange, denial: 1 / 0, False),
        (UPSTREAM_TIMEOUT, lambda exchange, denial: SimpleNamespace(), False),
        (UPSTREAM_TIMEOUT, None, False),
        (NO_ROUTE, lambda exchange, denial: stored(), False),
    ],
)
async def test_when_a_cache_stands_in_for_an_upstream(error, fallback, answered):
    async with Harness(Waiting) as harness:
        exchange = asking()
        exchange.fallback = fallback
        pipeline = harness.runtime.begin("gateway", exchange.host, exchange.path, "GET")
        exchange.denial = error.denial()
        assert pipeline.stand_in(exchange, error.denial()) is answered
        assert (exchange.denial is None) is answered
        assert exchange.from_cache is answered
        assert not pipeline.stand_in(exchange, error.denial())  # once
        pipeline.finish(exchange)


async def test_a_plain_log_hook_may_wait_and_only_its_exchange_waits_with_it():
    gates = {"/slow": asyncio.Event()}
    written = []

    class Counting(Plugin):
        @hook
        def log(self, exchange):
            gate = gates.get(exchange.path)
            return None if gate is None else self._count(exchange, gate)

        async def _count(self, exchange, gate):
            await gate.wait()
            exchange.notes["counted"] = True

    class Writing(Plugin):
        @hook
        def log(self, exchange):
            written.append((exchange.path, exchange.notes.get("counted")))

    async with Harness(Counting, Writing) as harness:
        await harness.start(make_exchange("GET", "http://api.test/slow"))
        await harness.start(make_exchange("GET", "http://api.test/fast"))
        while not written:
            await asyncio.sleep(0)
        assert written == [("/fast", None)]
        assert harness.runtime.logs.busy
        gates["/slow"].set()
        await harness.runtime.flush()
        assert written == [("/fast", None), ("/slow", True)]


class Limiting(Plugin):
    """Waits for a share of a limit in a plain `authorize`, where it has none."""

    gate: asyncio.Future[Denial | None] | None = None

    @hook
    def authorize(self, exchange):
        return None if self.gate is None else self._wait()

    async def _wait(self):
        return await self.gate


@pytest.mark.parametrize("mode", ["enforce", "shadow"])
async def test_a_plain_gate_may_wait_and_deny(mode):
    async with Harness(Use(Limiting, mode=mode)) as harness:
        harness.plugin("Limiting").gate = gate = asyncio.get_running_loop().create_future()
        exchange = asking()
        task = asyncio.create_task(running(harness, exchange))
        await asyncio.sleep(0.01)
        assert not task.done()
        gate.set_result(Denial(429, "no_more", "No more."))
        assert await task is (mode == "shadow")
        assert [s.decision for s in exchange.shadows] == (["deny"] if mode == "shadow" else [])
