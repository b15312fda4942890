"""How often a login may be tried: counted for the account, and for the address it comes from."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

FREE: Final = {"account": 5, "source": 20}
"""Tries in a row that fail before one has to wait."""
LONGEST: Final = 300.0
"""Seconds that one waits at most; so long without a try forgives all."""
KEPT: Final = 10_000
"""Accounts and addresses that are remembered."""


class Throttle:
    """Counts tries; the wait doubles with each that fails. A try counts as failed until it is told
    that it was not: many at the same time gain nothing."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._tries: OrderedDict[tuple[str, str], tuple[int, float]] = OrderedDict()
        self._lock = threading.Lock()

    def begin(self, account: str, source: str) -> float:
        """Count a try. Seconds to wait where it may not be made; 0: go on."""
        now, keys = self._clock(), (("account", account), ("source", source))
        with self._lock:
            wait = max(self._wait(key, now) for key in keys)
            if wait > 0:
                return wait
            for key in keys:
                count, _ = self._current(key, now)
                self._tries[key] = (count + 1, now)
                self._tries.move_to_end(key)
            while len(self._tries) > KEPT:
                self._tries.popitem(last=False)
        return 0.0

    def succeeded(self, account: str, source: str) -> None:
        """The try was right: the account starts anew, and it does not count for the address."""
        with self._lock:
            self._tries.pop(("account", account), None)
            key = ("source", source)
            count, last = self._tries.get(key, (0, 0.0))
            if count > 1:
                self._tries[key] = (count - 1, last)
            else:
                self._tries.pop(key, None)

    def _current(self, key: tuple[str, str], now: float) -> tuple[int, float]:
        count, last = self._tries.get(key, (0, now))
        return (0, now) if now - last > LONGEST else (count, last)

    def _wait(self, key: tuple[str, str], now: float) -> float:
        count, last = self._current(key, now)
        over = count - FREE[key[0]]
        if over < 0:
            return 0.0
        return last + min(LONGEST, 2.0 ** min(over, 20)) - now
