"""The addon on exchanges: whose limit, what a caller is told, reloads."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tidegate_limit_rate import LimitRate, LimitRateConfig

from tidegate.api import AddonContext, Client, Principal
from tidegate.testing import Clock, Harness, Use, make_exchange
from tidegate.testing.contracts import AuthorizeContract, PluginContract, TransformContract


class TestContract(PluginContract, AuthorizeContract, TransformContract):
    name = "limit-rate"

    def options(self):
        return {"rate": "2/hour"}

    def denied(self):
        return [make_exchange() for _ in range(3)]


def use(**options: Any) -> Use:
    return Use(LimitRate, {"rate": "3/min", **options}, name="limit-rate")


async def statuses(harness: Harness, clock: Clock, *callers: Principal | str | None) -> list[int]:
    out = []
    for caller in callers:
        address = caller if isinstance(caller, str) else "192.0.2.1"
        principal = caller if isinstance(caller, Principal) else None
        client = Client(address, 1, address)
        exchange = make_exchange(client=client, principal=principal, clock=clock)
        await harness.send(exchange)
        assert exchange.response is not None
        out.append(exchange.response.status_code)
    return out


ADA, BOB = Principal("ada", "red"), Principal("bob", "red")


@pytest.mark.parametrize(
    ("per", "callers", "denied"),
    [
        ("principal", [ADA, BOB], False),
        ("principal", ["192.0.2.1", "192.0.2.2"], False),
        ("principal", [Principal("192.0.2.1"), "192.0.2.1"], False),
        ("address", [ADA, BOB], True),
        ("address", ["2001:db8::1", "2001:db8:0:0:ffff::2"], True),
        ("address", ["2001:db8::1", "2001:db8:0:1::1"], False),
        ("address", ["192.0.2.1", "::ffff:192.0.2.1"], True),
        ("team", [ADA, BOB], True),
        ("team", [ADA, Principal("red")], False),
        ("team", [ADA, Principal("ada", "blue")], False),
        ("gateway", [ADA, "192.0.2.9"], True),
    ],
)
async def test_a_limit_is_that_of_whom_it_says(clock, per, callers, denied):
    async with Harness(use(rate="1/min", per=per)) as harness:
        assert await statuses(harness, clock, *callers) == [200, 429 if denied else 200]


async def test_a_limit_of_models_is_for_calls_to_them(clock):
    async with Harness(use(rate="1/min", per="model")) as harness:
        seen = []
        for model in ("gpt-4o", "gpt-4o", "claude", None, None):
            path = "/v1/chat/completions" if model else "/files"
            body = {"model": model, "messages": []}
            exchange = make_exchange("POST", f"http://api.test{path}", body=body, clock=clock)
            seen.append((await harness.send(exchange)).response.status_code)
        assert seen == [200, 429, 200, 200, 200]


async def test_a_denial_says_when_to_come_again_and_that_is_true(clock):
    async with Harness(use(rate="1/min")) as harness:
        await harness.send(make_exchange(clock=clock))
        clock.advance(12.5)
        denied = await harness.send(make_exchange(clock=clock))
        assert denied.denial is not None
        assert denied.denial.code == "rate_limited"
        assert denied.response is not None
        assert denied.response.headers["retry-after"] == "48"
        assert denied.response.headers["ratelimit"] == '"limit-rate";r=0;t=48'
        assert denied.response.headers["ratelimit-policy"] == '"limit-rate";q=1;w=60'
        clock.advance(47.4)
        assert await statuses(harness, clock, None) == [429]
        clock.advance(0.2)
        assert await statuses(harness, clock, None) == [200]


async def test_answers_say_what_is_left(clock):
    async with Harness(use(burst=2)) as harness:
        seen = []
        for _ in range(2):
            exchange = await harness.send(make_exchange(clock=clock))
            assert exchange.response is not None
            assert exchange.response.headers["ratelimit-policy"] == '"limit-rate";q=2;w=40'
            seen.append(exchange.response.headers["ratelimit"])
        assert seen == ['"limit-rate";r=1;t=20', '"limit-rate";r=0;t=40']


async def test_without_headers_only_denials_speak(clock):
    async with Harness(use(rate="1/min", headers=False)) as harness:
        passed = await harness.send(make_exchange(clock=clock))
        denied = await harness.send(make_exchange(clock=clock))
        assert passed.response is not None
        assert "ratelimit" not in passed.response.headers
        assert denied.response is not None
        assert "ratelimit" in denied.response.headers


async def test_two_limits_stand_side_by_side(clock):
    both = [Use(LimitRate, {"rate": f"{n}/min"}, name=f"l{n}") for n in (5, 3)]
    async with Harness(*both) as harness:
        exchange = await harness.send(make_exchange(clock=clock))
        assert exchange.response is not None
        fields = exchange.response.headers.get_all("ratelimit")
        assert sorted(fields) == ['"l3";r=2;t=20', '"l5";r=4;t=12']
        assert await statuses(harness, clock, None, None, None) == [200, 200, 429]


async def test_a_step_of_the_wall_clock_changes_nothing(clock):
    async with Harness(use()) as harness:
        assert await statuses(harness, clock, None, None, None, None) == [200, 200, 200, 429]
        for step in (-3600.0, 7200.0):
            clock.now += step
            assert await statuses(harness, clock, None) == [429]


@pytest.mark.parametrize("changed", [{"headers": False}, {"burst": 3}, {"rate": "6/min"}])
async def test_a_reload_gives_no_one_a_new_burst(changed):
    clock = Clock(monotonic=time.monotonic())
    async with Harness(use(rate="3/hour")) as harness:
        assert await statuses(harness, clock, None, None, None, None) == [200, 200, 200, 429]
        await harness.reload(use(**{"rate": "3/hour", **changed}))
        assert await statuses(harness, clock, None) == [429]
        await harness.reload(use(rate="3/hour", per="gateway"))
        assert await statuses(harness, clock, None) == [200]


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_each_worker_holds_its_share(workers):
    config = LimitRateConfig.model_validate({"rate": "600/min", "burst": 50})
    passed = 0
    for _ in range(workers):
        addon = LimitRate(config, AddonContext("limit-rate", Path(), workers=workers))
        passed += sum(addon.authorize(make_exchange()) is None for _ in range(100))
    assert 50 - workers < passed <= 50


def test_a_burst_that_can_not_be_divided_is_told(caplog):
    caplog.set_level(logging.WARNING)
    config = LimitRateConfig.model_validate({"rate": "2/min"})
    LimitRate(config, AddonContext("limit-rate", Path(), workers=8))
    assert "less than one for each of 8 workers" in caplog.text


def test_a_name_that_no_structured_field_can_hold_is_written_with_question_marks():
    config = LimitRateConfig.model_validate({"rate": "1/min"})
    addon = LimitRate(config, AddonContext('caf\u00e9 "x"', Path()))
    addon.authorize(make_exchange())
    denial = addon.authorize(make_exchange())
    assert denial is not None
    assert denial.headers[0][1].startswith('"caf? ?x?";q=1')


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({}, "rate"),
        ({"rate": "fast"}, "rate"),
        ({"rate": "0/min"}, "rate"),
        ({"rate": "1/min", "burst": 0}, "burst"),
        ({"rate": "1/min", "per": "ip"}, "per"),
        ({"rate": "1/min", "capacity": 1}, "capacity"),
        ({"rate": "9999999999/s"}, None),
    ],
)
def test_what_makes_no_sense_is_refused(options, key):
    with pytest.raises(ValidationError) as caught:
        LimitRateConfig.model_validate(options)
    assert caught.value.errors()[0]["loc"] == ((key,) if key else ())
