"""The generic cell rate algorithm (ITU-T I.371, annex A), in whole nanoseconds, for many keys.

Each key has one number, its theoretical arrival time (TAT): when all that it spent will have
been earned again. A request moves it on by `interval`; it may run ahead of the clock by
`burst` intervals. Integers, because sums of floats drift and a limit is exact.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

SECOND: Final = 1_000_000_000
OVERFLOW: Final = "\x00overflow"
"""The key that all newcomers share while the table is full of keys that are in use."""
EVICTION_TRIES: Final = 8


class Gcra:
    """A limiter per key: `burst` at once, then one each `interval` nanoseconds.

    Memory is bounded by `capacity` keys. Each new key has a look at the two oldest: one whose
    TAT is past says no more than no key at all, and is dropped; others go to the end of the
    line. Where the table is full, and so are the next oldest, the newcomer shares one limit
    with all the other newcomers: nobody is forgotten, and nobody gets by unlimited.
    """

    __slots__ = ("burst", "capacity", "interval", "overflowed", "tats", "window")

    def __init__(self, interval: int, burst: int, capacity: int = 100_000) -> None:
        self.interval = interval
        self.burst = burst
        self.window = interval * burst
        """Nanoseconds in which a spent burst is earned again."""
        self.capacity = capacity
        self.overflowed = 0
        self.tats: OrderedDict[str, int] = OrderedDict()

    def take(self, key: str, now: int) -> int:
        """Spend one. The key's TAT; or where there is none to spend, the wait, negative.

        `now` is monotonic nanoseconds.
        """
        tat = self.tats.get(key)
        if tat is None:
            key = self._admit(key, now)
            tat = self.tats.get(key, now)
        tat = (tat if tat > now else now) + self.interval
        wait = tat - now - self.window
        if wait > 0:
            return -wait
        self.tats[key] = tat
        return tat

    def remaining(self, tat: int, now: int) -> int:
        """How many more a key with this TAT may spend at once."""
        return (self.window - max(0, tat - now)) // self.interval

    def _admit(self, key: str, now: int) -> str:
        """Make room for a new key; the key to use for it."""
        self._sweep(2, now)
        if len(self.tats) >= self.capacity:
            self._sweep(EVICTION_TRIES, now)
        if len(self.tats) >= self.capacity:
            self.overflowed += 1
            return OVERFLOW
        return key

    def _sweep(self, count: int, now: int) -> None:
        tats = self.tats
        for _ in range(min(count, len(tats))):
            key = next(iter(tats))
            if tats[key] <= now:
                del tats[key]
            else:
                tats.move_to_end(key)

    def adopt(self, other: Gcra, now: int) -> None:
        """Take over what the keys of `other` have spent, in its proportion to the burst."""
        if (other.interval, other.burst, other.capacity) == (
            self.interval,
            self.burst,
            self.capacity,
        ):
            self.tats = other.tats
            return
        busy = [(key, tat) for key, tat in other.tats.items() if tat > now]
        for key, tat in busy[-self.capacity :]:
            self.tats[key] = now + min(self.window, (tat - now) * self.window // other.window)
