"""What is known of a key: for which models it rests, and whether its provider refuses it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from .source import ProviderKey

BASE: Final = 1.0
"""Seconds that a key rests after a 429 that names no time; twice as long each time."""
LONGEST: Final = 60.0
FORBIDDEN: Final = 3
"""403s in a row for one model after which a key rests for it. Not one: providers also say 403 to
what a caller wrote, and a caller must not be able to switch off a key with one call."""

type Alarm = Callable[[str, str], None]
"""Gets an event (`refused`, `forbidden`, `recovered`) and a sentence that names the key."""


class KeyState:
    """One key of one provider, for all its models. Times are monotonic seconds."""

    __slots__ = (
        "_alarm",
        "_forbidden",
        "_ready",
        "_rests",
        "_strikes",
        "key",
        "name",
        "recover",
        "refused",
    )

    def __init__(
        self,
        provider: str,
        key: ProviderKey,
        recover: float,
        alarm: Alarm,
        ready: Callable[[], bool] | None = None,
    ) -> None:
        self.key = key
        self.name = f"{provider}: {key.label}"
        self.recover = recover
        self.refused = 0.0
        """0.0 while the provider takes it; else when it is tried again."""
        self._alarm = alarm
        self._ready = ready
        self._rests: dict[str, float] = {}
        self._strikes: dict[str, int] = {}
        self._forbidden: dict[str, int] = {}

    def wait(self, model: str, now: float) -> float:
        """Seconds until it may be used for a model; 0.0: now. inf: nobody knows."""
        if self._ready is not None and not self._ready():
            return math.inf
        return max(0.0, self.refused - now, self._rests.get(model, 0.0) - now)

    def adopt(self, other: KeyState) -> None:
        """Go on with what is known of the same key."""
        self.refused = other.refused
        self._rests = other._rests
        self._strikes = other._strikes
        self._forbidden = other._forbidden

    def taken(self, now: float) -> None:
        """It is used. Of a refused one this is a trial: the next is due only after `recover`."""
        if self.refused:
            self.refused = now + self.recover

    def answered(self, status: int, model: str, asked: float | None, now: float) -> None:
        """Learn from an answer. `asked`: seconds that the provider wants to be left alone."""
        if status == 401:
            if not self.refused:
                self._alarm("refused", f"{self.name} is refused by its provider (401)")
            self.refused = now + self.recover
        elif status == 403:
            count = self._forbidden[model] = self._forbidden.get(model, 0) + 1
            if count >= FORBIDDEN:
                self._rests[model] = now + self.recover
            if count == FORBIDDEN:
                self._alarm("forbidden", f"{self.name} may not use {model} (403)")
        elif status == 429:
            strikes = self._strikes.get(model, 0)
            self._strikes[model] = min(strikes + 1, 16)
            rest = min(LONGEST, BASE * 2.0**strikes) if asked is None else asked
            self._rests[model] = now + rest
        elif status < 500:
            self._well(model)

    def _well(self, model: str) -> None:
        if self.refused:
            self.refused = 0.0
            self._alarm("recovered", f"{self.name} is taken again")
        if self._rests or self._strikes or self._forbidden:
            self._rests.pop(model, None)
            self._strikes.pop(model, None)
            self._forbidden.pop(model, None)

    def __repr__(self) -> str:
        return f"<KeyState {self.name}>"
