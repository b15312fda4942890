"""What shadow mode costs beside the addon's own time.

Target: at most twice the addon's own time, plus 5 µs. `own` runs the hook as it is, `shadow` the
same hook in shadow mode; the addon changes a field, so that there is something to record.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from tidegate.api import AddonConfig, AddonContext, Body, Denial, Plugin, hook
from tidegate.api.exchange import Exchange
from tidegate.api.types import Client, SseEvent
from tidegate.runtime.addon import Addon
from tidegate.runtime.messages import make_request, make_response
from tidegate.runtime.step import SafeSink

FORBIDDEN = Denial(403, "forbidden", "No.")
FIELDS = (
    (b"host", b"api.test"),
    (b"user-agent", b"bench/1"),
    (b"accept", b"*/*"),
    (b"content-type", b"application/json"),
    (b"authorization", b"Bearer tg_0123456789"),
    (b"x-trace", b"00-1234"),
    (b"accept-encoding", b"identity"),
    (b"cookie", b"a=b"),
)


class Whole(Plugin):
    """A response transform that needs bodies: in shadow mode it sees a copy at the end."""

    @hook(needs=Body(response=True))
    def transform_response(self, exchange: Exchange) -> None:
        assert exchange.response is not None
        exchange.response.headers.fields += ((b"x-size", b"%d" % len(exchange.response.content)),)


class Addons(Plugin):
    """A hook that does nothing, one that denies, and one that changes a field, for each side."""

    @hook
    def authorize(self, exchange: Exchange) -> None:
        pass

    @hook
    def route(self, exchange: Exchange) -> Denial:
        return FORBIDDEN

    @hook
    def transform_request(self, exchange: Exchange) -> None:
        exchange.request.headers.fields += ((b"x-team", b"blue"),)

    @hook
    def transform_response(self, exchange: Exchange) -> None:
        assert exchange.response is not None
        exchange.response.headers.fields += ((b"x-served-by", b"tidegate"),)

    @hook
    def transform_event(self, exchange: Exchange, event: SseEvent) -> None:
        event.data += "!"


HOOKS = (
    *("authorize", "route", "transform_request", "transform_response", "transform_event"),
    "whole_response",
)
ROUND = 200


def call_of(shadow: bool, name: str) -> Callable[..., Any]:
    """The bare hook, or what shadow mode made of it."""
    context = AddonContext("bench", Path())
    whole = name == "whole_response"
    plugin = Whole(AddonConfig(), context) if whole else Addons(AddonConfig(), context)
    name = "transform_response" if whole else name
    if not shadow:
        return getattr(plugin, name)  # type: ignore[no-any-return]
    step = Addon("bench", "bench", plugin, mode="shadow", gather=1_000_000).steps[name]
    if not whole:
        return step.call

    def passes(exchange: Exchange) -> None:
        SafeSink(step.call(exchange), step, exchange)  # the body is there: it closes at once

    return passes


def exchange_at(name: str) -> Exchange:
    request = make_request(
        b"POST", b"http", b"api.test", "api.test", 80, b"/v1/x", FIELDS, b"{}", 0.0
    )
    exchange = Exchange("id", request, Client("127.0.0.1", 1, "127.0.0.1"), host="api.test")
    if name in ("transform_response", "transform_event", "whole_response"):
        exchange.response = make_response(200, b"OK", FIELDS[2:4], b"{}", 0.0)
    return exchange


def calls(shadow: bool, name: str) -> Callable[[], None]:
    """`ROUND` calls of one hook, each as if it were the first of an exchange."""
    call, exchange, event = call_of(shadow, name), exchange_at(name), SseEvent("data")
    arguments: tuple[Any, ...] = (exchange, event) if name == "transform_event" else (exchange,)
    request, response = exchange.request.headers, exchange.response and exchange.response.headers
    before = request.fields, response and response.fields

    def run() -> None:
        for _ in range(ROUND):
            call(*arguments)
            exchange.shadows.clear()
            request.fields = before[0]
            if response:
                response.fields = before[1]
            event.data = "data"

    return run


@pytest.mark.parametrize("shadow", [False, True], ids=["own", "shadow"])
@pytest.mark.parametrize("name", HOOKS)
def test_a_hook(benchmark: BenchmarkFixture, name: str, shadow: bool) -> None:
    benchmark.group = f"{name}, {ROUND} calls"
    benchmark.pedantic(calls(shadow, name), rounds=50, warmup_rounds=3)


@pytest.mark.parametrize("name", HOOKS)
def test_shadow_costs_at_most_twice_the_addon_and_5_us(
    name: str, request: pytest.FixtureRequest
) -> None:
    own, shadow = calls(False, name), calls(True, name)
    times: dict[Callable[[], None], list[float]] = {own: [], shadow: []}
    for _ in range(40):  # in turns: the machine's other work falls on both
        for run, measured in times.items():
            began = time.perf_counter()
            run()
            measured.append((time.perf_counter() - began) / ROUND * 1e6)
    alone, shadowed = median(times[own]), median(times[shadow])
    print(f"\n{name}: {alone:.2f} µs alone, {shadowed:.2f} µs in shadow")
    if request.config.getoption("benchmark_enable"):
        assert shadowed <= 2 * alone + 5
