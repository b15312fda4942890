"""Hooks that block the loop or hang: interrupted, named, counted; the process lives."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from tidegate.api import Exchange
from tidegate.runtime.drive import drive
from tidegate.runtime.faults import TRIPS
from tidegate.runtime.guard import watch
from tidegate.testing import Harness, Use, make_exchange
from tidegate.testing.faults import (
    FAULTS,
    block_plugin,
    crash_plugin,
    hang_plugin,
    pass_plugin,
    plugin_with,
)

uvloop = pytest.importorskip("uvloop")


@pytest.fixture
def watchdog() -> Iterator[None]:
    watch.start()
    yield
    watch.stop()


@pytest.mark.usefixtures("watchdog")
@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("how", ["sleep", "loop", "regex"])
@pytest.mark.parametrize(("name", "status"), [("authorize", 503), ("transform_response", 502)])
def test_a_blocking_hook_is_interrupted_under_uvloop(name, status, how, is_async, caplog):
    async def main() -> tuple[Exchange, Exchange, dict[str, int], float]:
        block = Use(
            block_plugin(name, how, 30.0, is_async=is_async),
            name="blocks",
            scope={"paths": ["/block"]},
        )
        async with Harness(block) as harness:
            before = time.monotonic()
            blocked = await harness.send(make_exchange(url="http://api.test/block"))
            took = time.monotonic() - before
            after = await harness.send(make_exchange(url="http://api.test/fine"))
            return blocked, after, harness.counters("blocks"), took

    blocked, after, counters, took = uvloop.run(main())
    assert took < 5.0
    assert (blocked.denial.status, blocked.denial.code) == (status, "plugin_timeout")
    assert blocked.failed_addon == "blocks"
    assert after.outcome == "answered"
    assert counters["hook_timeouts_total"] == 1
    assert f"addon blocks blocked the loop in {name}" in caplog.text
    assert "faults.py" in caplog.text


@pytest.mark.usefixtures("watchdog")
@pytest.mark.parametrize("name", ["transform_event", "cache_store", "log", "cache_lookup"])
async def test_blocking_observers_and_events_are_interrupted_too(name):
    from tidegate.testing import make_answer

    answer = make_answer(200, b"data: 1\n\n", {"content-type": "text/event-stream"})
    async with Harness(block_plugin(name, "sleep", 30.0), answer=answer) as harness:
        before = time.monotonic()
        exchange = await harness.send(make_exchange())
        assert time.monotonic() - before < 5.0
        assert harness.counters()["hook_timeouts_total"] == 1
        assert exchange.denial is None or exchange.denial.code == "plugin_timeout"


@pytest.mark.usefixtures("watchdog")
async def test_an_ending_that_blocks_is_interrupted():
    plugin = plugin_with("authorize", lambda _, e: e.at_end(lambda _: time.sleep(30.0)))
    async with Harness(plugin) as harness:
        before = time.monotonic()
        assert (await harness.send(make_exchange())).outcome == "answered"
        assert time.monotonic() - before < 5.0


@pytest.mark.usefixtures("watchdog")
async def test_code_outside_of_hooks_is_never_interrupted():
    async with Harness(pass_plugin("authorize")) as harness:
        await harness.send(make_exchange())
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            pass


@pytest.mark.usefixtures("watchdog")
async def test_after_five_timeouts_the_hook_is_no_longer_called(monkeypatch):
    monkeypatch.setattr("tidegate.runtime.faults.OPEN", 0.3)
    async with Harness(block_plugin("authorize", "sleep", 30.0)) as harness:
        for _ in range(TRIPS):
            await harness.send(make_exchange())
        exchange = await harness.send(make_exchange())
        assert exchange.denial.code == "plugin_timeout"
        counters = harness.counters()
        assert counters["breaker_opened_total"] == 1
        assert counters[FAULTS] == TRIPS
        await asyncio.sleep(0.4)
        await harness.send(make_exchange())
        assert harness.counters()[FAULTS] == TRIPS + 1


async def test_failures_that_are_no_timeouts_open_no_breaker():
    async with Harness(crash_plugin("authorize")) as harness:
        for _ in range(TRIPS + 2):
            await harness.send(make_exchange())
        assert harness.counters()[FAULTS] == TRIPS + 2
        assert "breaker_opened_total" not in harness.counters()


# -- the deadline -----------------------------------------------------------------------------


async def driven(harness: Harness, exchange: Exchange, seconds: float = 0.1) -> bool:
    """The request phases of an exchange, as a carrier drives them."""
    pipeline = harness.runtime.begin("gateway", exchange.host, exchange.path, "GET")
    try:
        return await drive(pipeline.request(exchange), pipeline, exchange, seconds)
    finally:
        pipeline.finish(exchange)


@pytest.mark.parametrize(("name", "status"), [("authorize", 503), ("transform_request", 502)])
async def test_an_async_hook_that_hangs_ends_with_the_deadline(name, status):
    async with Harness(hang_plugin(name)) as harness:
        exchange = make_exchange()
        assert not await driven(harness, exchange)
        assert (exchange.denial.status, exchange.denial.code) == (status, "plugin_timeout")
        assert harness.counters()["hook_timeouts_total"] == 1
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()


async def test_a_hook_that_swallows_its_cancellation_is_cancelled_again(monkeypatch):
    monkeypatch.setattr("tidegate.runtime.drive.AGAIN", 0.1)
    async with Harness(hang_plugin("authorize", stubborn=True)) as harness:
        exchange = make_exchange()
        assert not await driven(harness, exchange)
        assert exchange.denial.code == "plugin_timeout"
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()


async def test_a_hook_that_swallows_its_cancellation_and_returns_leaves_no_trace():
    async def act(*_):
        try:
            await asyncio.sleep(30.0)
        except asyncio.CancelledError:
            return

    plugin = plugin_with("authorize", act, is_async=True)
    async with Harness(plugin) as harness:
        exchange = make_exchange()
        exchange.upstream = harness._route
        assert await driven(harness, exchange)
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()
        assert not exchange.expired


async def test_a_hang_that_may_be_skipped_is_passed_over():
    hang = Use(hang_plugin("authorize"), name="hangs", on_error="skip")
    async with Harness(hang) as harness:
        exchange = make_exchange()
        exchange.upstream = harness._route
        assert await driven(harness, exchange)
        assert harness.counters("hangs")["hook_timeouts_total"] == 1


async def test_a_client_that_goes_away_cancels_the_hook_and_it_is_no_fault_of_the_addon():
    async with Harness(hang_plugin("authorize")) as harness:
        exchange = make_exchange()
        task = asyncio.create_task(driven(harness, exchange, seconds=30.0))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert exchange.failed_addon == ""
        assert "hook_timeouts_total" not in harness.counters()


async def test_a_pipeline_coroutine_can_be_closed_while_a_hook_waits():
    async with Harness(hang_plugin("authorize"), hang_plugin("transform_request")) as harness:
        exchange = make_exchange()
        pipeline = harness.runtime.begin("gateway", "api.test", "/", "GET")
        coro = pipeline.request(exchange)
        coro.send(None)
        coro.close()
        assert exchange.failed_addon == ""
        pipeline.finish(exchange, "client_cancelled")


async def test_the_deadline_is_gone_when_the_hooks_are_done():
    async with Harness(plugin_with("authorize", lambda *_: None, is_async=True)) as harness:
        exchange = make_exchange()
        exchange.upstream = harness._route
        assert await driven(harness, exchange, seconds=0.05)
        await asyncio.sleep(0.15)
        assert not exchange.expired
