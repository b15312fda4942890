"""Limits how many requests each caller may make in a window of time."""

from __future__ import annotations

from math import ceil
from typing import Any, Final

from tidegate.api import (
    AddonConfig,
    AddonContext,
    Denial,
    ErrorCode,
    Exchange,
    Plugin,
    Rate,
    hook,
)

WINDOW_FULL: Final = ErrorCode("window_full", 429, "You have made all requests of this window.")


class MyPolicyConfig(AddonConfig):
    """The options of an `[[addon]]` table."""

    rate: Rate = (60, 60.0)


class MyPolicy(Plugin[MyPolicyConfig]):
    """Limits how many requests each caller may make in a window of time."""

    Config = MyPolicyConfig
    codes = (WINDOW_FULL,)

    def __init__(self, config: MyPolicyConfig, context: AddonContext) -> None:
        super().__init__(config, context)
        count, self._period = config.rate
        self._share = ceil(count / context.workers)  # each worker counts on its own
        self._window = 0
        self._counts: dict[str, int] = {}

    @hook
    def startup(self, previous: Plugin[Any] | None) -> None:
        """Keep on counting when the options change: a reload forgives nobody."""
        if isinstance(previous, MyPolicy) and previous._period == self._period:
            self._window, self._counts = previous._window, previous._counts

    @hook
    def authorize(self, exchange: Exchange) -> Denial | None:
        """Count the request; deny it where its caller's share of the window is used up."""
        window = int(exchange.now / self._period)
        if window > self._window:
            self._window, self._counts = window, {}  # forgets all callers: memory is bounded
        caller = exchange.principal.id if exchange.principal else exchange.client.address
        used = self._counts.get(caller, 0)
        if used >= self._share:
            return WINDOW_FULL.denial(retry_after=(window + 1) * self._period - exchange.now)
        self._counts[caller] = used + 1
        return None
