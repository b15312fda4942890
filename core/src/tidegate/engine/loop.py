"""The event loop: uvloop, with ordinary tasks.

mitmproxy's own `Master.run` makes every task of the loop eager. Ours does not: uvloop 0.23 calls
a factory with `eager_start=None`, which `asyncio.eager_task_factory` does not take (no port
would open), and a factory around it is not recognised by anyio, whose cancel scopes then break
in plugins that use it (httpx does). Where the engine gains by an eager task it makes one itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop


def new_loop() -> asyncio.AbstractEventLoop:
    """A uvloop loop."""
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def run[T](main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine function to its end on a new loop of this thread; its result."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(main())


def eager[T](coro: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task that runs at once until it first waits."""
    return asyncio.Task(coro, loop=asyncio.get_running_loop(), eager_start=True)
