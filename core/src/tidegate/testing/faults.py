"""Plugins that misbehave in one hook of choice. For tests of what stands around plugins.

Each function gives a class with that one hook. In another process:

    install_plugin(folder, "crash", fault_source("crash_plugin('authenticate', SystemExit)"))
"""

from __future__ import annotations

import asyncio
import inspect
import re
import time
from collections.abc import Callable
from typing import Any, Final, Literal

from mitmproxy import http

from tidegate.api import BodySink, Denial, Plugin, Principal, hook, upstream_from_url
from tidegate.api.hookspecs import HookSpecs

FAULTS: Final = "fault_runs_total"
"""Counts how often the hook was entered."""

type Act = Callable[..., Any]


def plugin_with(name: str, act: Act, *, is_async: bool = False) -> type[Plugin]:
    """A plugin whose only hook, `name`, calls `act(plugin, *arguments)`."""

    def run(self: Plugin, *arguments: Any) -> Any:
        self.context.counters.add(FAULTS)
        return act(self, *arguments)

    async def run_async(self: Plugin, *arguments: Any) -> Any:
        self.context.counters.add(FAULTS)
        result = act(self, *arguments)
        return await result if inspect.isawaitable(result) else result

    method: Any = run_async if is_async else run
    method.__name__ = name
    method.__signature__ = inspect.signature(getattr(HookSpecs, name))
    title = "".join(part.title() for part in name.split("_"))
    return type(f"Faulty{title}", (Plugin,), {name: hook(method), "__module__": __name__})


def crash_plugin(
    name: str, error: type[BaseException] = RuntimeError, *, is_async: bool = False
) -> type[Plugin]:
    """Raises: also SystemExit, CancelledError, KeyboardInterrupt, GeneratorExit."""

    def act(*_: Any) -> None:
        raise error("crash on purpose")

    return plugin_with(name, act, is_async=is_async)


def hang_plugin(name: str, seconds: float = 3600.0, *, stubborn: bool = False) -> type[Plugin]:
    """Awaits for ever. `stubborn`: swallows the first cancellation."""

    async def act(*_: Any) -> None:
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            if not stubborn:
                raise
            await asyncio.sleep(seconds)

    return plugin_with(name, act, is_async=True)


def block_plugin(
    name: str,
    how: Literal["sleep", "loop", "regex"] = "sleep",
    seconds: float = 5.0,
    *,
    is_async: bool = False,
) -> type[Plugin]:
    """Blocks the loop: in `time.sleep`, in a loop, or in a regular expression that backtracks."""

    def act(*_: Any) -> None:
        if how == "sleep":
            time.sleep(seconds)
        elif how == "loop":
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                pass
        else:
            re.match(r"(a+)+$", "a" * 40 + "b")

    return plugin_with(name, act, is_async=is_async)


def wrong_type_plugin(name: str, result: object = 42, *, is_async: bool = False) -> type[Plugin]:
    """Returns what its hook may not."""
    return plugin_with(name, lambda *_: result, is_async=is_async)


def bad_header_plugin(
    name: Literal["transform_request", "transform_response"],
    value: str = "x\r\nset-cookie: evil=1",
) -> type[Plugin]:
    """Sets a field whose value holds a line end."""

    def act(_: Plugin, exchange: Any) -> None:
        message = exchange.request if name == "transform_request" else exchange.response
        message.headers["x-bad"] = value

    return plugin_with(name, act)


def bad_answer_plugin(name: Literal["authorize", "transform_request", "route"]) -> type[Plugin]:
    """Answers with a response whose field value holds a line end."""
    return plugin_with(
        name, lambda *_: http.Response.make(200, b"", {"x-bad": "x\r\nset-cookie: evil=1"})
    )


class SlowSink:
    """A body sink that takes its time over every chunk."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.chunks: list[bytes] = []
        self.complete: bool | None = None

    def write(self, chunk: bytes) -> None:
        time.sleep(self.seconds)
        self.chunks.append(chunk)

    def close(self, *, complete: bool, trailers: http.Headers | None) -> None:
        self.complete = complete


def push_back_plugin(
    name: Literal["cache_store", "transform_event"], seconds: float = 0.02
) -> type[Plugin]:
    """Consumes a body or its events slowly, so that memory or the upstream must wait."""

    def act(*_: Any) -> BodySink | None:
        if name == "cache_store":
            return SlowSink(seconds)
        time.sleep(seconds)
        return None

    return plugin_with(name, act)


def pass_plugin(name: str) -> type[Plugin]:
    """Does its hook's job in the plainest way: the well-behaved neighbour of the others."""
    results = {
        "authenticate": Principal("tester"),
        "route": upstream_from_url("http://127.0.0.1:9"),
    }
    return plugin_with(name, lambda *_: results.get(name))


def deny_plugin(name: Literal["authenticate", "authorize"] = "authorize") -> type[Plugin]:
    """Says no: 403 `closed`."""
    return plugin_with(name, lambda *_: Denial(403, "closed", "Closed for a test."))


def fault_source(call: str) -> str:
    """The text of a module for `install_plugin`: `call` is an expression on this module.

    >>> fault_source("crash_plugin('route', SystemExit)").splitlines()[-1]
    "Faulty = crash_plugin('route', SystemExit)"
    """
    return f"import asyncio\n\nfrom {__name__} import *\n\nFaulty = {call}\n"
