"""The watchdog: interrupts a hook that blocks the worker's loop.

A hook runs on the loop. One that sleeps, loops or backtracks in a regular expression stops
every exchange of the worker, and no thread can end it. A timer signal can: Python runs its
handler in the main thread, between bytecodes and inside `time.sleep` and `re`, and what the
handler raises comes out of the hook. Only hook code is ever interrupted: the dispatcher marks
it as running (`watch.step = step`) and clears the mark after (`watch.step = None`).

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
    from .step import Step

log = logging.getLogger("tidegate.watchdog")

INTERVAL: Final = 0.2
"""Seconds between ticks: a blocking hook is interrupted after 0.2 to 0.4 s."""


class HookBlocked(BaseException):
    """Raised inside a hook that blocked the loop. Not an Exception: hooks catch those."""


class Suspect:
    """Takes a step's place in the mark at a tick: still there at the next, it has blocked."""

    __slots__ = ("step",)

    def __init__(self, step: Step) -> None:
        self.step = step


class Watch:
    """Which hook is running now. The dispatcher writes `step`, one store per hook call."""

    __slots__ = ("_last", "step")

    def __init__(self) -> None:
        self.step: Step | Suspect | None = None
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
        running = self.step
        if running is None:
            return
        if not isinstance(running, Suspect):
            self.step = Suspect(running)
            return
        if late:
            return
        step = running.step
        self.step = step  # if the hook swallows this, the next two ticks raise again
        stack = "".join(traceback.format_stack(frame, limit=4)) if frame else ""
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
        try:
            yielded = coro.send(result) if error is None else coro.throw(error)
        except StopIteration as stop:
            return stop.value
        except GeneratorExit:
            if isinstance(error, GeneratorExit):
                raise  # this very coroutine is being closed
            raise RuntimeError("the hook raised GeneratorExit") from None
        finally:
            watch.step = None
        result, error = None, None
        try:
            result = yield yielded
        except BaseException as caught:  # cancellation is passed into the hook
            error = caught
