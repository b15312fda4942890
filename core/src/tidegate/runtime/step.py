"""A step: one hook of one addon, ready to be called, and what its result may be."""

from __future__ import annotations

from collections.abc import Callable
from types import CodeType, CoroutineType
from typing import Any, Final

from mitmproxy import http

from tidegate.api import errors
from tidegate.api.exchange import Exchange
from tidegate.api.plugin import Counters
from tidegate.api.types import BodySink, Denial, Principal, SseEvent, WsMessage
from tidegate.api.upstream import Upstream

from .faults import Breaker, report
from .guard import watch
from .rollout import Rollout


class Rule:
    """What a hook may return, and what its failure means. One per hook name."""

    __slots__ = ("failed", "gate", "returns", "timed_out", "waits")

    def __init__(
        self,
        *returns: type,
        failed: errors.ErrorCode | None = None,
        timed_out: errors.ErrorCode | None = None,
        waits: bool = False,
    ) -> None:
        self.waits = waits
        """Whether a plain `def` may return a coroutine: only then its exchange gets a task."""
        self.returns = returns
        self.gate = failed is not None
        self.failed = failed
        self.timed_out = timed_out


_GATE: Final[dict[str, Any]] = {"failed": errors.PLUGIN_FAILED, "timed_out": errors.PLUGIN_TIMEOUT}
_TRANSFORM: Final[dict[str, Any]] = {
    "failed": errors.PLUGIN_TRANSFORM_FAILED,
    "timed_out": errors.PLUGIN_TRANSFORM_TIMEOUT,
}
RULES: Final[dict[str, Rule]] = {
    "authenticate": Rule(Principal, Denial, waits=True, **_GATE),
    "authorize": Rule(Denial, http.Response, waits=True, **_GATE),
    "transform_request": Rule(http.Response, Denial, **_TRANSFORM),
    "cache_lookup": Rule(http.Response, waits=True),
    "route": Rule(Upstream, http.Response, Denial, waits=True, **_GATE),
    "cache_store": Rule(BodySink),
    "transform_response": Rule(Denial, **_TRANSFORM),
    "transform_event": Rule(SseEvent, WsMessage, list, tuple, Denial, **_TRANSFORM),
    "log": Rule(),
}


class Step:
    """One hook of one addon (or of core), ready to be called."""

    __slots__ = (
        "addon",
        "breaker",
        "call",
        "code",
        "counters",
        "hook",
        "is_async",
        "on_error",
        "position",
        "rollout",
        "rule",
        "shadow",
    )

    def __init__(
        self,
        hook: str,
        addon: str,
        call: Callable[..., Any],
        *,
        position: int = 0,
        is_async: bool = False,
        on_error: str = "fail",
        breaker: Breaker | None = None,
        counters: Counters | None = None,
        shadow: bool = False,
        rollout: Rollout | None = None,
    ) -> None:
        self.hook = hook
        self.addon = addon
        self.call = call
        self.code: CodeType | None = getattr(call, "__code__", None)
        """Of the hook itself, whatever `call` is wrapped in: says where it stands."""
        self.position = position
        """Place of the addon in the file: response transforms listed before it are outer."""
        self.is_async = is_async
        self.on_error = on_error
        self.breaker = breaker or Breaker()
        self.counters = counters or Counters()
        self.shadow = shadow
        self.rollout = rollout
        self.rule = RULES[hook]

    def __repr__(self) -> str:
        return f"<Step {self.addon}.{self.hook}>"


CORE: Final = Step("log", "core", lambda _: None)
"""Stands for core's own code, such as `exchange.at_end`, in reports."""


def waits(step: Step, result: object) -> bool:
    """Whether a plain hook that may wait (see `Rule.waits`) has found something to wait for."""
    return step.rule.waits and type(result) is CoroutineType


class SafeSink:
    """A `BodySink` whose failure costs nobody their answer."""

    __slots__ = ("_exchange", "_sink", "_step")

    def __init__(self, sink: BodySink, step: Step, exchange: Exchange) -> None:
        self._sink: BodySink | None = sink
        self._step = step
        self._exchange = exchange
        content = exchange.response.raw_content if exchange.response is not None else None
        if content is not None:
            self.write(content)
            self.close(complete=True, trailers=None)

    @property
    def open(self) -> bool:
        """False once closed, or failed."""
        return self._sink is not None

    def write(self, chunk: bytes) -> None:
        """Pass the next bytes on."""
        if self._sink is not None:
            self._guarded(self._sink.write, chunk)

    def close(self, *, complete: bool, trailers: http.Headers | None) -> None:
        """Pass the end on, once."""
        sink, self._sink = self._sink, None
        if sink is not None:
            self._guarded(lambda _: sink.close(complete=complete, trailers=trailers), b"")

    def _guarded(self, call: Callable[[bytes], None], chunk: bytes) -> None:
        watch.step = self._step
        try:
            call(chunk)
            watch.step = None
        except BaseException as error:
            watch.step = None
            self._sink = None
            self._step.breaker.failed(self._step, error)
            report(self._step, error, self._exchange)
