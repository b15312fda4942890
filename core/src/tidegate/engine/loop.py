"""The event loop: uvloop, with tasks that start at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop


def eager_task(
    loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **options: Any
) -> asyncio.Task[Any]:
    """Make a task that runs until it first waits.

    uvloop 0.23 hands `eager_start=None` to a factory, which `asyncio.eager_task_factory` does
    not take: every task would then fail to start, and no port would open.
    """
    options.pop("eager_start", None)
    return asyncio.eager_task_factory(loop, coro, **options)


def new_loop() -> asyncio.AbstractEventLoop:
    """A uvloop loop as the engine needs it."""
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    loop.set_task_factory(eager_task)  # type: ignore[arg-type]
    return loop


def run[T](main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine function to its end on a new loop of this thread; its result."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(main())
