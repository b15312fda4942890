"""`tidegate whatif`: what another configuration would have done to recorded traffic."""

from __future__ import annotations

import asyncio
import gc
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import orjson
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from tidegate.api.cassette import principal_of
from tidegate.api.recording import Recording
from tidegate.runtime.problems import ConfigError, Problem, nearest
from tidegate.runtime.settings import Settings

from .recordings import read_all
from .source import find
from .verdicts import Pass, Verdict, passes

KINDS: Final = {
    "denied": "allowed → denied",
    "allowed": "denied → allowed",
    "failed": "→ failed",
    "refused_otherwise": "denied otherwise",
    "request_changed": "request changed",
    "response_changed": "response changed",
    "routed": "routed elsewhere",
    "cache_gained": "cache hit gained",
    "cache_lost": "cache hit lost",
}
"""The kinds of difference, by the names that `--fail-on` knows, and how a table says them."""

METRICS: Final = ("changed", "added_us", *KINDS)
_CONDITION: Final = re.compile(r"\s*(\w+)\s*(>=|>)\s*(\d+(?:\.\d+)?)\s*(%?)\s*")
_COMPARE: Final[dict[str, Callable[[float, float], bool]]] = {
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True, slots=True)
class Options:
    """The flags of the verb."""

    old: Path
    new: Path
    recordings: tuple[Path, ...]
    deployment: str = ""
    principal: str = ""
    examples: int = 3


@dataclass(slots=True)
class Row:
    """One kind of difference of one addon and rule."""

    kind: str
    addon: str
    rule: str
    count: int = 0
    examples: list[str] = field(default_factory=list)
    """Request ids, or the places of recordings without one."""


@dataclass(slots=True)
class Report:
    """What differs between two configurations over some exchanges."""

    exchanges: int = 0
    changed: int = 0
    """Exchanges with any difference."""
    unknown_callers: int = 0
    """Exchanges that both refuse for want of a credential: recordings hold none."""
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    rows: dict[tuple[str, str, str], Row] = field(default_factory=dict)
    microseconds: dict[str, tuple[float | None, float | None]] = field(default_factory=dict)
    """Per addon, per exchange: in the old and in the new configuration; None: it is not there."""

    @property
    def added_us(self) -> float:
        """Microseconds of hooks that the new one adds to each exchange."""
        pairs = self.microseconds.values()
        return sum((new or 0.0) - (old or 0.0) for old, new in pairs)

    def value(self, metric: str, *, percent: bool) -> float:
        """A metric, as a count or as a share of all exchanges."""
        if metric == "added_us":
            return self.added_us
        count = self.changed if metric == "changed" else self.counts[metric]
        return 100.0 * count / max(self.exchanges, 1) if percent else count


@dataclass(frozen=True, slots=True)
class Condition:
    """`--fail-on`: such as `denied>0` or `changed>1%`."""

    text: str
    metric: str
    compare: Callable[[float, float], bool]
    limit: float
    percent: bool

    def holds(self, report: Report) -> bool:
        """Whether a pull request should fail."""
        return self.compare(report.value(self.metric, percent=self.percent), self.limit)


def condition(text: str) -> Condition:
    """The condition that a text says. Raises ConfigError."""
    found = _CONDITION.fullmatch(text)
    if found is None or (found[1] == "added_us" and found[4]):
        message = f'--fail-on: {text!r} is no condition: write "denied>0", "changed>1%"'
        raise ConfigError(Problem("invalid_value", message))
    if found[1] not in METRICS:
        message = f"--fail-on: there is no {found[1]!r}: choose from {', '.join(METRICS)}"
        hint = nearest(found[1], METRICS)
        raise ConfigError(Problem("invalid_value", message, hint=hint))
    return Condition(text, found[1], _COMPARE[found[2]], float(found[3]), bool(found[4]))


def whatif(options: Options, fail_on: Sequence[str], *, as_json: bool) -> int:
    """Print the report; the exit status. Raises ConfigError."""
    conditions = [condition(text) for text in fail_on]
    settings = [
        find(file, deployment=options.deployment).settings() for file in (options.old, options.new)
    ]
    recordings = read_all(options.recordings)
    if not recordings:  # a check that has nothing to check must not pass
        places = ", ".join(str(path) for path in options.recordings)
        raise ConfigError(Problem("no_recordings", f"there is no recorded exchange in {places}"))
    gc.freeze()  # what is read stays: the collector need not walk it again and again
    report = asyncio.run(compare(settings, recordings, options.principal, options.examples))
    broken = [one.text for one in conditions if one.holds(report)]
    if as_json:
        print(orjson.dumps(to_json(report, broken)).decode())
    else:
        show(report, broken)
    return 1 if broken else 0


# -- comparing --------------------------------------------------------------------------------


async def compare(
    settings: Sequence[Settings],
    recordings: Iterable[Recording],
    principal: str = "",
    examples: int = 3,
) -> Report:
    """Run the recordings, in the order of their times, through both. Raises ConfigError."""
    ordered = sorted(recordings, key=lambda one: one.now)
    report = Report(exchanges=len(ordered))
    caller = principal_of(principal)
    async with passes(settings) as (old, new):
        for recording in ordered:
            if caller is not None and recording.principal is None:
                recording = replace(recording, principal=caller)
            elapsed = recording.now - ordered[0].now
            was, now = await both(old, new, recording, elapsed)
            judge(report, recording, was, now, examples)
        report.microseconds = times(old, new)
    return report


