"""The pipeline of one scope: the hooks of its addons, compiled, and the rules of their results.

Compiled means: the hooks of all addons whose scope matches, in the order in which an exchange
meets them, are flattened into tuples of steps when the configuration is loaded, and one loop
runs them. What can be decided once (sync or async, shadow, checks of what a transform left
behind) is decided at compile time and wrapped into `Step.call`, so that the loop stays small:

    request:   authenticate…  (admit)  authorize…  transform_request…  cache_lookup…
               route…  (upstream?)
    response:  cacheable transforms…  cache_store…  other transforms…      (reverse file order)

A gate (authenticate, authorize, route, transforms) that fails ends the exchange; an observer
(cache_lookup, cache_store, log) that fails is counted. Nothing is swallowed without a counter
and a log line that name the addon.

The carriers drive it: `request` up to `body_at`, gather the body, `request` from there on; send
upstream; `response` at the head; `event` for each event; `finish` exactly once. `request` and
`response` are coroutines that suspend only where a hook does: where `suspends` is False, one
`coro.send(None)` runs them to their end without a task.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from mitmproxy import http

from tidegate.api import errors
from tidegate.api.exchange import Exchange
from tidegate.api.types import BodySink, Denial, Event, Principal
from tidegate.api.upstream import Upstream

from .faults import HookExpired, InvalidOutput, StreamCut, current_task, report
from .guard import guarded, watch
from .messages import PreparedResponse, check_event, check_fields, check_prepared, check_response
from .needs import Needs
from .redact import strip_credentials
from .replay import transform_stream
from .shadow import note_failure
from .step import CORE, SafeSink, Step, waits

if TYPE_CHECKING:
    from .addon import Addon
    from .lifecycle import Generation

STOP: Final = sys.maxsize
"""The index that ends the loop: a hook has answered."""

type Steps = tuple[Step, ...]


class Pipeline:
    """The compiled hooks of one scope. Immutable; an exchange keeps the one it started with.

    Attributes:
        names: the addons of this scope, in file order.
        anonymous: whether it lets exchanges without a principal through.
        steps: the request steps; from `body_at` on they may see a whole request body, and the
            upstream of a cache's own fetch is chosen from `fetch_at` on.
        transforms: the response steps; those before `stored_at` run before cache_store, those of
            `after_cache` are what a cached answer still meets.
        events, logs: the event and log steps. `decodes`: an event hook may change a stream;
            `logs_suspend`: a log hook is async.
        suspends: a request or response hook is async: the exchange needs a task.
        request_limit, response_limit: decoded bytes of a body that hooks must see whole.
        gather_response: "" never, "bodies" all but event streams, "always".
    """

    __slots__ = (
        "_after",
        "_stored",
        "after_cache",
        "anonymous",
        "body_at",
        "decodes",
        "events",
        "fetch_at",
        "gather_response",
        "generation",
        "logs",
        "logs_suspend",
        "names",
        "needs",
        "request_limit",
        "response_limit",
        "steps",
        "stored_at",
        "suspends",
        "transforms",
    )

    def __init__(self, generation: Generation, addons: Sequence[Addon]) -> None:
        self.generation = generation
        self.names = tuple(addon.name for addon in addons)
        settings = generation.settings
        listed = [a for a in addons if a.authenticates]
        self.anonymous = not listed or settings.anonymous
        compiled = [(addon, addon.steps) for addon in addons if addon.mode != "off"]

        def phase(hook: str) -> list[Step]:
            return [steps[hook] for _, steps in compiled if hook in steps]

        groups = [
            phase("authenticate"),
            [Step("authorize", "core", self._admit)],
            phase("authorize"),
            phase("transform_request"),
            phase("cache_lookup"),
            phase("route"),
            [Step("route", "core", self._require_upstream)],
        ]
        steps: list[Step] = []
        after: list[int] = []
        for group in groups:
            steps.extend(group)
            after.extend([len(steps)] * len(group))
        self.steps = tuple(steps)
        self._after = tuple(after)  # per step, the index of the first one after its phase

        backwards = compiled[::-1]
        self.stored_at = 0
        transforms: list[Step] = []
        unbroken = True
        for addon, own in backwards:
            transform = own.get("transform_response")
            touches = transform is not None or "transform_event" in own
            if touches and unbroken and not addon.cacheable:
                unbroken = False
                self.stored_at = len(transforms)
                transforms.extend(phase("cache_store"))
            if transform is not None:
                transforms.append(transform)
        if unbroken:
            self.stored_at = len(transforms)
            transforms.extend(phase("cache_store"))
        self.transforms = tuple(transforms)
        self.after_cache = tuple(
            step for step in transforms[self.stored_at :] if step.hook != "cache_store"
        )
        self._stored = self.stored_at + len(phase("cache_store"))
        self.fetch_at = next(i for i, step in enumerate(steps) if step.hook == "route")
        self.events = tuple(
            own["transform_event"] for _, own in backwards if "transform_event" in own
        )
        self.decodes = any(not step.shadow for step in self.events)  # else nothing may change
        self.logs = tuple(phase("log"))
        self.logs_suspend = any(step.is_async for step in self.logs)
        self.needs = Needs(compiled, settings.limits.gather)
        self.request_limit = self.needs.request_limit
        self.response_limit = self.needs.response_limit
        self.gather_response = self.needs.gather_response
        self.body_at = self.needs.first(self.steps, self._after)
        self.suspends = any(s.is_async for s in (*self.steps, *self.transforms))

    def gathers(self, exchange: Exchange, length: int | None) -> bool:
        """Whether the rest of the request steps wait for the request's body, of this length."""
        return self.body_at < len(self.steps) and self.needs.gathers(exchange, length)

    # -- request ------------------------------------------------------------------------------

    def request(
        self, exchange: Exchange, start: int = 0, stop: int | None = None
    ) -> Coroutine[Any, Any, bool]:
        """Run the request steps from `start` to `stop` (default: all).

        True: nothing has answered yet. False: `exchange.response` or `exchange.denial` is set.
        """
        return self._run(exchange, self.steps, start, len(self.steps) if stop is None else stop)

    async def _run(self, exchange: Exchange, steps: Steps, i: int, end: int) -> bool:
        """The loop. True where it came to the end, False where a step ended the phases."""
        mark = watch
        while True:
            step = CORE
            try:
                while i < end:
                    step = steps[i]
                    mark.step = step
                    result = step.call(exchange)
                    if result is not None and (step.is_async or waits(step, result)):
                        mark.step = None
                        result = await guarded(result, step)
                    i = i + 1 if result is None else self._settle(i, step, exchange, result)
                mark.step = None
                return i != STOP
            except BaseException as error:
                mark.step = None
                exchange.denial = self._failed(step, exchange, error)
                if exchange.denial is not None:
                    return False
                i += 1

    def _settle(self, i: int, step: Step, exchange: Exchange, result: object) -> int:
        """Apply what the hook of step `i` returned; the index of the next step, or STOP."""
        if type(result) is PreparedResponse and step.hook == "cache_lookup":
            check_prepared(result.head)
            exchange.response, exchange.from_cache, exchange.answered_by = result, True, step
            return STOP
        if not isinstance(result, step.rule.returns):
            raise InvalidOutput.type_of(result, step.hook, *step.rule.returns)
        if isinstance(result, Principal):
            exchange.principal = result
            return self._after[i]
        if isinstance(result, Upstream):
            exchange.upstream = result
            return self._after[i]
        if isinstance(result, Denial):
            if result.headers:
                check_fields(tuple((n.encode(), v.encode()) for n, v in result.headers))
            exchange.denial = result
        elif isinstance(result, http.Response):
            check_response(result)
            exchange.response = result
            exchange.from_cache = step.hook == "cache_lookup"
            exchange.answered_by = step
        else:
            exchange.sinks = (*exchange.sinks, SafeSink(cast(BodySink, result), step, exchange))
            return i + 1
        return STOP

    def _admit(self, exchange: Exchange) -> Denial | None:
        """Strip what authenticate hooks consumed; ask for a principal where one is needed."""
        if exchange.credentials:
            strip_credentials(exchange)
        if exchange.principal is None and not (self.anonymous or exchange.anonymous):
            return errors.UNAUTHENTICATED.denial(headers=(("www-authenticate", "Bearer"),))
        return None

    def _require_upstream(self, exchange: Exchange) -> Denial | None:
        return errors.NO_ROUTE.denial() if exchange.upstream is None else None

    # -- response -----------------------------------------------------------------------------

    async def response(self, exchange: Exchange) -> tuple[SafeSink, ...]:
        """Run cache_store and the response transforms over `exchange.response`.

        Returns the sinks that want to see a body that streams. `exchange.denial` is set where
        a transform denied or failed: send that instead. A local answer meets the transforms
        outside the addon that gave it; a cached one those on the caller's side of the cache.
        """
        steps = self.transforms
        if exchange.background:
            steps = steps[: self._stored]
        elif exchange.answered_by is not None:
            steps = self._outer(exchange)
        if steps and not await self._run(exchange, steps, 0, len(steps)):
            for sink in exchange.sinks:
                sink.close(complete=False, trailers=None)
            exchange.sinks = ()
        elif self.events and not exchange.background:
            transform_stream(self, exchange)
        return exchange.sinks

    def _outer(self, exchange: Exchange) -> tuple[Step, ...]:
        """The transforms that an answer made here still meets."""
        answered: Step = exchange.answered_by
        if exchange.from_cache:
            return self.after_cache
        transforms = (s for s in self.transforms if s.hook != "cache_store")
        if answered.hook == "route":
            return tuple(transforms)
        return tuple(s for s in transforms if s.position < answered.position)

    def stand_in(self, exchange: Exchange, denial: Denial) -> bool:
        """Let a cache answer where no upstream did; True: `exchange.response` is its answer."""
        fallback, exchange.fallback = exchange.fallback, None
        if fallback is None or denial.status < 500 or not denial.code.startswith("upstream_"):
            return False
        try:
            response = fallback(exchange, denial)
            if response is None:
                return False
            check_response(response)
        except Exception as error:
            report(CORE, error, exchange)
            return False
        exchange.response, exchange.denial = response, None
        exchange.from_cache, exchange.answered_by = True, CORE
        return True

    def sees_events(self, response: http.Response) -> bool:
        """Whether event hooks run on a stream. An encoded one is not decoded for shadow mode."""
        if self.decodes or not self.events:
            return self.decodes
        names = [name.lower() for name, _ in response.data.headers.fields]
        return b"content-encoding" not in names

    def event(self, exchange: Exchange, event: Event) -> Sequence[Event]:
        """Run the event transforms over one event; what is sent instead of it.

        Raises StreamCut where one denied or failed: the stream ends with an error event.
        """
        events: Sequence[Event] = (event,)
        for step in self.events:
            out: list[Event] = []
            for one in events:
                try:
                    watch.step = step
                    result = step.call(exchange, one)
                    watch.step = None
                    if result is None:
                        result = (one,)
                    elif isinstance(result, Denial):
                        raise StreamCut(result)
                    elif not isinstance(result, list | tuple):
                        result = (result,)
                    for new in result:
                        check_event(new, one)
                    out.extend(result)
                except StreamCut:
                    raise
                except BaseException as error:
                    watch.step = None
                    denial = self._failed(step, exchange, error)
                    if denial is not None:
                        raise StreamCut(denial) from None
                    out.append(one)
            events = out
        return events

    # -- the end ------------------------------------------------------------------------------

    def finish(self, exchange: Exchange, outcome: str = "") -> None:
        """End the exchange: settle reservations, hand it to the log. Exactly once."""
        if exchange.outcome:
            return
        if not outcome:
            outcome = "answered"
            if exchange.denial is not None:
                upstream_failed = exchange.attempts and exchange.attempts[-1].error
                outcome = "failed" if exchange.failed_addon or upstream_failed else "denied"
        exchange.outcome = outcome
        exchange.ended = time.monotonic()
        if exchange.credentials and exchange.principal is None:
            strip_credentials(exchange)  # it may have ended before `_admit` did so
        for settle in reversed(exchange.endings):
            try:
                watch.step = CORE
                settle(exchange)
                watch.step = None
            except BaseException as error:
                watch.step = None
                self.generation.runtime.counters.add("at_end_failures_total")
                report(CORE, error, exchange)
        if exchange.background:
            self.generation.release()
        else:
            self.generation.ended(self, exchange)

    def _failed(self, step: Step, exchange: Exchange, error: BaseException) -> Denial | None:
        """What a hook's exception means for the exchange; re-raises a true cancellation."""
        if isinstance(error, asyncio.CancelledError):
            task = current_task()
            if task is not None and task.cancelling():
                if not exchange.expired:
                    raise error
                task.uncancel()
                exchange.expired = False
                error = HookExpired("hung until the deadline")
        elif isinstance(error, GeneratorExit) and step.is_async:
            raise error  # the carrier has closed this coroutine
        timed_out = step.breaker.failed(step, error)
        report(step, error, exchange)
        rule = step.rule
        shadow = step.shadow or (step.rollout is not None and step.rollout.outside(exchange))
        if shadow:
            note_failure(step, exchange, error)
        if not rule.gate or shadow or step.on_error == "skip":
            return None
        exchange.failed_addon = step.addon
        if isinstance(error, InvalidOutput):
            return errors.PLUGIN_INVALID_OUTPUT.denial()
        code = rule.timed_out if timed_out else rule.failed
        assert code is not None
        return code.denial()
