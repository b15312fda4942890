"""What a trace holds: which addon did what to one exchange, and how long it took.

A trace is made by the tracing pipeline (`tracing.py`). It holds names, decisions, times and hashes,
never a value that passed; it keeps neither the exchange nor its addons alive.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from tidegate.api.exchange import Exchange

from .redact import mask_text
from .scope import Scope

SUMMARY: Final = 1000
"""Bytes that the field `x-tidegate-explain` of an answer may have."""
_UNSENDABLE: Final = re.compile(r"[^\x20-\x7e]")


@dataclass(slots=True)
class Entry:
    """What one hook did. `us` is its own time in microseconds, `waited` what it awaited.

    `result`: nothing | principal | upstream | response | denial | sink | events | raised.
    """

    hook: str
    addon: str
    shadow: bool = False
    result: str = "nothing"
    detail: str = ""
    why: str = ""
    us: float = 0.0
    waited: float = 0.0
    calls: int = 1
    changed: list[str] = field(default_factory=list)
    shadows: list[str] = field(default_factory=list)

    @property
    def acted(self) -> bool:
        """Whether it had anything to say or to do."""
        return self.result != "nothing" or bool(self.changed or self.shadows)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "addon": self.addon,
            "mode": "shadow" if self.shadow else "enforce",
            "result": self.result,
            "detail": self.detail,
            "why": self.why,
            "us": round(self.us, 1),
            "waited_us": round(self.waited, 1),
            "calls": self.calls,
            "changed": self.changed,
            "shadows": self.shadows,
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """What a tracing pipeline would run, in order, and which addons it leaves out."""

    steps: tuple[tuple[str, str, bool], ...]
    """(hook, addon, shadow)."""
    outside: tuple[tuple[str, str, Scope], ...]
    """(addon, why it is off or "", its scope)."""

    def left_out(self, listener: str, host: str, path: str, method: str) -> list[dict[str, str]]:
        """The addons that this exchange does not meet, and why, in words."""
        return [
            {"addon": addon, "why": off or scope.why_not(listener, host, path, method)}
            for addon, off, scope in self.outside
        ]


class Trace:
    """The trace of one exchange. `Exchange.trace` holds it while the tracing pipeline runs.

    `asked`: the caller sent `x-tidegate-explain`. `forced`: to be kept whoever asks (offline).
    """

    __slots__ = (
        "_facts",
        "_kept",
        "_may_see",
        "asked",
        "entries",
        "forced",
        "plan",
        "sampled",
    )

    def __init__(self, *, asked: bool = False, forced: bool = False) -> None:
        self.asked = asked
        self.forced = forced
        self.sampled = False
        self.entries: list[Entry] = []
        self.plan = Plan((), ())
        self._facts: dict[str, Any] = {}
        self._may_see: Callable[[Exchange], bool] = lambda _: False
        self._kept: Traces | None = None

    def begin(self, plan: Plan, may_see: Callable[[Exchange], bool], kept: Traces) -> None:
        """Say what runs, who may see it, and where it is kept."""
        self.plan, self._may_see, self._kept = plan, may_see, kept

    def fields(self, exchange: Exchange) -> list[tuple[bytes, bytes]]:
        """What the caller's answer carries of it: a summary, or nothing."""
        if not self.asked or not self._may_see(exchange):
            return []
        self.note(exchange)
        return [(b"x-tidegate-explain", self.summary().encode())]

    def note(self, exchange: Exchange) -> None:
        """Take over what is known of the exchange by now; keep the trace where that is allowed."""
        denial, principal = exchange.denial, exchange.principal
        status = exchange.status
        self._facts = {
            "id": exchange.id,
            "time": exchange.now,
            "listener": exchange.listener,
            "client": exchange.client.address,
            "method": exchange.request.data.method.decode("latin-1"),
            "host": exchange.host,
            "path": exchange.path,
            "principal": None if principal is None else principal.id,
            "status": status,
            "code": None if denial is None else denial.code,
            "outcome": exchange.outcome or "in progress",
            "decision": self._decision(exchange),
            "failed_addon": exchange.failed_addon or None,
            "from_cache": exchange.from_cache,
            "upstream": None if exchange.upstream is None else exchange.upstream.name,
            "attempts": [
                {"upstream": a.upstream.name, "status": a.status, "error": a.error}
                for a in exchange.attempts
            ],
            "duration_us": round(((exchange.ended or time.monotonic()) - exchange.started) * 1e6),
        }
        if self._kept is not None and (
            self.sampled or self.forced or (self.asked and self._may_see(exchange))
        ):
            self._kept.add(exchange.id, self)

    def _decision(self, exchange: Exchange) -> str:
        """Who decided the outcome, in a sentence."""
        denial, status = exchange.denial, exchange.status
        if denial is not None:
            told = f"{denial.status} {denial.code}"
            if exchange.failed_addon:
                last = next((e for e in reversed(self.entries) if e.result == "raised"), None)
                how = _failure(last) if last else "failed"
                return f"{told} - {exchange.failed_addon} {how}"
            said = next((e for e in reversed(self.entries) if e.result == "denial"), None)
            if said is None or said.detail.partition(":")[0] != denial.code:
                return f"{told} - {mask_text(denial.message)}"
            if said.addon != "core":
                return f"{told} - {said.addon} said no in {said.hook}: {mask_text(denial.message)}"
            if said.hook == "route":
                return f"{told} - no addon routes this request{self._reasons('route')}"
            return f"{told} - no addon recognised a credential{self._reasons('authenticate')}"
        if status is None:
            return "nothing has answered yet"
        if exchange.from_cache:
            return f"{status} - answered from the cache of {exchange.answered_by.addon}"
        if exchange.answered_by is not None:
            step = exchange.answered_by
            return f"{status} - answered here by {step.addon} in {step.hook}"
        upstream = exchange.attempts[-1].upstream if exchange.attempts else exchange.upstream
        name = "upstream" if upstream is None else upstream.name  # a stream's attempt still lasts
        return f"{status} - answered by {name}"

    def _reasons(self, hook: str) -> str:
        """Why the addons of a phase had nothing to say."""
        told = [f"{e.addon} {e.why}" for e in self.entries if e.hook == hook and e.why]
        return f"; {'; '.join(told)}" if told else ""

    def summary(self) -> str:
        """One line of printable ASCII: the decision, then each hook that ran."""
        parts = [str(self._facts["decision"])]
        for entry in self.entries:
            if entry.addon == "core":
                continue
            mark = "!" if entry.result in ("denial", "raised") else "+" if entry.acted else "-"
            names = [text.partition(" ")[0].lstrip("+-") for text in entry.changed]
            names += [f"would {text.partition(' #')[0]}" for text in entry.shadows]
            said = f" ({' '.join(names)})" if names else ""
            mode = " shadow" if entry.shadow else ""
            parts.append(f"{entry.hook} {mark}{entry.addon}{mode} {entry.us:.0f}us{said}")
        text = _UNSENDABLE.sub("?", " | ".join(parts))
        return text if len(text) <= SUMMARY else text[: SUMMARY - 3] + "..."

    def to_json(self) -> dict[str, Any]:
        """The whole trace as a JSON object."""
        facts = self._facts
        head = (facts["listener"], facts["host"], facts["path"], facts["method"])
        return {
            **facts,
            "hooks_us": round(sum(entry.us for entry in self.entries), 1),
            "phases": self._phases(),
            "left_out": self.plan.left_out(*head),
        }

    def _phases(self) -> list[dict[str, Any]]:
        """The steps by phase, in the order in which the exchange meets them."""
        ran = {(entry.hook, entry.addon): entry for entry in self.entries}
        phases: dict[str, list[dict[str, Any]]] = {}
        for hook, addon, shadow in self.plan.steps:
            entry = ran.get((hook, addon))
            if entry is not None:
                if addon != "core" or entry.acted:
                    phases.setdefault(hook, []).append(entry.to_json())
            elif addon != "core":
                skipped = Entry(hook, addon, shadow, "skipped", why=self._skipped(hook), calls=0)
                phases.setdefault(hook, []).append(skipped.to_json())
        return [{"phase": hook, "steps": steps} for hook, steps in phases.items()]

    def _skipped(self, hook: str) -> str:
        """Why a hook was not called."""
        first = next(
            (e for e in self.entries if e.hook == hook and e.result in ("principal", "upstream")),
            None,
        )
        if first is not None:
            return f"not asked: {first.addon} had the answer"
        if hook == "log":
            return "runs after the answer"
        if hook == "transform_event":
            return "no event passed"
        return "not reached"


class Traces:
    """The last traces of a worker, by request id. Bounded."""

    def __init__(self, limit: int = 200) -> None:
        self.limit = limit
        self._traces: OrderedDict[str, Trace] = OrderedDict()

    def add(self, id: str, trace: Trace) -> None:
        """Keep a trace; the oldest makes room."""
        self._traces[id] = trace
        while len(self._traces) > self.limit:
            self._traces.popitem(last=False)

    def get(self, id: str) -> dict[str, Any] | None:
        """The trace of a request as JSON, or None."""
        trace = self._traces.get(id)
        return None if trace is None else trace.to_json()

    def recent(self) -> list[dict[str, Any]]:
        """What there is, the newest first, without the steps."""
        wanted = ("id", "time", "method", "path", "status", "decision")
        return [
            {name: trace.to_json()[name] for name in wanted}
            for trace in reversed(self._traces.values())
        ]


def _failure(entry: Entry) -> str:
    """What a hook did wrong: raised an error, or returned what it may not."""
    verb = "" if entry.detail.startswith("returned ") else "raised "
    return f"{verb}{entry.detail} in {entry.hook}"
