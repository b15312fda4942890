"""What the dispatcher does with a hook that fails: names, counts, and trips a breaker."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, Final

from tidegate.api.exchange import Exchange
from tidegate.api.types import Denial

from .blame import place
from .guard import HookBlocked
from .redact import scrub

if TYPE_CHECKING:
    from .step import Step

log = logging.getLogger("tidegate.pipeline")

TRIPS: Final = 5
"""Timeouts of one hook within `WINDOW` seconds that open its breaker."""
WINDOW: Final = 10.0
OPEN: Final = 10.0
"""Seconds for which an open breaker answers in place of the hook."""


class InvalidOutput(Exception):
    """A hook returned a value of a wrong type, or left an invalid message behind."""

    @classmethod
    def type_of(cls, result: object, hook: str = "", *allowed: type) -> InvalidOutput:
        """For a result whose type the hook may not return, and what it may."""
        if asyncio.iscoroutine(result):
            result.close()
            return cls("returned a coroutine from a plain def: write `async def`")
        names = " or ".join([*(t.__name__ for t in allowed), "None"])
        return cls(f"returned {type(result).__name__}; {hook or 'it'} returns {names}")


class HookExpired(Exception):
    """Stands for the cancellation of an async hook that hung until the deadline."""


class BreakerOpen(Exception):
    """Raised in place of a hook that timed out too often."""


class StreamCut(Exception):
    """An event transform denied or failed: the stream ends. Carries the denial to tell."""

    def __init__(self, denial: Denial) -> None:
        super().__init__(denial.code)
        self.denial = denial


class Breaker:
    """Opens after `TRIPS` timeouts: the hook is then not called for `OPEN` seconds.

    It replaces `Step.call`, so that a closed breaker costs nothing per exchange.
    """

    __slots__ = ("_recent",)

    def __init__(self) -> None:
        self._recent: list[float] = []

    def failed(self, step: Step, error: BaseException) -> bool:
        """Note a failure; True where it is a timeout."""
        if isinstance(error, BreakerOpen):
            return True
        if not isinstance(error, HookBlocked | HookExpired):
            return False
        now = time.monotonic()
        self._recent = [t for t in self._recent if now - t < WINDOW]
        self._recent.append(now)
        if len(self._recent) >= TRIPS:
            self._recent.clear()
            self._open(step, now + OPEN)
        return True

    def _open(self, step: Step, until: float) -> None:
        call, is_async = step.call, step.is_async
        log.error("addon %s: %s timed out %d times, not called for %g s",
                  step.addon, step.hook, TRIPS, OPEN)  # fmt: skip
        step.counters.add("breaker_opened_total")

        def tripped(*args: Any) -> Any:
            if time.monotonic() < until:
                raise BreakerOpen(f"not called: {step.hook} timed out {TRIPS} times")
            step.call, step.is_async = call, is_async
            return call(*args)

        step.call = tripped


def report(step: Step, error: BaseException, exchange: Exchange) -> None:
    """One log line and one count that name the addon, the hook and what went wrong."""
    timed_out = isinstance(error, HookBlocked | HookExpired | BreakerOpen)
    step.counters.add("hook_timeouts_total" if timed_out else "hook_failures_total")
    log.error(
        "addon %s failed in %s (exchange %s): %s: %s%s",
        step.addon,
        step.hook,
        exchange.id,
        type(error).__name__,
        scrub(str(error), exchange)[:300],
        place(error, step.code),
    )


def current_task() -> asyncio.Task[Any] | None:
    """The task that runs now; None outside of one, and where no loop runs."""
    try:
        return asyncio.current_task()
    except RuntimeError:  # no loop runs
        return None
