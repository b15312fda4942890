"""Runs a pipeline coroutine: without a task where no hook suspends, else under the deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

from tidegate.api.exchange import Exchange

from .pipeline import Pipeline

AGAIN: Final = 1.0
"""Seconds after which a hook that swallowed its cancellation is cancelled again."""


def run_now[T](coro: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never suspends."""
    try:
        coro.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    coro.close()
    raise RuntimeError("a pipeline without async hooks has suspended")


async def drive[T](
    coro: Coroutine[Any, Any, T], pipeline: Pipeline, exchange: Exchange, seconds: float
) -> T:
    """Await `coro` (of `pipeline`, for `exchange`) with `seconds` for all that its hooks wait.

    Call it in a task of the exchange's own. Pipelines without async hooks run at once and pay
    for neither timer nor task: see `run_now`.
    """
    if not pipeline.suspends:
        return run_now(coro)
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    deadline = Deadline(loop, task, exchange, seconds)
    try:
        return await coro
    finally:
        deadline.cancel()
        if exchange.expired:  # a hook swallowed the cancellation: it is over all the same
            exchange.expired = False
            task.uncancel()


class Deadline:
    """Ends hooks that hang: marks the exchange as expired and cancels what it waits for."""

    __slots__ = ("_exchange", "_handle", "_loop", "_task")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        task: asyncio.Task[Any],
        exchange: Exchange,
        seconds: float,
    ) -> None:
        self._loop = loop
        self._task = task
        self._exchange = exchange
        self._handle = loop.call_later(seconds, self._expire)

    def _expire(self) -> None:
        if self._exchange.expired:
            self._task.uncancel()  # the one before was swallowed
        self._exchange.expired = True
        self._task.cancel()
        self._handle = self._loop.call_later(AGAIN, self._expire)

    def cancel(self) -> None:
        """Stop the timer."""
        self._handle.cancel()