async def both(
    old: Pass, new: Pass, recording: Recording, elapsed: float
) -> tuple[Verdict, Verdict]:
    """The verdicts of both. They take turns in going first: that one finds its caches cold."""
    if old.exchanges % 2:
        now = await new.run(recording, elapsed)
        return await old.run(recording, elapsed), now
    return await old.run(recording, elapsed), await new.run(recording, elapsed)


def judge(report: Report, recording: Recording, was: Verdict, now: Verdict, examples: int) -> None:
    """Note how the two verdicts on one exchange differ."""
    found = list(differences(was, now))
    report.changed += bool(found)
    if was.end == now.end == "denied" and was.rule == now.rule == "unauthenticated":
        report.unknown_callers += 1
    for kind in {kind for kind, _, _ in found}:
        report.counts[kind] += 1
    for key in dict.fromkeys(found):
        row = report.rows.setdefault(key, Row(*key))
        row.count += 1
        if len(row.examples) < examples:
            row.examples.append(recording.id or recording.name)


def differences(was: Verdict, now: Verdict) -> Iterable[tuple[str, str, str]]:
    """(kind, addon, rule) of each difference."""
    if was.end != now.end:
        kind = "denied" if now.end == "denied" else now.end
        cause = was if now.end == "allowed" else now
        yield kind, cause.by, cause.rule
        return
    if now.end != "allowed":
        if (was.by, was.rule) != (now.by, now.rule):
            yield "refused_otherwise", now.by, f"{was.rule} → {now.rule}"
        return
    if was.cache != now.cache:
        if was.cache:
            yield "cache_lost", was.cache, ""
        if now.cache:
            yield "cache_gained", now.cache, ""
        return
    if was.upstream != now.upstream:
        yield "routed", "", f"{was.upstream or 'answered here'} → {now.upstream or 'answered here'}"
    for kind, old, new in (
        ("request_changed", was.sent, now.sent),
        ("response_changed", was.got, now.got),
    ):
        if old != new:
            yield from causes(kind, was, now)


def causes(kind: str, was: Verdict, now: Verdict) -> Iterable[tuple[str, str, str]]:
    """The addons whose changes differ, where a message does."""
    what = kind.partition("_")[0]
    both = was.changes | now.changes
    found = False
    for addon, rule in both:
        if was.changes.get((addon, rule)) == now.changes.get((addon, rule)):
            continue
        if rule.startswith(what) or rule == "answers itself":
            found = True
            sign = "no longer " if (addon, rule) not in now.changes else ""
            yield kind, addon, sign + rule.partition(": ")[2] if ": " in rule else sign + rule
    if not found:
        yield kind, "", ""


def times(old: Pass, new: Pass) -> dict[str, tuple[float | None, float | None]]:
    """Per addon, microseconds per exchange in both configurations."""
    out: dict[str, tuple[float | None, float | None]] = {}
    for name in dict.fromkeys([*old.nanoseconds, *new.nanoseconds]):
        was, now = (
            one.nanoseconds[name] / 1000 / max(one.exchanges, 1)
            if name in one.nanoseconds
            else None
            for one in (old, new)
        )
        out[name] = (was, now)
    return out


# -- output -----------------------------------------------------------------------------------


def to_json(report: Report, broken: Sequence[str]) -> dict[str, Any]:
    """The report as a JSON object."""
    return {
        "exchanges": report.exchanges,
        "changed": report.changed,
        "unknown_callers": report.unknown_callers,
        "counts": report.counts,
        "added_us": round(report.added_us, 3),
        "rows": [
            {"kind": r.kind, "addon": r.addon, "rule": r.rule, "count": r.count,
             "examples": r.examples}
            for r in ordered_rows(report)
        ],
        "microseconds": {
            name: {"old": was and round(was, 3), "new": now and round(now, 3)}
            for name, (was, now) in report.microseconds.items()
        },
        "failed": list(broken),
    }  # fmt: skip


def ordered_rows(report: Report) -> list[Row]:
    """The gravest kinds first, then the most frequent."""
    kinds = list(KINDS)
    return sorted(report.rows.values(), key=lambda row: (kinds.index(row.kind), -row.count))


def show(report: Report, broken: Sequence[str]) -> None:
    """The report for a person."""
    console = Console(highlight=False)
    share = report.value("changed", percent=True)
    console.print(
        f"{report.exchanges} exchanges, {report.changed} of them would differ ({share:.1f}%)."
    )
    if report.rows:
        table = Table(box=SIMPLE_HEAD)
        for title in ("what", "addon", "rule", "exchanges", "such as"):
            right = title == "exchanges"
            table.add_column(title, justify="right" if right else "left", overflow="fold")
        for row in ordered_rows(report):
            table.add_row(
                KINDS[row.kind], row.addon, row.rule, str(row.count), ", ".join(row.examples)
            )
        console.print(table)
    table = Table(box=SIMPLE_HEAD)
    table.add_column("addon")
    for title in ("old", "new"):
        table.add_column(f"{title}, µs per exchange", justify="right")
    for name, pair in report.microseconds.items():
        table.add_row(name, *("-" if one is None else f"{one:.1f}" for one in pair))
    table.add_row("added", "", f"{report.added_us:+.1f}")
    console.print(table)
    if report.unknown_callers:
        console.print(
            f"{report.unknown_callers} exchanges were refused by both for want of a credential: "
            "recordings hold none. --principal says who called."
        )
    for text in broken:
        console.print(f"Fails: {text}", markup=False)
