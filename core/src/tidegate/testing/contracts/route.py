"""What plugins keep that say where an exchange goes."""

from __future__ import annotations

from typing import Any

import pytest

from tidegate.api import Exchange
from tidegate.testing.harness import Harness

from .base import Contract


class RouteContract(Contract):
    """An exchange gets an upstream that can be named and logged, or none."""

    def unrouted_exchange(self) -> Exchange | None:
        """An exchange that the plugin leaves to others; None: it routes everything."""
        return None

    def harness(self, mode: str = "enforce", **settings: Any) -> Harness:
        """A harness without an upstream of its own."""
        return super().harness(mode, **{"routed": False, **settings})

    async def test_it_names_an_upstream(self) -> None:
        async with self.harness() as harness:
            exchange = await harness.send(self.good_exchange())
            assert exchange.outcome == "answered", exchange.denial
            assert exchange.upstream is not None
            assert exchange.upstream.name
            assert [a.upstream.name for a in exchange.attempts]
            assert "@" not in exchange.attempts[0].upstream.url, "a URL holds no credentials"

    async def test_it_routes_alike_each_time_where_chance_is_the_same(self) -> None:
        async with self.harness() as harness:
            first = await harness.send(self.good_exchange())
        async with self.harness() as harness:
            second = await harness.send(self.good_exchange())
        assert first.attempts[0].upstream.url == second.attempts[0].upstream.url

    async def test_what_it_does_not_know_is_left_to_others(self) -> None:
        exchange = self.unrouted_exchange()
        if exchange is None:
            pytest.skip("this plugin routes everything")
        async with self.harness() as harness:
            await harness.send(exchange)
            assert exchange.denial is not None
            assert exchange.denial.code == "no_route"
            assert exchange.attempts == []

    async def test_an_attempt_that_fails_is_an_error_not_a_crash(self) -> None:
        async with self.harness() as harness:
            from tidegate.api.errors import UPSTREAM_UNREACHABLE

            harness.answer = UPSTREAM_UNREACHABLE
            exchange = await harness.send(self.good_exchange())
            assert exchange.failed_addon == ""
            assert exchange.denial is not None
            assert exchange.denial.code == "upstream_unreachable"
            assert 1 <= len(exchange.attempts) <= 32, "attempts come to an end"

    async def test_in_shadow_it_routes_nothing_and_says_where_it_would(self) -> None:
        async with self.harness("shadow") as harness:
            exchange = await harness.send(self.good_exchange())
            assert exchange.denial is not None
            assert exchange.denial.code == "no_route"
            assert "route" in [s.decision for s in exchange.shadows]
