"""Runs recorded exchanges through one configuration, offline, and notes what each addon did.

The addons are the real ones. There is no carrier and no upstream: what answered then answers
now. Clock, chance and the order of the exchanges are the recording's. `log` hooks don't run:
they tell others of what has not happened.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter_ns
from types import CoroutineType
from typing import Any, Final

from mitmproxy import http

from tidegate.api.errors import UPSTREAM_UNREACHABLE
from tidegate.api.exchange import Exchange
from tidegate.api.recording import Recording
from tidegate.api.types import Denial, Principal
from tidegate.runtime.addon import Addon
from tidegate.runtime.heads import HeadError
from tidegate.runtime.lifecycle import Host, Runtime
from tidegate.runtime.offline import Offline, exchange_of, response_of
from tidegate.runtime.settings import Settings
from tidegate.runtime.step import Step

START: Final = 1_000.0
"""Monotonic seconds of the first exchange."""
HANGS: Final = 30.0
"""Seconds after which an exchange whose hooks wait is given up."""
NOT_RUN: Final = frozenset({"record-cassette"})
"""Plugins that stand in for upstreams, or write: off here."""

type Change = tuple[str, str]
"""An addon, and what of a message it changed, such as `request: x-team, body`."""


@dataclass(slots=True)
class Verdict:
    """What became of one exchange.

    `end` is allowed, denied or failed; `by` and `rule` say which addon and which code ended it.
    `upstream` is "" where none was asked. `changes` holds a hash of what each change made.
    """

    end: str = "allowed"
    by: str = ""
    rule: str = ""
    upstream: str = ""
    cache: str = ""
    """The addon that answered from memory, or ""."""
    sent: int = 0
    got: int = 0
    """Hashes of what went upstream, and of what the caller got."""
    changes: dict[Change, int] = field(default_factory=dict)


class Pass:
    """One configuration, loaded for recordings. Make it with `passes`."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.nanoseconds: dict[str, int] = {}
        """Time spent in each addon's hooks."""
        self.exchanges = 0
        self._offline = Offline(runtime, UPSTREAM_UNREACHABLE, codecs=False)
        self._verdict = Verdict()
        self._principal: Principal | None = None
        for addon in runtime.current.addons:
            self._trace(addon)
        runtime.current.compile()

    async def run(self, recording: Recording, elapsed: float) -> Verdict:
        """Run one recording that began `elapsed` seconds after the first."""
        self._verdict = verdict = Verdict()
        self._principal = recording.principal
        self.exchanges += 1
        try:
            exchange = exchange_of(recording, START + elapsed)
        except HeadError as error:
            verdict.end, verdict.by, verdict.rule = "denied", "core", error.denial.code
            return verdict
        answer = recording.answer
        self._offline.answer = (
            UPSTREAM_UNREACHABLE if answer is None else response_of(answer, recording.now)
        )
        try:
            async with asyncio.timeout(HANGS):
                await self._offline.run(exchange)
        except TimeoutError:
            verdict.end, verdict.rule = "failed", "hung"
        self._judge(exchange, verdict)
        self._offline.sent.clear()
        return verdict

    def _judge(self, exchange: Exchange, verdict: Verdict) -> None:
        denial = exchange.denial
        if exchange.failed_addon:
            verdict.end, verdict.by = "failed", exchange.failed_addon
        elif denial is not None and exchange.outcome == "denied":
            verdict.end, verdict.by = "denied", verdict.by or "core"
        if denial is not None:
            verdict.rule = denial.code
        if exchange.from_cache:
            verdict.cache = exchange.answered_by.addon
        elif exchange.upstream is not None and self._offline.sent:
            verdict.upstream = exchange.upstream.name
        if self._offline.sent:
            request = self._offline.sent[-1].data
            verdict.sent = hash((request.method, request.path, request.headers.fields,
                                 request.content))  # fmt: skip
        response = exchange.response
        if response is not None:
            data = response.data
            verdict.got = hash((data.status_code, data.headers.fields, data.content))

    # -- what the addons do -------------------------------------------------------------------

    def _trace(self, addon: Addon) -> None:
        """Put a watch around each hook of an addon."""
        self.nanoseconds[addon.name] = 0
        addon.steps.pop("log", None)
        for step in addon.steps.values():
            step.call = self._watched(step, step.call)

    def _watched(self, step: Step, call: Callable[..., Any]) -> Callable[..., Any]:
        if step.hook == "authenticate":
            call = self._known(step, call)
        if step.hook == "transform_event":
            return self._watched_event(step, call)
        name, spent = step.addon, self.nanoseconds

        def watched(exchange: Exchange) -> Any:
            before = view(exchange)
            began = perf_counter_ns()
            result = call(exchange)
            spent[name] += perf_counter_ns() - began
            if type(result) is CoroutineType:
                return later(result, exchange, before)
            self._note(step, exchange, before, result)
            return result

        async def later(coro: Any, exchange: Exchange, before: View) -> Any:
            began = perf_counter_ns()
            result = await coro
            spent[name] += perf_counter_ns() - began
            self._note(step, exchange, before, result)
            return result

        return watched

    def _known(self, step: Step, call: Callable[..., Any]) -> Callable[..., Any]:
        """Recordings hold no credentials: where they say who called, that is who called."""

        def known(exchange: Exchange) -> Any:
            principal = self._principal
            if principal is None:
                return call(exchange)
            result = None if step.shadow else principal
            return _ready(result) if step.is_async else result

        return known

    def _watched_event(self, step: Step, call: Callable[..., Any]) -> Callable[..., Any]:
        name, spent = step.addon, self.nanoseconds

        def watched(exchange: Exchange, event: Any) -> Any:
            began = perf_counter_ns()
            result = call(exchange, event)
            spent[name] += perf_counter_ns() - began
            if isinstance(result, Denial):
                self._verdict.by = name
            elif result is not None or event.changed:
                made = repr(result) if result is not None else repr(event)
                changes, key = self._verdict.changes, (name, "response: events")
                changes[key] = hash((changes.get(key), made))
            return result

        return watched

    def _note(self, step: Step, exchange: Exchange, before: View, result: Any) -> None:
        if isinstance(result, Denial):
            self._verdict.by = step.addon
        elif isinstance(result, http.Response) and step.hook != "cache_lookup":
            self._verdict.changes[step.addon, "answers itself"] = result.status_code
        after = view(exchange)
        for old, new, what in zip(before, after, ("request", "response"), strict=True):
            if old is not None and new is not None and any(map(differs, old, new)):
                names, made = changed(old, new)
                if names:
                    self._verdict.changes[step.addon, f"{what}: {', '.join(names)}"] = made


