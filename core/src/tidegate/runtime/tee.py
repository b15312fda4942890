"""A response transform in shadow mode that needs bodies: it sees a copy, once all has passed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import CoroutineType
from typing import Any

from mitmproxy import http

from tidegate.api import errors
from tidegate.api.exchange import Exchange

from .changes import view
from .coding import TooLarge, Undecodable, within
from .guard import guarded
from .shadow import compared, note, note_failure, record, shadow_of
from .step import Step

type Late = Callable[[Exchange, Coroutine[Any, Any, None]], None]
"""Runs what an async hook does when its exchange may have ended."""

HOOK = 30.0
"""Seconds that an async hook may take; nobody waits for it."""


def teed(step: Step, fn: Callable[[Exchange], Any], limit: int, late: Late) -> Callable[..., Any]:
    """The hook, as one that returns a `BodySink`. `limit`: decoded bytes."""
    return lambda exchange: Tee(step, fn, exchange, limit, late)


def _nobody() -> None:
    """Nobody follows it."""


class Tee:
    """Collects a copy of an answer's body, shows it to the hook at its end."""

    __slots__ = (
        "_before",
        "_chunks",
        "_copy",
        "_exchange",
        "_fn",
        "_late",
        "_limit",
        "_size",
        "_step",
        "told",
    )

    def __init__(
        self, step: Step, fn: Callable[[Exchange], Any], exchange: Exchange, limit: int, late: Late
    ) -> None:
        self._step = step
        self._fn = fn
        self._exchange = exchange
        self._limit = limit
        self._late = late
        self._copy = shadow_of(exchange)
        assert exchange.response is not None
        data = exchange.response.data  # transforms listed before this addon change it yet
        self._before = data.headers.fields, data.status_code
        self._chunks: list[bytes] = []
        self._size = 0
        self.told: Callable[[], None] = _nobody
        """Called when what the hook would have done has been recorded."""

    def write(self, chunk: bytes) -> None:
        """Keep it, up to the limit."""
        self._size += len(chunk)
        if self._size <= self._limit:
            self._chunks.append(chunk)
        else:
            self._chunks.clear()

    def close(self, *, complete: bool, trailers: http.Headers | None) -> None:
        """Call the hook. What was cut is judged by nobody: it would have been cut in any case."""
        if not complete:
            return
        if self._size > self._limit:
            self._fail(errors.UPSTREAM_BODY_TOO_LARGE.code)
            return
        content = b"".join(self._chunks)
        self._chunks.clear()
        assert self._copy.response is not None
        data = self._copy.response.data
        data.content, data.trailers = content, trailers
        try:
            within(self._before[0], content, self._limit)
        except (TooLarge, Undecodable):
            self._fail(errors.UPSTREAM_BODY_TOO_LARGE.code)
            return
        try:
            result = self._fn(self._copy)
        except Exception as error:
            note_failure(self._step, self._exchange, error)
            self.told()
            raise
        if type(result) is CoroutineType:
            self._late(self._exchange, self._wait(result, content))
        else:
            self._note(result, content)

    def _note(self, result: object, content: bytes) -> None:
        fields, status = self._before
        before = (fields, content, None, None, status)
        change = compared("response", before, view(self._copy.response))
        note(self._step, self._exchange, self._copy, result, change)
        self.told()

    def _fail(self, code: str) -> None:
        record(self._step, self._exchange, "fail", code)
        self.told()

    async def _wait(self, coro: Coroutine[Any, Any, Any], content: bytes) -> None:
        try:
            async with asyncio.timeout(HOOK):
                result = await guarded(coro, self._step)
        except Exception as error:
            note_failure(self._step, self._exchange, error)
            self.told()
            self._step.counters.add("hook_failures_total")
        else:
            self._note(result, content)
