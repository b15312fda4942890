"""The tracing pipeline: the plain one, with each step wrapped so that it leaves an `Entry`.

It is made when the first exchange of a scope is traced. The plain pipeline knows nothing of it
and pays nothing for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Generator
from types import CoroutineType, coroutine
from typing import TYPE_CHECKING, Any, Final

from mitmproxy import http

from tidegate.api.exchange import Exchange
from tidegate.api.types import BodySink, Denial, Event, Principal, SseEvent
from tidegate.api.upstream import Upstream

from .changes import View, changes, fingerprint, view
from .faults import Breaker, report
from .pipeline import Pipeline
from .redact import mask_text
from .step import Step, waits
from .tee import Tee
from .trace import Entry, Plan, Trace, Traces

if TYPE_CHECKING:
    from tidegate.api.plugin import Plugin

    from .lifecycle import Generation

type Reason = Callable[[Exchange], str]

ENTRIES: Final = 200
"""Entries of one trace; hooks beyond it run untold."""
_LOOPBACK: Final = ("127.", "::1")
_clock = time.perf_counter_ns


class Tracer:
    """Decides which exchanges of a generation are traced, and who may see the traces."""

    def __init__(self, generation: Generation, traces: Traces) -> None:
        settings = generation.settings
        explain = settings.gateway.explain
        self._generation = generation
        self._traces = traces
        traces.limit = explain.keep
        self._principals = frozenset(explain.principals)
        self._local = settings.gateway.environment == "development"
        self._header = explain.header and bool(self._principals or self._local)
        self._pipelines: dict[Pipeline, TracingPipeline] = {}
        self.below: int = int(explain.sample * 2**96)
        """Exchanges with a seed below it are sampled."""

    def take(self, plain: Pipeline, exchange: Exchange) -> Pipeline:
        """The tracing pipeline for an exchange, or `plain` where no one may see its trace."""
        trace: Trace = exchange.trace or Trace()
        trace.sampled = exchange.seed < self.below
        if not (trace.sampled or trace.forced or self._header):
            exchange.trace = None
            return plain
        pipeline = self._pipelines.get(plain)
        if pipeline is None:
            pipeline = self._pipelines[plain] = TracingPipeline(plain)
        exchange.trace = trace
        trace.begin(pipeline.plan, self.may_see, self._traces)
        return pipeline

    def may_see(self, exchange: Exchange) -> bool:
        """Whether the caller may have the trace: asked once it is known who it is."""
        if not self._header:
            return False
        principal, client = exchange.principal, exchange.client
        if principal is not None and principal.id in self._principals:
            return True
        near = client.address.startswith(_LOOPBACK) and client.peer.startswith(_LOOPBACK)
        return self._local and near


class TracingPipeline(Pipeline):
    """Does what the plain pipeline does, and tells."""

    __slots__ = ("plan",)

    def __init__(self, plain: Pipeline) -> None:
        for name in Pipeline.__slots__:
            setattr(self, name, getattr(plain, name))
        generation = plain.generation
        plugins = {addon.name: addon.instance for addon in generation.addons}

        def wrapped(steps: tuple[Step, ...]) -> tuple[Step, ...]:
            return tuple(traced(step, plugins.get(step.addon)) for step in steps)

        self.steps = wrapped(plain.steps)
        self.transforms = wrapped(plain.transforms)
        told = {s.addon: s for s in self.transforms if s.hook == "transform_response"}
        self.after_cache = tuple(told[step.addon] for step in plain.after_cache)
        self.events = wrapped(plain.events)
        self.logs = wrapped(plain.logs)
        order = (*plain.steps, *plain.transforms, *plain.events, *plain.logs)
        self.plan = Plan(
            tuple((step.hook, step.addon, step.shadow) for step in order),
            tuple(left_out(plain)),
        )

    def finish(self, exchange: Exchange, outcome: str = "") -> None:
        """End the exchange, and complete its trace."""
        if exchange.outcome:
            return
        super().finish(exchange, outcome)
        exchange.trace.note(exchange)


def left_out(plain: Pipeline) -> list[tuple[str, str, Any]]:
    """The addons that are not in a pipeline, or off: (name, why it is off or "", scope)."""
    out = []
    for entry in plain.generation.settings.addons:
        off = "it is off" if entry.mode == "off" else ""
        if not entry.active:
            off = f"it is off: {entry.if_env} is not set"
        if off or entry.name not in plain.names:
            out.append((entry.name, off, entry.scope))
    return out


class _Through(Breaker):
    """The breaker of a traced step: failures count for the plain one."""

    __slots__ = ("_plain",)

    def __init__(self, plain: Step) -> None:
        super().__init__()
        self._plain = plain

    def failed(self, step: Step, error: BaseException) -> bool:
        return self._plain.breaker.failed(self._plain, error)


def traced(plain: Step, plugin: Plugin[Any] | None) -> Step:
    """A step that runs `plain` and leaves an entry on the trace of the exchange."""

    def why(exchange: Exchange) -> str:
        if plugin is None:
            return ""
        try:
            return mask_text(str(plugin.explain(plain.hook, exchange)))
        except Exception as error:
            report(plain, error, exchange)
            return ""

    log = plain.hook == "log"

    def call(exchange: Exchange) -> Any:
        probe = Probe(plain, exchange, why)
        try:
            result = plain.call(exchange)
        except BaseException as error:
            probe.raised(error)
            raise
        if plain.is_async or waits(plain, result) or (log and type(result) is CoroutineType):
            return awaited(result, probe)
        entry = probe.returned(result)
        if isinstance(result, Tee):
            follow(result, entry, exchange)
        return result

    def call_event(exchange: Exchange, event: Event) -> Any:
        return on_event(plain, exchange, event)

    step = Step(
        plain.hook,
        plain.addon,
        call_event if plain.hook == "transform_event" else call,
        position=plain.position,
        is_async=plain.is_async,
        on_error=plain.on_error,
        breaker=_Through(plain),
        counters=plain.counters,
        shadow=plain.shadow,
        rollout=plain.rollout,
    )
    step.rule, step.code = plain.rule, plain.code
    return step


def follow(tee: Tee, entry: Entry, exchange: Exchange) -> None:
    """Tell on the trace what a hook decided that sees the answer once it has passed."""

    def told() -> None:
        shadows = (s for s in exchange.shadows if (s.addon, s.phase) == (entry.addon, entry.hook))
        entry.shadows = [f"{s.decision} {s.detail}".rstrip() for s in shadows]

    tee.told = told


class Probe:
    """Watches one call of a hook."""

    __slots__ = ("_before", "_began", "_exchange", "_own", "_shadows", "_step", "_why")

    def __init__(self, step: Step, exchange: Exchange, why: Reason) -> None:
        self._step = step
        self._exchange = exchange
        self._why = why
        self._before = views(exchange)
        self._shadows = len(exchange.shadows)
        self._own: int | None = None
        self._began = _clock()

    def ran(self, nanoseconds: int) -> None:
        """Add time that an async hook spent running, not waiting."""
        self._own = (self._own or 0) + nanoseconds

    def returned(self, result: object) -> Entry:
        """It returned."""
        entry = self._entry()
        exchange = self._exchange
        entry.result, entry.detail = told(result)
        for old, new in zip(self._before, views(exchange), strict=True):
            if old is not None and new is not None:
                entry.changed += changes(old, new)
        entry.shadows = [
            f"{s.decision} {s.detail}".rstrip() for s in exchange.shadows[self._shadows :]
        ]
        if not entry.acted:
            entry.why = self._why(exchange)
        return entry

    def raised(self, error: BaseException) -> None:
        """It raised."""
        entry = self._entry()
        entry.result, entry.detail = "raised", type(error).__name__

    def _entry(self) -> Entry:
        spent = _clock() - self._began
        own = spent if self._own is None else self._own
        step = self._step
        shadow = in_shadow(step, self._exchange)
        entry = Entry(step.hook, step.addon, shadow, us=own / 1000, waited=(spent - own) / 1000)
        entries = self._exchange.trace.entries
        if len(entries) < ENTRIES:
            entries.append(entry)
        return entry


def in_shadow(step: Step, exchange: Exchange) -> bool:
    """Whether the hook enforces nothing for this exchange: by its mode, or by its rollout."""
    return step.shadow or (step.rollout is not None and step.rollout.outside(exchange))


async def awaited(coro: Coroutine[Any, Any, Any], probe: Probe) -> Any:
    """The coroutine in place of a hook's: who calls hooks knows it by its type."""
    return await timed(coro, probe)


