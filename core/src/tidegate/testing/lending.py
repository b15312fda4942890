"""A worker that borrows, for tests of whoever lends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from tidegate.api.lending import Backend, Granted

PATIENCE: Final = 30.0
"""Seconds in which a machine that is busy has done what it was asked to do."""


@dataclass
class Span:
    """A calendar window of so many seconds; 0: of what is in progress."""

    seconds: int = 86_400
    length: str = "day"
    rolling: bool = False

    def slot(self, now: float) -> tuple[int, int]:
        if not self.seconds:
            return 0, 1 << 53
        start = int(now // self.seconds) * self.seconds
        return start, start + self.seconds

    def counted(self, now: float) -> int:
        return self.slot(now)[0]

    def back(self, slot: int) -> int:
        return self.slot(slot)[1]


@dataclass
class Limit:
    """Terms of a limit, for tests."""

    amount: int = 100
    window: Any = field(default_factory=Span)
    alert: tuple[int, ...] = ()
    name: str = "calls"
    unit: str = "requests"
    per: str = "principal"

    @property
    def id(self) -> str:
        return f"{self.name}|{self.window.seconds}"

    def wire(self) -> dict[str, object]:
        """As the broker of a node is told it."""
        return {
            "id": self.id, "name": self.name, "unit": self.unit, "amount": self.amount,
            "per": self.per, "window": self.window.length, "rolling": False, "zone": "UTC",
            "alert": self.alert,
        }  # fmt: skip


IN_PROGRESS = Limit(window=Span(0, ""), unit="concurrency")


@dataclass
class Said:
    """An `Ask`."""

    limit: int
    key: str
    lease: str
    acknowledged: bool = False
    granted: int = 0
    returned: int = 0
    used: int = 0
    need: int = 0
    extra: int = 0
    number: int = 0
    closed: bool = False


class Worker:
    """A worker that does as it is told: one lease of each account. A `Receiver`."""

    def __init__(self, backend: Backend, session: str) -> None:
        self.backend = backend
        self.session = session
        self.answers: list[Granted] = []
        self.alerts: list[tuple[str, str, int]] = []
        self.failures = 0
        self.recalls: list[str] = []
        self.connections = 0
        self.leases: dict[str, Said] = {}
        self._heard = asyncio.Event()
        self._closed: set[str] = set()
        self._count = 0

    def lease(self, key: str = "ada", limit: int = 0) -> Said:
        """The lease of a key; a new one where it has none."""
        for lease in self.leases.values():
            if (lease.key, lease.limit) == (key, limit):
                return lease
        self._count += 1
        id = f"{self.session}:{self._count}"
        lease = self.leases[id] = Said(limit, key, id)
        return lease

    async def say(self, lease: Said, *, need: int = 0, extra: int = 0) -> Granted | None:
        """Tell how a lease stands; the answer, or None where it is gone, or was refused."""
        lease.number += 1
        lease.need, lease.extra = need, extra
        self.backend.ask([lease])
        return await self.answered(lease)

    async def take(self, n: int, key: str = "ada", extra: int = 0) -> bool:
        """Spend `n`; False: there is less. What there is stays in the lease."""
        lease = self.lease(key)
        while (missing := n - (lease.granted - lease.returned - lease.used)) > 0:
            answer = await self.say(lease, need=missing, extra=extra)
            if answer is None or answer.short:
                return False
        lease.used += n
        return True

    async def close(self, lease: Said) -> None:
        """End a lease: give back what was not used."""
        lease.returned = max(lease.returned, lease.granted - lease.used)
        lease.closed = True
        await self.say(lease)

    async def answered(self, lease: Said) -> Granted | None:
        """The answer to the last question."""
        failures = self.failures
        await self.until(
            lambda: lease.lease in self._closed or self.failures > failures
            or any(a.lease == lease.lease and a.number == lease.number for a in self.answers)
        )  # fmt: skip
        found = [a for a in self.answers if a.lease == lease.lease and a.number == lease.number]
        return found[-1] if found else None

    async def until(self, true: Callable[[], Any]) -> None:
        """Wait until what the backend said makes it true."""
        async with asyncio.timeout(PATIENCE):
            while not true():
                self._heard.clear()
                await self._heard.wait()

    # -- the receiver ---------------------------------------------------------------------------

    def granted(self, answer: Granted) -> None:
        self.answers.append(answer)
        lease = self.leases.get(answer.lease)
        if lease is not None:
            lease.granted, lease.acknowledged = max(lease.granted, answer.granted), True
        self._heard.set()

    def gone(self, lease: str) -> None:
        self._closed.add(lease)
        self.leases.pop(lease, None)
        self._heard.set()

    def failed(self, lease: str, number: int) -> None:
        self.failures += 1
        self._heard.set()

    def recalled(self, lease: str) -> None:
        self.recalls.append(lease)
        said = self.leases.get(lease)
        if said is not None:
            said.returned = max(said.returned, said.granted - said.used)
            said.need = said.extra = 0
            said.number += 1
            self.backend.ask([said])
        self._heard.set()

    def alerted(self, limit: str, key: str, percent: int) -> None:
        self.alerts.append((limit, key, percent))
        self._heard.set()

    def connected(self, token: str) -> None:
        self.connections += 1
        if self.connections > 1:
            self.backend.ask(list(self.leases.values()))
        self._heard.set()
