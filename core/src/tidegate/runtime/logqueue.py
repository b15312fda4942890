"""The queue between an exchange's end and its `log` hooks: bounded, off the request path."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from tidegate.api.exchange import Exchange
from tidegate.api.plugin import Counters

from .faults import HookExpired, InvalidOutput, report
from .guard import guarded, watch
from .step import Step

if TYPE_CHECKING:
    from .pipeline import Pipeline

BATCH: Final = 64
"""Exchanges that are logged before the loop gets its turn again."""
BOUND: Final = 30.0
"""Seconds that one async `log` hook may take."""


class LogQueue:
    """Runs `log` hooks from the loop's next turn on; a task runs only where one is async."""

    __slots__ = ("_background", "_counters", "_queue", "busy")

    def __init__(
        self, background: Callable[[Coroutine[Any, Any, Any]], None], counters: Counters
    ) -> None:
        self._background = background
        self._counters = counters
        self._queue: deque[tuple[Pipeline, Exchange]] = deque()
        self.busy = False
        """Whether an exchange waits, or meets its hooks now."""

    def put(self, pipeline: Pipeline, exchange: Exchange) -> None:
        """Queue an exchange; over the limit it is dropped and counted."""
        if len(self._queue) >= pipeline.generation.settings.limits.log_queue:
            self._counters.add("log_dropped_total")
            pipeline.generation.release()
            return
        self._queue.append((pipeline, exchange))
        if not self.busy:
            self.busy = True
            asyncio.get_running_loop().call_soon(self._next_batch)

    def _next_batch(self) -> None:
        """Log a batch in this very call, up to where a hook may suspend."""
        queue = self._queue
        for _ in range(BATCH):
            if not queue:
                break
            pipeline, exchange = queue[0]
            if pipeline.logs_suspend:
                self._background(self._drain())
                return
            queue.popleft()
            for step in pipeline.logs:
                log_now(step, exchange)
            pipeline.generation.release()
        self._go_on()

    async def _drain(self) -> None:
        for _ in range(BATCH):
            if not self._queue:
                break
            pipeline, exchange = self._queue.popleft()
            for step in pipeline.logs:
                if step.is_async:
                    await log_async(step, exchange)
                else:
                    log_now(step, exchange)
            pipeline.generation.release()
        self._go_on()

    def _go_on(self) -> None:
        self.busy = bool(self._queue)
        if self.busy:
            asyncio.get_running_loop().call_soon(self._next_batch)


def log_now(step: Step, exchange: Exchange) -> None:
    """Run one plain `log` hook; what it raises is counted and told."""
    try:
        watch.step = step
        result = step.call(exchange)
        watch.step = None
        if result is not None:
            raise InvalidOutput.type_of(result)
    except BaseException as error:
        watch.step = None
        step.breaker.failed(step, error)
        report(step, error, exchange)


async def log_async(step: Step, exchange: Exchange) -> None:
    """Run one async `log` hook within `BOUND`; what it raises is counted and told."""
    limit: asyncio.Timeout | None = None
    try:
        watch.step = step
        result = step.call(exchange)
        watch.step = None
        async with asyncio.timeout(BOUND) as limit:
            result = await guarded(result, step)
        if result is not None:
            raise InvalidOutput.type_of(result)
    except BaseException as raised:
        watch.step = None
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        hung = limit is not None and limit.expired()
        error = HookExpired(f"hung for {BOUND:g} s") if hung else raised
        step.breaker.failed(step, error)
        report(step, error, exchange)
