"""What plugins keep that only look on: logs and caches. They never cost a caller the answer."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

import pytest
from mitmproxy import http

from tidegate.api import Exchange, Principal
from tidegate.testing.exchanges import make_answer, make_exchange
from tidegate.testing.faults import plugin_with
from tidegate.testing.harness import Cut, Harness

from .base import Contract


def _append(_: Any, exchange: Exchange) -> None:
    """What a response transform of another addon does."""
    assert exchange.response is not None
    exchange.response.headers.add("x-appended", "1")


CANARY: Final = "tg-canary-5e884898da28"
"""A secret that no log may hold."""


class LogContract(Contract):
    """Every exchange is written down, no secret is, and a dead backend costs no answer.

    A loss is counted in a counter of the addon with `lost`, `drop` or `fail` in its name.
    """

    def mark(self, exchange: Exchange) -> str | None:
        """What of an exchange stands in what is written, once; None: the plugin writes sums."""
        return exchange.id

    def written(self) -> str:
        """All that the plugin has written in this test so far."""
        raise NotImplementedError

    def broken_options(self) -> Mapping[str, Any]:
        """Further options under which what it writes to is not there (any more)."""
        raise NotImplementedError

    async def test_an_exchange_is_written_down_once(self) -> None:
        async with self.harness() as harness:
            exchange = await harness.send(self.good_exchange())
        mark = self.mark(exchange)
        if mark is None:
            assert self.written(), "nothing is written, not even at shutdown"
        else:
            assert self.written().count(mark) == 1, f"{mark!r} is not there once: override mark()"

    async def test_denied_and_failed_exchanges_are_written_down_too(self) -> None:
        from tidegate.api.errors import UPSTREAM_UNREACHABLE

        async with self.harness(answer=UPSTREAM_UNREACHABLE) as harness:
            failed = await harness.send(self.good_exchange())
        mark = self.mark(failed)
        assert self.written() if mark is None else mark in self.written()

    async def test_secrets_are_not_written_down(self) -> None:
        headers = {
            "authorization": f"Bearer {CANARY}",
            "proxy-authorization": f"Basic {CANARY}",
            "cookie": f"session={CANARY}",
            "x-api-key": CANARY,
        }
        answer = make_answer(200, "ok", {"set-cookie": f"session={CANARY}"})
        exchange = make_exchange("GET", f"http://api.test/v1?key={CANARY}", headers)
        exchange.consume_query("key")
        async with self.harness(answer=answer) as harness:
            await harness.send(exchange)
        assert CANARY not in self.written()

    async def test_it_never_blocks_the_loop(self) -> None:
        async with self.harness() as harness:
            slowest = 0.0
            for _ in range(200):
                exchange = await harness.start(self.good_exchange())
                before = time.monotonic()
                await harness.runtime.flush()
                slowest = max(slowest, time.monotonic() - before)
                assert exchange.outcome == "answered"
        assert slowest < 2.0

    async def test_with_its_backend_down_callers_are_answered_and_the_loss_is_counted(
        self,
    ) -> None:
        async with Harness(*self.others(), self.use(**self.broken_options())) as harness:
            for _ in range(3):
                exchange = await harness.send(self.good_exchange())
                assert exchange.outcome == "answered"
            counters = harness.counters(self.name)
        # Now that it has shut down: a plugin that writes in batches knows only then.
        lost = {n: v for n, v in counters.items() if "fail" in n or "drop" in n or "lost" in n}
        advice = 'self.context.counters.add("lines_lost_total")'
        assert sum(lost.values()) >= 1, f"no loss is counted ({counters}): {advice}"


class CacheContract(Contract):
    """An answer is kept only where it may be, and given only to whom it may be."""

    def cacheable_exchange(self, principal: Principal | None = None) -> Exchange:
        """An exchange whose answer is kept; the same each time."""
        return make_exchange("GET", "http://api.test/kept", principal=principal)

    def cacheable_answer(self) -> http.Response:
        """An answer that is kept."""
        return make_answer(200, b"fresh", {"cache-control": "max-age=600"})

    def broken_options(self) -> Mapping[str, Any] | None:
        """Further options under which the backend is down; None: there is no backend."""
        return None

    async def test_the_second_answer_comes_from_the_cache(self) -> None:
        async with self.harness(answer=self.cacheable_answer()) as harness:
            first = await harness.send(self.cacheable_exchange())
            second = await harness.send(self.cacheable_exchange())
            assert not first.from_cache
            advice = "override cacheable_exchange() and cacheable_answer() to suit the options"
            assert second.from_cache, f"{first.path} was not kept: {advice}"
            assert len(harness.sent) == 1
            assert first.response is not None
            assert second.response is not None
            assert second.response.raw_content == first.response.raw_content
            assert second.response.status_code == first.response.status_code

    async def test_a_cut_answer_is_not_kept(self) -> None:
        async with self.harness(answer=Cut(self.cacheable_answer())) as harness:
            await harness.send(self.cacheable_exchange())
            harness.answer = self.cacheable_answer()
            again = await harness.send(self.cacheable_exchange())
            assert not again.from_cache

    async def test_an_answer_that_forbids_it_is_not_kept(self) -> None:
        answer = make_answer(200, b"secret", {"cache-control": "no-store"})
        async with self.harness(answer=answer) as harness:
            await harness.send(self.cacheable_exchange())
            again = await harness.send(self.cacheable_exchange())
            assert not again.from_cache

    async def test_one_callers_answer_is_not_anothers(self) -> None:
        async with self.harness(answer=self.cacheable_answer()) as harness:
            await harness.send(self.cacheable_exchange(Principal("ada", "one")))
            other = await harness.send(self.cacheable_exchange(Principal("bob", "two")))
            assert not other.from_cache

    async def test_an_error_is_no_answer_to_keep(self) -> None:
        async with self.harness(answer=make_answer(500, b"down")) as harness:
            await harness.send(self.cacheable_exchange())
            harness.answer = self.cacheable_answer()
            again = await harness.send(self.cacheable_exchange())
            assert not again.from_cache

    async def test_what_others_change_of_an_answer_is_not_kept(self) -> None:
        changer = plugin_with("transform_response", _append)
        answer = self.cacheable_answer()
        async with Harness(changer, *self.others(), self.use(), answer=answer) as harness:
            for _ in range(3):
                exchange = await harness.send(self.cacheable_exchange())
                assert exchange.response is not None
                times = len(exchange.response.headers.get_all("x-appended"))
                assert times == 1, "cache_lookup must give a response of its own each time"

    async def test_in_shadow_nothing_is_answered_from_the_cache(self) -> None:
        async with self.harness("shadow", answer=self.cacheable_answer()) as harness:
            await harness.send(self.cacheable_exchange())
            again = await harness.send(self.cacheable_exchange())
            assert not again.from_cache
            assert len(harness.sent) == 2

    async def test_with_its_backend_down_every_lookup_is_a_miss(self) -> None:
        broken = self.broken_options()
        if broken is None:
            pytest.skip("this plugin has no backend")
        async with Harness(*self.others(), self.use(**broken)) as harness:
            for _ in range(2):
                exchange = await harness.send(self.cacheable_exchange())
                assert exchange.outcome == "answered"
                assert not exchange.from_cache
