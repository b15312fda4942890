"""The watchdog: interrupts a hook that blocks the worker's loop.

A hook runs on the loop. One that sleeps, loops or backtracks in a regular expression stops
every exchange of the worker, and no thread can end it. A timer signal can: Python runs its
handler in the main thread, between bytecodes and inside `time.sleep` and `re`, and what the
handler raises comes out of the hook. Only hook code is ever interrupted: the dispatcher marks
it as running (`watch.step = step; watch.seen = False`) and clears the mark after.

A hook seen by two ticks in a row is over its time: it has run for one to two intervals. A tick
that comes late proves nothing (the process was not scheduled) and is not counted.
"""

from __future__ import annotations

import logging
import signal
import time
import traceback
from collections.abc import Coroutine, Generator
from types import FrameType, coroutine
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .pipeline import Step

log = logging.getLogger("tidegate.watchdog")

INTERVAL: Final = 0.2
"""Seconds between ticks: a blocking hook is interrupted after 0.2 to 0.4 s."""


class HookBlocked(BaseException):
    """Raised inside a hook that blocked the loop. Not an Exception: hooks catch those."""


class Watch:
    """Which hook is running now. The two attributes are written by the dispatcher."""

    __slots__ = ("_last", "seen", "step")

    def __init__(self) -> None:
        self.step: Step | None = None
        self.seen = False
        self._last = 0.0

    def start(self) -> None:
        """Start ticking. Main thread only; call it once per worker, on its loop's thread."""
        signal.signal(signal.SIGALRM, self._tick)
        signal.setitimer(signal.ITIMER_REAL, INTERVAL, INTERVAL)

    def stop(self) -> None:
        """Stop ticking."""
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _tick(self, _signum: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        late = now - self._last > 1.5 * INTERVAL
        self._last = now
        step = self.step
        if step is None:
            return
        if not self.seen or late:
            self.seen = True
            return
        stack = "".join(traceback.format_stack(frame, limit=4)) if frame else ""
        self.seen = False  # if the hook swallows this, the next two ticks raise again
        log.error(
            "addon %s blocked the loop in %s, interrupted at:\n%s", step.addon, step.hook, stack
        )
        raise HookBlocked(f"blocked the loop for more than {INTERVAL} s")


watch: Final = Watch()
"""The watchdog of this process: a worker has one loop, on its main thread."""


@coroutine
def guarded(coro: Coroutine[Any, Any, Any], step: Step) -> Generator[Any, Any, Any]:
    """Await an async hook, marking it as running in each of its steps between suspensions."""
    result: Any = None
    error: BaseException | None = None
    while True:
        watch.step = step
        watch.seen = False
        try:
            yielded = coro.send(result) if error is None else coro.throw(error)
        except StopIteration as stop:
            return stop.value
        finally:
            watch.step = None
        result, error = None, None
        try:
            result = yield yielded
        except BaseException as caught:  # cancellation is passed into the hook
            error = caught
