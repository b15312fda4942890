"""A response transform in shadow mode that needs bodies: it sees a copy, once all has passed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from mitmproxy import http

from tidegate.api import errors
from tidegate.api.exchange import Exchange

from .coding import TooLarge, Undecodable, within
from .guard import guarded
from .shadow import note, note_failure, record, shadow_of
from .step import Step

type Late = Callable[[Exchange, Coroutine[Any, Any, None]], None]
"""Runs what an async hook does when its exchange may have ended."""

HOOK = 30.0
"""Seconds that an async hook may take; nobody waits for it."""


def teed(step: Step, fn: Callable[[Exchange], Any], limit: int, late: Late) -> Callable[..., Any]:
    """The hook, as one that returns a `BodySink`. `limit`: decoded bytes."""
    return lambda exchange: Tee(step, fn, exchange, limit, late)


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
    )

    def __init__(
        self, step: Step, fn: Callable[[Exchange], Any], exchange: Exchange, limit: int, late: Late
    ) -> None:
        self._step = step
        self._fn = fn
        self._exchange = exchange
        self._limit = limit
        self._late = late
        self._before = shadow_of(exchange)
        self._copy = shadow_of(exchange)
        self._chunks: list[bytes] = []
        self._size = 0

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
            record(self._step, self._exchange, "fail", errors.UPSTREAM_BODY_TOO_LARGE.code)
            return
        content = b"".join(self._chunks)
        self._chunks.clear()
        for exchange in (self._before, self._copy):
            assert exchange.response is not None
            exchange.response.data.content = content
            exchange.response.data.trailers = trailers
        try:
            within(self._before.response.data.headers.fields, content, self._limit)  # type: ignore[union-attr]
        except (TooLarge, Undecodable):
            record(self._step, self._exchange, "fail", errors.UPSTREAM_BODY_TOO_LARGE.code)
            return
        try:
            result = self._fn(self._copy)
        except Exception as error:
            note_failure(self._step, self._exchange, error)
            raise
        if asyncio.iscoroutine(result):
            self._late(self._exchange, self._wait(result))
        else:
            note(self._step, self._exchange, self._before, self._copy, result)

    async def _wait(self, coro: Coroutine[Any, Any, Any]) -> None:
        try:
            async with asyncio.timeout(HOOK):
                result = await guarded(coro, self._step)
        except Exception as error:
            note_failure(self._step, self._exchange, error)
            self._step.counters.add("hook_failures_total")
        else:
            note(self._step, self._exchange, self._before, self._copy, result)
