"""The queue between an exchange's end and its `log` hooks: bounded, off the request path."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from types import CoroutineType
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
    """Runs `log` hooks from the loop's next turn on; a task runs only where one has to wait."""

    __slots__ = ("_background", "_counters", "_queue", "_scheduled", "_waiting")

    def __init__(
        self, background: Callable[[Coroutine[Any, Any, Any]], None], counters: Counters
    ) -> None:
        self._background = background
        self._counters = counters
        self._queue: deque[tuple[Pipeline, Exchange]] = deque()
        self._scheduled = False
        self._waiting = 0
        """Exchanges that left the queue and wait for what a plain hook waits for."""

    @property
    def busy(self) -> bool:
        """Whether an exchange waits, or meets its hooks now."""
        return self._scheduled or self._waiting > 0

    def put(self, pipeline: Pipeline, exchange: Exchange) -> None:
        """Queue an exchange; over the limit it is dropped and counted."""
        if len(self._queue) + self._waiting >= pipeline.generation.settings.limits.log_queue:
            self._counters.add("log_dropped_total")
            pipeline.generation.release()
            return
        self._queue.append((pipeline, exchange))
        if not self._scheduled:
            self._scheduled = True
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
            for i, step in enumerate(pipeline.logs):
                waiting = log_now(step, exchange)
                if waiting is not None:
                    self._waiting += 1
                    self._background(self._later(waiting, pipeline, i, exchange))
                    break
            else:
                pipeline.generation.release()
        self._go_on()

    async def _later(
        self, waiting: CoroutineType[Any, Any, Any], pipeline: Pipeline, i: int, exchange: Exchange
    ) -> None:
        """Log an exchange whose hook `i` has found something to wait for; others go ahead."""
        try:
            await log_waiting(waiting, pipeline.logs[i], exchange)
            for step in pipeline.logs[i + 1 :]:
                await log_async(step, exchange)
        finally:
            self._waiting -= 1
            pipeline.generation.release()

    async def _drain(self) -> None:
        for _ in range(BATCH):
            if not self._queue:
                break
            pipeline, exchange = self._queue.popleft()
            for step in pipeline.logs:
                await log_async(step, exchange)
            pipeline.generation.release()
        self._go_on()

    def _go_on(self) -> None:
        self._scheduled = bool(self._queue)
        if self._scheduled:
            asyncio.get_running_loop().call_soon(self._next_batch)


def log_now(step: Step, exchange: Exchange) -> CoroutineType[Any, Any, Any] | None:
    """Run one plain `log` hook; what it raises is counted and told.

    It may return a coroutine where there is something to wait for: see `log_waiting`.
    """
    try:
        watch.step = step
        result = step.call(exchange)
        watch.step = None
        if type(result) is CoroutineType:
            return result
        if result is not None:
            raise InvalidOutput.type_of(result)
    except BaseException as error:
        watch.step = None
        step.breaker.failed(step, error)
        report(step, error, exchange)
    return None


async def log_async(step: Step, exchange: Exchange) -> None:
    """Run one `log` hook, async or plain."""
    waiting = log_now(step, exchange)
    if waiting is not None:
        await log_waiting(waiting, step, exchange)


async def log_waiting(
    waiting: CoroutineType[Any, Any, Any], step: Step, exchange: Exchange
) -> None:
    """Wait for one `log` hook within `BOUND`; what it raises is counted and told."""
    limit: asyncio.Timeout | None = None
    try:
        async with asyncio.timeout(BOUND) as limit:
            result = await guarded(waiting, step)
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
