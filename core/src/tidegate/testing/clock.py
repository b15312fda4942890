"""A clock that tests set: time passes only when they say so."""

from __future__ import annotations


class Clock:
    """Wall-clock and monotonic time, both in seconds, both settable.

    Attributes:
        now: Unix seconds, as in `Exchange.now`.
        monotonic: as in `Exchange.started`.
    """

    def __init__(self, now: float = 1_750_000_000.0, monotonic: float = 1_000.0) -> None:
        self.now = now
        self.monotonic = monotonic

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        if seconds < 0:
            raise ValueError("time does not go backwards; to step the wall clock, set `now`")
        self.now += seconds
        self.monotonic += seconds
