"""Runs a pipeline coroutine: without a task where no hook suspends, else under the deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from types import coroutine
from typing import Any, Final, cast

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


def run_until_wait[T](
    coro: Coroutine[Any, Any, T],
) -> tuple[T | None, Coroutine[Any, Any, T] | None]:
    """Run a coroutine up to its end: (result, None); or to where it waits: (None, the rest).

    The usual exchange waits for nothing and needs no task; where a plain hook has found
    something to wait for, the rest is awaited in one.
    """
    try:
        waiting = coro.send(None)
    except StopIteration as stop:
        return stop.value, None
    return None, cast("Coroutine[Any, Any, T]", resumed(coro, waiting))


@coroutine
def resumed(coro: Coroutine[Any, Any, Any], waiting: Any) -> Generator[Any, Any, Any]:
    """Wait for what `coro` waits for, then go on with it."""
    error: BaseException | None = None
    while True:
        got = None
        try:
            got = yield waiting
        except GeneratorExit:
            coro.close()
            raise
        except BaseException as caught:  # a cancellation is the coroutine's to take
            error = caught
        try:
            waiting = coro.send(got) if error is None else coro.throw(error)
        except StopIteration as stop:
            return stop.value
        error = None


async def drive[T](
    coro: Coroutine[Any, Any, T], pipeline: Pipeline, exchange: Exchange, seconds: float
) -> T:
    """Await `coro` (of `pipeline`, for `exchange`) with `seconds` for all that its hooks wait.

    Call it in a task of the exchange's own. Pipelines without async hooks run at once and pay
    for neither timer nor task: see `run_now`.
    """
    if not pipeline.suspends:
        result, rest = run_until_wait(coro)
        if rest is None:
            return cast("T", result)
        await asyncio.sleep(0)  # the caller has not been in a task so far
        coro = rest
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
