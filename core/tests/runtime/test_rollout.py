"""`percent`: enforce for a share of the callers, and shadow or nothing for the others."""

from __future__ import annotations

from typing import Any

import pytest

from tidegate.api import Client, Denial, Exchange, Plugin, Principal, hook
from tidegate.runtime import settings
from tidegate.runtime.problems import ConfigError
from tidegate.runtime.rollout import Rollout
from tidegate.testing import Harness, Use, make_exchange


class Refuse(Plugin):
    logged = 0

    @hook
    def authorize(self, exchange: Exchange) -> Denial:
        return Denial(403, "closed", "No.")

    @hook
    def log(self, exchange: Exchange) -> None:
        self.logged += 1


class Fail(Plugin):
    @hook
    async def authorize(self, exchange: Exchange) -> None:
        raise RuntimeError("told to fail")


class Named(Plugin):
    """Who calls is what the path says."""

    @hook
    def authenticate(self, exchange: Exchange) -> Principal:
        return Principal(exchange.path.strip("/"))


class Key(Plugin):
    @hook
    def authenticate(self, exchange: Exchange) -> Principal | None:
        return Principal(key) if (key := exchange.consume_header("x-key")) else None

    @hook
    def transform_request(self, exchange: Exchange) -> None:
        exchange.request.headers["x-seen"] = "1"


def share(cls: type[Plugin], percent: float, rest: str = "shadow", **more: Any) -> Use:
    return Use(cls, {"percent": percent, "rest": rest}, **more)


def call(name: str = "", *, address: str = "192.0.2.7", key: str = "") -> Exchange:
    client = Client(address, 40_000, address)
    headers = {"x-key": key} if key else {}
    return make_exchange(url=f"http://api.test/{name}", client=client, headers=headers)


async def denied(harness: Harness, n: int = 200) -> set[int]:
    """Which of `n` principals are denied."""
    out = set()
    for i in range(n):
        result = await harness.send(call(f"caller-{i}"))
        if result.denial is not None:
            out.add(i)
    return out


async def test_the_share_is_denied_and_the_others_are_shadowed() -> None:
    async with Harness(Named, share(Refuse, 25)) as harness:
        inside = await denied(harness)
        assert 25 <= len(inside) <= 75
        outside = next(i for i in range(200) if i not in inside)
        result = await harness.send(call(f"caller-{outside}"))
        assert result.response is not None
        assert result.response.status_code == 200
        assert [(s.addon, s.decision, s.detail) for s in result.shadows] == [
            ("Refuse", "deny", "closed")
        ]
        assert harness.plugin("Refuse").logged == len(inside)


async def test_with_rest_off_the_others_do_not_meet_it() -> None:
    async with Harness(Named, share(Refuse, 25, "off")) as harness:
        inside = await denied(harness)
        outside = next(i for i in range(200) if i not in inside)
        result = await harness.send(call(f"caller-{outside}"))
        assert result.shadows == []
        assert harness.plugin("Refuse").logged == len(inside)


@pytest.mark.parametrize(("percent", "count"), [(0, 0), (100, 50)])
async def test_the_ends_are_exact(percent: float, count: int) -> None:
    async with Harness(Named, share(Refuse, percent)) as harness:
        assert len(await denied(harness, 50)) == count


async def test_a_caller_stays_inside_while_the_share_grows_and_after_a_restart() -> None:
    seen: list[set[int]] = []
    for percent in (10, 30, 30, 80):
        async with Harness(Named, share(Refuse, percent)) as harness:
            seen.append(await denied(harness, 100))
    assert seen[0] < seen[1] == seen[2] < seen[3]


def test_rollouts_of_two_addons_are_independent() -> None:
    one, other = Rollout("one", 50), Rollout("other", 50)
    exchanges = [make_exchange() for _ in range(400)]
    for i, exchange in enumerate(exchanges):
        exchange.principal = Principal(f"caller-{i}")
    both = sum(not one.outside(e) and not other.outside(e) for e in exchanges)
    assert 60 <= both <= 140


def test_the_place_of_a_caller_never_changes() -> None:
    exchange = make_exchange()
    exchange.principal = Principal("bob")
    inside = [p for p in range(0, 101, 10) if not Rollout("gate", p).outside(exchange)]
    assert inside == [40, 50, 60, 70, 80, 90, 100]


async def test_without_a_principal_the_address_counts() -> None:
    async with Harness(share(Refuse, 50)) as harness:
        out = [
            (await harness.send(call(address=f"10.0.0.{i}"))).denial is not None
            for i in range(1, 60)
        ]
        assert 10 <= sum(out) <= 50
        again = [
            (await harness.send(call(address=f"10.0.0.{i}"))).denial is not None
            for i in range(1, 60)
        ]
        assert again == out


async def test_an_addon_that_authenticates_goes_by_the_address_in_all_its_hooks() -> None:
    async with Harness(share(Key, 50, "off"), gateway={"anonymous": True}) as harness:
        for i in range(1, 40):
            exchange = call(address=f"10.0.0.{i}", key=f"k{i}")
            result = await harness.send(exchange)
            inside = result.principal is not None
            assert ("x-seen" in result.request.headers) == inside


async def test_a_failure_outside_the_share_costs_nobody_their_answer() -> None:
    async with Harness(share(Fail, 0)) as harness:
        result = await harness.send(make_exchange())
        assert result.denial is None
        assert [s.decision for s in result.shadows] == ["fail"]
        assert harness.counters()["hook_failures_total"] == 1
    async with Harness(share(Fail, 100)) as harness:
        result = await harness.send(make_exchange())
        assert result.denial is not None
        assert result.denial.code == "plugin_failed"


@pytest.mark.parametrize("percent", ["-1", "100.5", '"half"'])
def test_a_percentage_is_from_0_to_100(percent: str) -> None:
    with pytest.raises(ConfigError, match=r"addons.toml:3: `percent`"):
        settings.parse(f'[[addon]]\nuse = "x"\npercent = {percent}\n', file="addons.toml")


async def test_a_new_percentage_keeps_the_instance() -> None:
    async with Harness(share(Refuse, 10)) as harness:
        old = harness.plugin()
        await harness.reload(share(Refuse, 20))
        assert harness.plugin() is old
