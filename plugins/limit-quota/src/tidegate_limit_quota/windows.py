"""When a limit begins anew, and the clock that says so. Sans I/O.

A window is made of slots; what is spent is booked on the slot it was granted in. A calendar window
is one slot long: the day, the month. A rolling one is sixty, and a slot counts until all of it has
left the window: over any span of the window's length no more than the limit is spent, and it comes
back a sixtieth of the window late at most.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Final
from zoneinfo import ZoneInfo

SECONDS: Final = {
    "second": 1,
    "minute": 60,
    "hour": 3600,
    "day": 86_400,
    "week": 604_800,
    "month": 2_592_000,
}
"""Of a rolling window; a rolling month is 30 days."""
SLOTS: Final = 60
FOREVER: Final = 1 << 53


class Window:
    """The slots of a window. `length` "" has one that never ends: limits of what is in progress."""

    __slots__ = ("_fixed", "_last", "_zone", "length", "rolling")

    def __init__(self, length: str, *, rolling: bool = False, zone: str = "UTC") -> None:
        self.length = length
        self.rolling = rolling
        self._zone: tzinfo = UTC if zone == "UTC" else ZoneInfo(zone)
        self._fixed = 0
        self._last = (0, 0)
        if rolling:
            self._fixed = SECONDS[length] // SLOTS
        elif length in ("second", "minute", "hour"):
            self._fixed = SECONDS[length]

    def slot(self, now: float) -> tuple[int, int]:
        """Start and end of the slot of this time; Unix seconds."""
        if not self.length:
            return 0, FOREVER
        if self._fixed:
            start = int(now // self._fixed) * self._fixed
            return start, start + self._fixed
        last = self._last
        if not last[0] <= now < last[1]:
            day = datetime.fromtimestamp(now, self._zone).date()
            first, after = self._period(day)
            last = self._last = self._midnight(first), self._midnight(after)
        return last

    def counted(self, now: float) -> int:
        """The start of the oldest slot that counts at this time."""
        start = self.slot(now)[0]
        return start - SECONDS[self.length] if self.rolling else start

    def back(self, slot: int) -> int:
        """When what was spent in the slot with this start counts no more."""
        if self.rolling:
            return slot + self._fixed + SECONDS[self.length]
        return self.slot(slot)[1]

    def _period(self, day: date) -> tuple[date, date]:
        """The first day of the day, week or month of a day, and the first one after it."""
        if self.length == "day":
            return day, day + timedelta(days=1)
        if self.length == "week":
            first = day - timedelta(days=day.weekday())
            return first, first + timedelta(days=7)
        first = day.replace(day=1)
        return first, (first + timedelta(days=31)).replace(day=1)

    def _midnight(self, day: date) -> int:
        """The first moment of a day: of a midnight that is twice, the first; where a change of
        the clocks leaves it out, that change."""
        return int(datetime(day.year, day.month, day.day, tzinfo=self._zone).timestamp())


class SteadyClock:
    """Unix time that never goes back: else a step of the wall clock would grant a window twice.

    It runs with the monotonic clock, and follows the wall clock where that goes ahead. Where it
    goes back, this one runs on at nine tenths of its speed until both agree.
    """

    __slots__ = ("_monotonic", "_now", "_seen", "_wall")

    def __init__(
        self, wall: Callable[[], float], monotonic: Callable[[], float], not_before: float = 0.0
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._seen = monotonic()
        self._now = max(wall(), not_before)

    def __call__(self) -> float:
        seen, wall = self._monotonic(), self._wall()
        passed, self._seen = seen - self._seen, seen
        self._now += passed
        ahead = self._now - wall
        self._now -= min(ahead, passed / 10)
        return self._now