type Part = tuple[Any, ...]
type View = tuple[Part | None, Part | None]


async def _ready[T](value: T) -> T:
    return value


def differs(old: object, new: object) -> bool:
    """Whether a part of a message is another: none of them can change in place."""
    return old is not new


def view(exchange: Exchange) -> View:
    """The parts of both messages that a hook may change."""
    asked = exchange.request.data
    request = (asked.headers.fields, asked.content, asked.path, asked.method)
    response = exchange.response
    if response is None:
        return request, None
    return request, (response.data.headers.fields, response.data.content, response.data.status_code)


def changed(old: Part, new: Part) -> tuple[list[str], int]:
    """The names of the parts that differ, and a hash of what they are now."""
    fields = set(old[0]) ^ set(new[0])
    lowered = {name.lower().decode("latin-1") for name, _ in fields}
    names = sorted(lowered - {"content-length"})
    made: list[Any] = sorted(set(new[0]) - set(old[0]))
    if old[1] != new[1]:
        names.append("body")
        made.append(new[1])
    rest = ("path", "method") if len(new) == 4 else ("status",)
    for name, was, now in zip(rest, old[2:], new[2:], strict=True):
        if was != now:
            names.append(name)
            made.append(now)
    return names, hash(tuple(made))


@asynccontextmanager
async def passes(settings: Iterable[Settings]) -> AsyncIterator[list[Pass]]:
    """A `Pass` for each configuration, with state of its own. Raises ConfigError."""
    with tempfile.TemporaryDirectory(prefix="tidegate-whatif-") as folder:
        made: list[Pass] = []
        try:
            for number, one in enumerate(settings):
                addons = [
                    entry.model_copy(update={"mode": "off"}) if entry.use in NOT_RUN else entry
                    for entry in one.addons
                ]
                runtime = Runtime(Host(Path(folder, str(number))))
                runtime.commit(await runtime.prepare(replace(one, addons=tuple(addons))))
                made.append(Pass(runtime))
            yield made
        finally:
            for loaded in made:
                await loaded.runtime.close()
