"""`tidegate check`: is a configuration right, and what does it do?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from tidegate.api.hookspecs import HOOKS
from tidegate.runtime.lifecycle import Generation, Host, Runtime
from tidegate.runtime.pipeline import Pipeline
from tidegate.runtime.problems import ConfigError
from tidegate.runtime.scope import Scope
from tidegate.runtime.settings import Settings

from .source import STATE, Source, notes, worker_count
from .wire import problems_to_wire

NOWHERE: Final = "\0"
"""Matches no scope that names anything."""


@dataclass(frozen=True, slots=True)
class Part:
    """An addon's part in a phase."""

    addon: str
    mode: str
    rollout: str = ""
    """For whom it enforces, and what holds for the others, in words; "": for all."""

    def __str__(self) -> str:
        more = self.rollout or (self.mode if self.mode != "enforce" else "")
        return f"{self.addon} ({more})" if more else self.addon

    def to_json(self) -> dict[str, str]:
        """As a JSON object."""
        rollout = {"rollout": self.rollout} if self.rollout else {}
        return {"addon": self.addon, "mode": self.mode, **rollout}


@dataclass(frozen=True, slots=True)
class View:
    """What one scope's pipeline does."""

    scope: str
    phases: dict[str, list[Part]]
    """Per phase the addons in the order in which they run."""
    anonymous: bool
    request_body: int | None
    """Bytes up to which request bodies are gathered; None: they stream."""
    response_body: int | None
    streams_gathered: bool
    """Whether event streams are gathered as well (an addon may be a redactor)."""

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "scope": self.scope,
            "anonymous": self.anonymous,
            "phases": {
                phase: [part.to_json() for part in parts] for phase, parts in self.phases.items()
            },
            "request_body": self.request_body,
            "response_body": self.response_body,
            "streams_gathered": self.streams_gathered,
        }


def check(source: Source, state: Path | None, *, as_json: bool) -> None:
    """Print the effective pipelines. Raises ConfigError with all that is wrong."""
    try:
        settings = source.settings()
        generation = load(settings, state or Path(source.base) / STATE)
    except ConfigError as error:
        if as_json:
            print_json({"ok": False, "problems": problems_to_wire(error.problems)})
        raise
    found = views(generation)
    off = [e.name for e in settings.addons if e.mode == "off" or not e.active]
    if as_json:
        body = {"ok": True, "problems": [], "file": source.file, "deployment": source.deployment}
        print_json({**body, "pipelines": [v.to_json() for v in found], "off": off})
    else:
        show(source, found, off, notes(settings))


def load(settings: Settings, state: Path) -> Generation:
    """The compiled configuration; nothing is started. Raises ConfigError."""
    generation, _ = Runtime(Host(state, worker_count(settings))).load(settings)
    return generation


def views(generation: Generation) -> list[View]:
    """The pipeline of each scope that the file names, and of all that is in none."""
    scopes = list(dict.fromkeys(a.scope for a in generation.addons if not a.scope.everything))
    heads = [(scope, sample(scope)) for scope in scopes]
    heads.append((Scope(), (NOWHERE, NOWHERE, "/" + NOWHERE, NOWHERE)))
    out: dict[tuple[str, ...], View] = {}
    for scope, head in heads:
        pipeline = generation.table.match(*head)
        name = str(scope) if not scope.everything or not scopes else "everything else"
        seen = out.get(pipeline.names)
        scope_name = name if seen is None else f"{seen.scope}; {name}"
        out[pipeline.names] = view(scope_name, pipeline)
    return list(out.values())


def sample(scope: Scope) -> tuple[str, str, str, str]:
    """A request head (listener, host, path, method) in a scope."""
    host = (scope.hosts or (NOWHERE,))[0].replace("*", "x")
    path = (scope.paths or ("/" + NOWHERE,))[0].replace("*", "x")
    return (scope.listeners or (NOWHERE,))[0], host, path, (scope.methods or (NOWHERE,))[0]


def view(scope: str, pipeline: Pipeline) -> View:
    """What a pipeline does, as names."""
    phases: dict[str, list[Part]] = {}
    for step in (*pipeline.steps, *pipeline.transforms, *pipeline.events, *pipeline.logs):
        if step.addon != "core":
            rollout = "" if step.rollout is None else str(step.rollout)
            mode = "shadow" if step.shadow else "enforce"
            phases.setdefault(step.hook, []).append(Part(step.addon, mode, rollout))
    gathers = pipeline.body_at < len(pipeline.steps)
    return View(
        scope,
        {hook: phases[hook] for hook in HOOKS if hook in phases},
        pipeline.anonymous,
        pipeline.request_limit if gathers else None,
        pipeline.response_limit if pipeline.gather_response else None,
        pipeline.gather_response == "always",
    )


# -- output -----------------------------------------------------------------------------------


def print_json(value: object) -> None:
    """One line on standard output."""
    print(orjson.dumps(value, default=str).decode())


def show(source: Source, found: list[View], off: list[str], warnings: list[str]) -> None:
    """The pipelines as tables for a person."""
    console = Console(highlight=False)
    where = f" for {source.deployment}" if source.deployment else ""
    console.print(f"{source.file} is right{where}.", markup=False)
    for one in found:
        table = Table(title=f"Scope: {one.scope}", title_justify="left", box=SIMPLE_HEAD)
        table.add_column("phase", style="cyan", no_wrap=True)
        table.add_column("addons, in the order in which they run")
        for phase, parts in one.phases.items():
            table.add_row(phase, " > ".join(map(str, parts)))
        table.add_row("", "")
        table.add_row("callers", "anyone" if one.anonymous else "with a credential")
        table.add_row("bodies", bodies(one))
        console.print()
        console.print(table)
    if off:
        console.print(f"\nOff: {', '.join(off)}", markup=False)
    for warning in warnings:
        console.print(f"Note: {warning}", markup=False)


def bodies(one: View) -> str:
    """How bodies pass, in words."""
    parts = []
    if one.request_body is not None:
        parts.append(f"requests gathered up to {one.request_body} bytes")
    if one.response_body is not None:
        what = "responses and event streams" if one.streams_gathered else "responses"
        parts.append(f"{what} gathered up to {one.response_body} bytes")
    return ", ".join(parts) or "stream"
