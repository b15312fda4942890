"""A worker's leases: spent from without asking, renewed before they run out.

What a worker may spend of an account is a `Lease`. The usual exchange takes its estimate from
`available` and gives back what it did not need, two additions. Only where there is not enough does
it wait (`acquire`), while one task asks the backend for all that is needed, and says what was used.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Literal

from tidegate.api.lending import Backend, Granted

from .protocol import Ask

TICK: Final = 0.25
"""Seconds after which what was used is told at the latest."""
IDLE: Final = 1.0
"""Seconds after which a lease that nobody spends from is given back."""
REFUSED: Final = 0.05
"""Seconds for which "there is no more" holds without asking again."""
GOODBYE: Final = 3.0
"""Seconds in which the backend must have heard that everything is given back."""
AHEAD: Final = 4
"""How many times what it needs a lease asks for at least."""

type Outcome = Literal["granted", "short", "again", "outage"]


class Lease:
    """What this worker may spend of one account now.

    Of `granted`, `available` is free; the rest is `used`, `returned`, or reserved by exchanges in
    progress. `until`: monotonic seconds up to which it may be spent from; `refused_until`: up to
    which asking for more than there is is in vain.
    """

    __slots__ = (
        "acknowledged", "answered", "asked", "available", "dead", "granted", "id", "key", "left",
        "limit", "low", "number", "refused_until", "resets_at", "returned", "taken_at", "until",
        "used", "used_before", "waiters",
    )  # fmt: skip

    def __init__(self, limit: int, key: str, id: str) -> None:
        self.limit = limit
        self.key = key
        self.id = id
        self.granted = self.returned = self.used = self.available = 0
        self.low = 0
        """Below it, more is asked for."""
        self.until = 0.0
        self.left = 0
        self.resets_at: float | None = None
        """Monotonic seconds."""
        self.refused_until = 0.0
        self.acknowledged = self.dead = False
        self.number = self.answered = 0
        """Of the last question, and of the last one that was answered."""
        self.asked = 0
        """What was needed in the last question."""
        self.taken_at = 0.0
        self.used_before = 0
        self.waiters: deque[tuple[int, asyncio.Future[Outcome]]] = deque()

    @property
    def reserved(self) -> int:
        """What exchanges in progress hold."""
        return self.granted - self.returned - self.used - self.available

    @property
    def needed(self) -> int:
        """What is missing for all who wait."""
        waiting = sum(n for n, future in self.waiters if not future.done())
        return max(0, waiting - self.available) if waiting else 0

    def wake(self, outcome: Outcome) -> None:
        """Let those who wait take what there is, in their order; the others get `outcome`."""
        for _ in range(len(self.waiters)):
            n, future = self.waiters.popleft()
            if future.done():
                continue
            if self.available >= n:
                self.available -= n
                future.set_result("granted")
            elif outcome == "again" and not self.dead and self.until > time.monotonic():
                self.waiters.append((n, future))
            else:
                future.set_result(outcome)


class Leases:
    """All leases of this worker. A `Receiver` of what the backend answers."""

    def __init__(
        self,
        session: str,
        backend: Backend,
        alert: Callable[[str, str, int], None],
        token: str = "",
    ) -> None:
        self._token = token
        self.backend = backend
        self.current: dict[tuple[int, str], Lease] = {}
        self.changed: dict[Lease, None] = {}
        """Leases of which the backend does not know everything."""
        self._session = session
        self._alert = alert
        self._count = 0
        self._open: dict[str, Lease] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.up = asyncio.Event()
        """Set once the broker that was started for this configuration has answered."""

    # -- what exchanges call --------------------------------------------------------------------

    def lease(self, limit: int, key: str, now: float) -> Lease:
        """The lease to spend from now; a new one where there is none, or its time is over."""
        lease = self.current.get((limit, key))
        if lease is None or lease.dead or (lease.acknowledged and lease.until <= now):
            old = lease
            self._count += 1
            lease = Lease(limit, key, f"{self._session}:{self._count}")
            self.current[limit, key] = self._open[lease.id] = lease
            if old is not None:
                self.changed[old] = None
                old.wake("again")
        return lease

    async def acquire(self, limit: int, key: str, n: int, until: float) -> tuple[Outcome, Lease]:
        """Take `n`; wait for the backend up to `until`: granted, short or outage."""
        while True:
            now = time.monotonic()
            lease = self.lease(limit, key, now)
            if lease.available >= n and lease.until > now:
                lease.available -= n
                lease.taken_at = now
                return "granted", lease
            if not self.backend.up or now >= until:
                return "outage", lease
            outcome = await self._turn(lease, n, until - now)
            if outcome != "again":
                return outcome, lease

    async def _turn(self, lease: Lease, n: int, seconds: float) -> Outcome:
        """Wait for an answer. No `asyncio.timeout`: the exchange may have no task yet."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Outcome] = loop.create_future()
        lease.waiters.append((n, future))
        self.want(lease)
        timer = loop.call_later(seconds, give_up, future)
        try:
            outcome = await future
        except BaseException:
            if future.done() and not future.cancelled() and future.result() == "granted":
                lease.available += n  # it was granted in the moment in which the client left
            raise
        finally:
            timer.cancel()
        lease.taken_at = time.monotonic()
        return outcome

    def foresee(self, limit: int, key: str, n: int) -> None:
        """`n` will be taken in a moment: have it asked for together with what is waited for."""
        lease = self.lease(limit, key, time.monotonic())
        if lease.available < n:
            lease.low, lease.asked = max(lease.low, n), max(lease.asked, n)
            self.renew(lease)

    def renew(self, lease: Lease) -> None:
        """Ask for more before it runs out, where that is not asked already."""
        if lease.number == lease.answered:
            self.want(lease)

    def want(self, lease: Lease) -> None:
        """Ask for more soon."""
        self.changed[lease] = None
        self._wake.set()

    def settle(self, lease: Lease, reserved: int, truth: int) -> None:
        """An exchange has ended: of what it reserved, `truth` was used (it may be more)."""
        lease.used += truth
        lease.available += reserved - truth
        if truth or lease.waiters:
            self.changed[lease] = None
        if lease.waiters:
            lease.wake("again")
        if lease.dead:
            self._carry_over(lease)

    def _carry_over(self, dead: Lease) -> None:
        """The backend took all that a lease held for spent; it hears of what is beyond that."""
        beyond = dead.used - max(0, dead.granted - dead.returned)
        if beyond > 0:
            dead.granted += beyond
            lease = self.lease(dead.limit, dead.key, time.monotonic())
            lease.used += beyond
            lease.available -= beyond
            self.changed[lease] = None

    # -- life -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Connect, and begin to tell what is used."""
        self.backend.start(self)
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Give everything back; when the last exchange has ended.

        It waits until the backend has heard it: what it has not heard of, it counts as spent.
        """
        until = time.monotonic() + GOODBYE
        while self._open and time.monotonic() < until:
            for lease in self._open.values():
                lease.until = 0.0
            self.changed.update(dict.fromkeys(self._open.values()))
            self._wake.set()
            await asyncio.sleep(0.02)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.backend.stop()

    async def _run(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(TICK):
                    await self._wake.wait()
            self._wake.clear()
            now = time.monotonic()
            self._look_over(now)
            self._tell(now)

    def _look_over(self, now: float) -> None:
        """Find leases that are idle, or whose time is over."""
        for lease in list(self._open.values()):
            over = lease.until <= now
            if not over and (now - lease.taken_at <= IDLE or lease.waiters):
                continue
            if lease.acknowledged:
                if over and lease.waiters:
                    lease.wake("again")
                if lease.available > 0 or not lease.reserved:
                    self.changed[lease] = None
            elif not lease.number and not lease.waiters and not lease.used and not lease.reserved:
                self.gone(lease.id)  # it was made for an exchange that found nobody to ask

    def _tell(self, now: float) -> None:
        if not self.changed or not self.backend.up:
            if self.changed:
                self._outage()
            return
        changed, self.changed = self.changed, {}
        asks = [self._ask(lease, now) for lease in changed if not lease.dead]
        if asks:
            self.backend.ask(asks)

    def _ask(self, lease: Lease, now: float) -> Ask:
        over = lease.acknowledged and lease.until <= now
        idle = now - lease.taken_at > IDLE
        need = extra = 0
        if over or (idle and not lease.waiters):
            self._give_back(lease)
        else:
            need = lease.needed
            spent, lease.used_before = lease.used - lease.used_before, lease.used
            if need or lease.available < lease.low:
                extra = max(AHEAD * max(need, lease.asked), spent)
                lease.asked = need or lease.asked
        lease.number += 1
        return Ask(lease.limit, lease.key, lease.id, lease.acknowledged, lease.granted,
                   lease.returned, lease.used, need, extra, lease.number,
                   closed=lease.acknowledged and not lease.waiters and not lease.reserved
                   and (over or idle))  # fmt: skip

    def _give_back(self, lease: Lease) -> None:
        free = max(0, lease.available)
        lease.returned += free
        lease.available -= free
        lease.low = 0

    def _outage(self) -> None:
        for lease in self.changed:
            lease.wake("outage")

    # -- what the backend says --------------------------------------------------------------------

    def connected(self, token: str) -> None:
        if token == self._token:
            self.up.set()
        self.changed.update(dict.fromkeys(self._open.values()))
        self._wake.set()

    def granted(self, answer: Granted) -> None:
        lease = self._open.get(answer.lease)
        if lease is None:
            return
        now = time.monotonic()
        more = answer.granted - lease.granted
        if more > 0:
            lease.granted = answer.granted
            lease.available += more
            lease.low = max(0, more // 2)
        if not answer.left:
            lease.low = 0
        lease.acknowledged = True
        lease.answered = answer.number
        lease.until = now + answer.valid
        lease.left = answer.left
        lease.resets_at = None if answer.resets is None else now + answer.resets
        if answer.short:
            lease.refused_until = now + REFUSED
        lease.wake("short" if answer.short else "again")
        if lease.waiters:
            self.want(lease)

    def gone(self, lease: str) -> None:
        found = self._open.pop(lease, None)
        if found is not None:
            found.dead = True
            if self.current.get((found.limit, found.key)) is found:
                del self.current[found.limit, found.key]
            self._carry_over(found)
            found.wake("again")

    def failed(self, lease: str, number: int) -> None:
        found = self._open.get(lease)
        if found is not None:
            found.answered = number
            found.wake("outage")
            self.changed[found] = None  # what it was granted all the same, it hears next time

    def recalled(self, lease: str) -> None:
        found = self._open.get(lease)
        if found is not None and not found.waiters:
            self._give_back(found)
            self.want(found)

    def alerted(self, limit: str, key: str, percent: int) -> None:
        self._alert(limit, key, percent)


def give_up(future: asyncio.Future[Outcome]) -> None:
    """Nobody has answered in time."""
    if not future.done():
        future.set_result("outage")
