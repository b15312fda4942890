"""What is said to `lend.lua`, and what it answers. Sans I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from tidegate.api.lending import Ask, Granted, Terms

GRACE: Final = 10.0
"""Seconds of silence after which what a worker's lease holds is spent."""
DAY: Final = 86_400
HOUR: Final = 3600


@dataclass(slots=True)
class Memory:
    """What this worker knows of an account: told again to a Redis that has lost it."""

    resets: int = 0
    spent: dict[int, int] = field(default_factory=dict)


@dataclass(slots=True)
class Answer:
    """What `lend.lua` says."""

    status: str
    """granted; gone: the lease is closed; when: `now` is another window than was said."""
    now: float
    born: str = ""
    resets: int = 0
    told_again: bool = False
    granted: int = 0
    short: bool = False
    left: int = 0
    oldest: int = 0
    """The first slot in which something is spent or held."""
    percent: int = 0
    """Of an alert; 0: there is none."""
    slot: int = 0
    """Of the lease."""
    recalled: int = 0
    """How many leases of others were asked to give back what they don't use."""
    spent: dict[int, int] = field(default_factory=dict)

    @classmethod
    def read(cls, raw: list[Any]) -> Answer:
        """From the reply."""
        status, now = raw[0].decode(), float(raw[1])
        if status == "when":
            return cls(status, now)
        numbers = [int(n) for n in raw[12]]
        return cls(
            status, now, raw[2].decode(), int(raw[3]), bool(raw[4]), int(raw[5]), bool(raw[6]),
            int(raw[7]), int(raw[8]), int(raw[9]), int(raw[10]), int(raw[11]),
            dict(zip(numbers[::2], numbers[1::2], strict=True)),
        )  # fmt: skip

    def granted_to(self, ask: Ask, terms: Terms) -> Granted:
        """What the worker hears."""
        window = terms.window
        resets = max(0.0, window.back(self.oldest) - self.now) if window.length else None
        valid = min(window.slot(self.slot)[1] - self.now, float(DAY))
        return Granted(ask.lease, self.granted, ask.number, self.short, valid, self.left, resets)


@dataclass(slots=True)
class Told:
    """What is to be told of a lease, or was told last."""

    ask: Ask
    wanting: bool = True
    """Whether it was not answered yet."""
    closing: bool = False
    """The worker ends: what it holds is spent."""
    tries: int = 0
    """How often others were asked to give back what they don't use."""
    opened: tuple[int, str] | None = None
    """The lease's slot, and `born` of the account that has it; None: not answered yet."""
    at: float = 0.0
    """Monotonic seconds at which it was told last."""
    clock: tuple[float, float] | None = None
    """The account's clock and ours, where it is another one than was thought."""


def arguments(
    told: Told, terms: Terms, now: float, memory: Memory, *, patient: bool, channel: str,
    grace: float = GRACE,
) -> list[Any]:  # fmt: skip
    """`ARGV` of `lend.lua`.

    `now`: what Redis' clock is taken for. `patient`: others may be asked to give back what they
    don't use; `channel`: what the names begin with of the channels on which they hear it.
    """
    ask, window = told.ask, terms.window
    slot, stop = window.slot(now)
    since = window.counted(now)
    calendar = window.length and not window.rolling
    lifetime = int(window.back(slot) - now) + HOUR if window.length else DAY
    known = [n for at, spent in memory.spent.items() if at >= since for n in (at, spent)]
    own_slot, born = told.opened or ("", "")
    need, extra = (ask.need, ask.extra) if told.wanting else (0, 0)
    return [
        ask.lease, int(ask.acknowledged or told.opened is not None),
        ask.granted, ask.returned, ask.used, need, extra, int(ask.closed or told.closing),
        slot, stop, since, own_slot,
        terms.amount, grace, lifetime, since if calendar else int(now // HOUR),
        int(patient), channel, born, memory.resets,
        len(terms.alert), *terms.alert, *known,
    ]  # fmt: skip