@coroutine
def timed(coro: Coroutine[Any, Any, Any], probe: Probe) -> Generator[Any, Any, Any]:
    """Await an async hook, counting the time in which it runs and not that in which it waits."""
    result: Any = None
    error: BaseException | None = None
    while True:
        began = _clock()
        try:
            yielded = coro.send(result) if error is None else coro.throw(error)
        except StopIteration as stop:
            probe.ran(_clock() - began)
            probe.returned(stop.value)
            return stop.value
        except BaseException as raised:
            probe.ran(_clock() - began)
            probe.raised(raised)
            raise
        probe.ran(_clock() - began)
        result, error = None, None
        try:
            result = yield yielded
        except BaseException as caught:  # cancellation is passed into the hook
            error = caught


def on_event(step: Step, exchange: Exchange, event: Event) -> Any:
    """Run an event transform; all its calls on an exchange make one entry."""
    entries: list[Entry] = exchange.trace.entries
    entry = next((e for e in entries if e.hook == step.hook and e.addon == step.addon), None)
    if entry is None:
        entry = Entry(step.hook, step.addon, in_shadow(step, exchange), calls=0)
        entries.append(entry)
    before, shadows = content_of(event), len(exchange.shadows)
    entry.calls += 1
    began = _clock()
    try:
        result = step.call(exchange, event)
    except BaseException as error:
        entry.us += (_clock() - began) / 1000
        entry.result, entry.detail = "raised", type(error).__name__
        raise
    entry.us += (_clock() - began) / 1000
    if isinstance(result, Denial):
        entry.result, entry.detail = told(result)
    elif (result is not None and result is not event) or content_of(event) != before:
        entry.result = "events"
        if not entry.changed:
            entry.changed = [f"event {fingerprint(before)}→{fingerprint(content_of(event))}"]
    entry.shadows += [f"{s.decision} {s.detail}".rstrip() for s in exchange.shadows[shadows:]]
    return result


def content_of(event: Event) -> bytes:
    """What of an event a hook may change."""
    return event.encode() if isinstance(event, SseEvent) else event.content


def views(exchange: Exchange) -> tuple[View, View | None]:
    """Request and response as they are now."""
    response = exchange.response
    return view(exchange.request), None if response is None else view(response)


def told(result: object) -> tuple[str, str]:
    """The kind of a hook's result, and what it says."""
    match result:
        case None | Tee():
            return "nothing", ""
        case Principal():
            return "principal", result.id
        case Denial():
            return "denial", f"{result.code}: {mask_text(result.message)}"
        case Upstream():
            return "upstream", result.name
        case http.Response():
            return "response", str(result.status_code)
        case BodySink():
            return "sink", ""
        case _:
            return "raised", f"returned {type(result).__name__}"
