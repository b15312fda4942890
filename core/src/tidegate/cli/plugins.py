"""`tidegate plugins`: what is installed, what is on, where it comes from, which hooks it has.

Also the verbs that addons add to the command line (`cli_commands`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import EntryPoint
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import orjson
from rich.console import Console
from rich.table import Table

from tidegate.api.hookspecs import HOOKS
from tidegate.runtime.lifecycle import Host, make_plugin
from tidegate.runtime.problems import ConfigError, Problem
from tidegate.runtime.registry import available, check_class, policy_class
from tidegate.runtime.settings import Settings

from .source import STATE, Source


@dataclass(frozen=True, slots=True)
class Installed:
    """One plugin on this machine."""

    name: str
    version: str
    distribution: str
    origin: str
    """`editable PATH`, `path PATH`, a URL, `file PATH` (a policy), or `package`."""
    addons: dict[str, str]
    """The addons here that use it: name to mode; empty: it is not on."""
    hooks: list[str] | None
    """None: not imported, because it is not on."""
    problem: str = ""


def installed(settings: Settings | None, *, import_all: bool = False) -> Iterator[Installed]:
    """Every installed plugin, by name. Only those that are on are imported, or all."""
    for name, point in sorted(available().items()):
        entries = settings.addons if settings is not None else ()
        addons: dict[str, str] = {
            e.name: e.mode if e.active else "off"
            for e in entries
            if e.use == name and e.file is None
        }
        hooks, problem = None, ""
        if import_all or any(mode != "off" for mode in addons.values()):
            hooks, problem = hooks_at(point)
        dist = point.dist
        yield Installed(
            name,
            dist.version if dist else "",
            dist.name if dist else "",
            origin(point),
            addons,
            hooks,
            problem,
        )


def policies(settings: Settings) -> Iterator[Installed]:
    """The policies of one file that the configuration names."""
    for entry in settings.addons:
        if entry.file is None:
            continue
        hooks, problem = None, ""
        mode = entry.mode if entry.active else "off"
        if mode != "off":
            try:
                hooks = hooks_of(policy_class(entry.file, entry.code, entry.plugin))
            except ConfigError as error:
                problem = "; ".join(str(p) for p in error.problems)
        origin = f"file {entry.file}"
        yield Installed(entry.use, "", "", origin, {entry.name: mode}, hooks, problem)


def hooks_of(found: type[Any]) -> list[str]:
    """The names of a plugin's hooks."""
    return [n for n in HOOKS if hasattr(getattr(found, n, None), "tidegate_hook")]


def hooks_at(point: EntryPoint) -> tuple[list[str] | None, str]:
    """The hooks of a plugin, or why it can't be imported."""
    try:
        found = point.load()
    except Exception as error:
        return None, f"can't be imported: {type(error).__name__}: {error}"
    problems = check_class(found, point.name)
    if problems:
        return None, "; ".join(problem.message for problem in problems)
    return hooks_of(found), ""


def origin(point: EntryPoint) -> str:
    """Where a distribution came from (PEP 610)."""
    text = point.dist.read_text("direct_url.json") if point.dist else None
    if not text:
        return "package"
    direct = orjson.loads(text)
    url = urlsplit(direct["url"])
    if url.scheme != "file":
        return str(direct["url"])
    kind = "editable" if direct.get("dir_info", {}).get("editable") else "path"
    return f"{kind} {unquote(url.path)}"


def list_plugins(source: Source, *, as_json: bool, only: str, import_all: bool) -> None:
    """Print them. Raises ConfigError where the configuration can't be read."""
    settings = source.settings()
    every = chain(installed(settings, import_all=import_all), policies(settings))
    rows = [p for p in every if only in p.name]
    if as_json:
        print(orjson.dumps([asdict(row) for row in rows]).decode())
        return
    table = Table(box=None, pad_edge=False)
    for column in ("plugin", "version", "here", "hooks", "from"):
        table.add_column(column, overflow="fold")
    for row in rows:
        here = ", ".join(m if n == row.name else f"{n}: {m}" for n, m in row.addons.items())
        hooks = row.problem or ("(not imported)" if row.hooks is None else ", ".join(row.hooks))
        table.add_row(row.name, row.version, here or "-", hooks, row.origin)
    console = Console(highlight=False, markup=False)
    console.print(table)
    if not rows:
        console.print(f"No installed plugin has {only!r} in its name." if only else
                      "No plugin is installed.")  # fmt: skip


def add_verbs(app: Any, source: Source, state: Path | None, verb: str) -> None:
    """Let the addons that are on add their verbs to `app`.

    Raises ConfigError where `verb` is then still unknown and an addon could not be loaded: one
    that is ill must not keep another's verb away.
    """
    settings = source.settings()
    host = Host(state or Path(source.base) / STATE)
    problems: list[Problem] = []
    for position, entry in enumerate(settings.addons):
        if entry.mode == "off" or not entry.active:
            continue
        try:
            commands = getattr(make_plugin(host, settings, position), "cli_commands", None)
        except ConfigError as error:
            problems.extend(error.problems)
            continue
        if commands is not None:
            commands(app)
    if problems and verb not in verbs_of(app):
        raise ConfigError(problems)


def verbs_of(app: Any) -> list[str]:
    """The names of the commands and groups of a Typer application."""
    commands = [c.name or getattr(c.callback, "__name__", "") for c in app.registered_commands]
    groups = [g.name or getattr(g.typer_instance.info, "name", "") for g in app.registered_groups]
    return [str(name).replace("_", "-") for name in (*commands, *groups)]
