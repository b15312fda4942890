"""What whoever lends keeps: limits hold, whatever is said twice, lost, or never said again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from tidegate.api.lending import Backend, Terms
from tidegate.testing.lending import IN_PROGRESS, PATIENCE, Limit, Span, Worker


class LendingContract:
    """Base of the suite. A subclass says how workers come to a store that they share."""

    pytestmark = pytest.mark.asyncio

    def backend(self, session: str, *terms: Terms) -> Backend:
        """A worker's backend; all of one test share what is spent."""
        raise NotImplementedError

    def status(self, *terms: Terms) -> list[dict[str, Any]]:
        """The accounts, as a person sees them. May block."""
        raise NotImplementedError

    def reset(self, limit: str, key: str | None, *terms: Terms) -> int:
        """As a person does it. May block."""
        raise NotImplementedError

    def forget_quickly(self) -> None:
        """Have workers that are silent be given up after less than a second."""
        raise NotImplementedError

    @asynccontextmanager
    async def workers(self, count: int, *terms: Limit) -> AsyncIterator[list[Worker]]:
        """Some workers that have connected; stopped at the end."""
        made = [
            Worker(self.backend(f"w{n}", *(terms or (Limit(),))), f"w{n}") for n in range(count)
        ]
        try:
            for worker in made:
                worker.backend.start(worker)
                await worker.until(partial(getattr, worker, "connections"))
            yield made
        finally:
            for worker in made:
                await worker.backend.stop()

    async def counts(self, *terms: Limit) -> tuple[int, int]:
        """What is used and what is lent of the only account."""
        (one,) = await asyncio.to_thread(self.status, *(terms or (Limit(),)))
        return one["used"], one["lent"]

    async def nothing_is_lent(self) -> bool:
        return not (await self.counts())[1]

    # -- lending --------------------------------------------------------------------------------

    async def test_what_is_asked_for_is_lent_and_told_what_is_left(self) -> None:
        async with self.workers(1) as (ada,):
            answer = await ada.say(ada.lease(), need=10)
            assert answer is not None
            assert (answer.granted, answer.short, answer.left) == (10, False, 90)
            assert 0 < answer.valid <= 86_400
            assert answer.resets is not None
            assert 0 < answer.resets <= 86_400
            assert await self.counts() == (0, 10)

    async def test_more_than_there_is_is_never_lent(self) -> None:
        async with self.workers(1) as (ada,):
            answer = await ada.say(ada.lease(), need=101)
            assert answer is not None
            assert (answer.granted, answer.short, answer.left) == (100, True, 0)

    async def test_extra_shrinks_as_the_limit_comes_near(self) -> None:
        async with self.workers(1) as (ada,):
            sizes = []
            while await ada.take(1, extra=1000):
                sizes.append(ada.lease().granted)
            assert len(sizes) == 100
            assert sizes[0] == 50
            assert sizes[-1] == 100

    async def test_workers_that_spend_at_once_have_the_limit_and_no_more(self) -> None:
        async with self.workers(4) as workers:

            async def spend(worker: Worker) -> int:
                return sum([await worker.take(1, extra=4) for _ in range(50)])

            async with asyncio.timeout(PATIENCE):
                spent = await asyncio.gather(*(spend(worker) for worker in workers))
            assert sum(spent) == 100
            for worker in workers:
                await worker.close(worker.lease())
            assert await self.counts() == (100, 0)

    async def test_what_is_said_twice_counts_once(self) -> None:
        async with self.workers(1) as (ada,):
            assert await ada.take(10)
            for _ in range(3):
                await ada.say(ada.lease())
            assert await self.counts() == (10, 0)

    async def test_an_answer_that_was_lost_is_not_lent_twice(self) -> None:
        async with self.workers(1) as (ada,):
            await ada.say(ada.lease(), need=10)
            lease = ada.lease()
            lease.granted, lease.acknowledged = 0, False  # as if it had not been heard
            again = await ada.say(lease, need=10)
            assert again is not None
            assert (again.granted, again.left) == (10, 90)

    async def test_what_is_given_back_is_for_others(self) -> None:
        async with self.workers(2) as (ada, bob):
            await ada.say(ada.lease(), need=100)
            lease = ada.lease()
            lease.returned = 60
            await ada.say(lease)
            assert await bob.take(60)

    async def test_what_others_hold_and_do_not_use_is_recalled(self) -> None:
        async with self.workers(2) as (ada, bob):
            assert await ada.take(10)
            await ada.say(ada.lease(), need=90)
            async with asyncio.timeout(PATIENCE):
                while not await bob.take(80):  # a machine that is busy may miss the moment
                    pass
            assert ada.recalls
            assert ada.lease().used + bob.lease().used == 90

    async def test_what_was_used_beyond_a_lease_counts(self) -> None:
        async with self.workers(2) as (ada, bob):
            assert await ada.take(10)
            ada.lease().used = 95
            await ada.say(ada.lease())
            assert not await bob.take(6)
            assert await bob.take(5)

    async def test_keys_have_accounts_of_their_own(self) -> None:
        async with self.workers(1) as (one,):
            assert await one.take(100, "ada")
            assert await one.take(100, "bob:*?[x] \u00e9")
            shown = await asyncio.to_thread(self.status, Limit())
            assert sorted(x["key"] for x in shown) == ["ada", "bob:*?[x] \u00e9"]

    async def test_the_next_window_begins_with_nothing(self) -> None:
        second = Limit(window=Span(1, "second"))
        async with self.workers(1, second) as (ada,):
            seen: set[float] = set()
            async with asyncio.timeout(PATIENCE):
                while len(seen) < 2:
                    ada.leases.clear()
                    lease = ada.lease()
                    answer = await ada.say(lease, need=100)
                    assert answer is not None
                    if not answer.short:
                        seen.add(lease.granted + time.monotonic())
                    await asyncio.sleep(0.05)

    # -- workers that go ------------------------------------------------------------------------

    async def test_a_lease_that_is_closed_leaves_what_was_used(self) -> None:
        async with self.workers(2) as (ada, bob):
            await ada.say(ada.lease(), need=100)
            ada.lease().used = 30
            await ada.close(ada.lease())
            assert not ada.leases
            assert await bob.take(70)

    async def test_what_a_worker_holds_is_spent_when_it_says_goodbye(self) -> None:
        async with self.workers(2) as (ada, bob):
            assert await ada.take(10)
            await ada.say(ada.lease(), need=30)
            await ada.backend.stop()
            assert await bob.take(60)
            assert not await bob.take(1)

    async def test_what_a_worker_holds_that_is_silent_is_spent_and_its_lease_gone(self) -> None:
        self.forget_quickly()
        async with self.workers(2) as (ada, bob):
            assert await ada.take(10)
            await ada.say(ada.lease(), need=30)
            self.kill(ada)
            await eventually(self.nothing_is_lent)
            assert await bob.take(60)
            assert not await bob.take(1)
            assert (await self.counts())[0] == 100

    async def test_what_is_in_progress_is_over_when_its_worker_is_silent(self) -> None:
        self.forget_quickly()
        async with self.workers(2, IN_PROGRESS) as (ada, bob):
            await ada.say(ada.lease(), need=100)
            self.kill(ada)
            await eventually(lambda: bob.take(100))

    async def test_a_lease_that_is_held_for_long_is_not_given_up(self) -> None:
        self.forget_quickly()
        async with self.workers(2, IN_PROGRESS) as (ada, bob):
            assert await ada.take(100)
            await asyncio.sleep(1.2)
            assert not await bob.take(1)

    def kill(self, worker: Worker) -> None:
        """End a worker without a goodbye."""
        raise NotImplementedError

    # -- people ---------------------------------------------------------------------------------

    async def test_a_threshold_is_told_once_to_one(self) -> None:
        async with self.workers(2, Limit(alert=(50, 80, 100))) as (ada, bob):
            for n in (20, 20, 20, 20):
                assert await ada.take(n)
                await ada.say(ada.lease())
                await bob.say(bob.lease())
            assert await bob.take(20)
            await bob.say(bob.lease())
            assert not await bob.take(1)
            told = ada.alerts + bob.alerts
            assert sorted(told) == [("calls", "ada", n) for n in (50, 80, 100)]

    async def test_a_reset_leaves_what_workers_hold(self) -> None:
        async with self.workers(1) as (ada,):
            assert await ada.take(40)
            await ada.say(ada.lease(), need=10)
            assert await asyncio.to_thread(self.reset, "calls", None, Limit()) == 1
            assert await self.counts() == (0, 10)
            await ada.say(ada.lease())
            assert await self.counts() == (0, 10)
            assert await asyncio.to_thread(self.reset, "others", None, Limit()) == 0
            assert await asyncio.to_thread(self.reset, "calls", "nobody", Limit()) == 0


async def eventually(true: Callable[[], Awaitable[bool]]) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(PATIENCE):
        while True:
            if await true():
                return
            await asyncio.sleep(0.1)
