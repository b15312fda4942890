"""Finds plugins (entry points), loads those that are on, and checks them before they serve.

Installed means available; named in `addons.toml` means on. What is not on is not imported.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any, Final, cast

import orjson
import pluggy
from pydantic import ValidationError

from tidegate.api.config import AddonConfig
from tidegate.api.hookspecs import HOOKS, HookSpecs
from tidegate.api.plugin import PROJECT, Plugin

from . import policy_file
from .blame import definition, place
from .entry import AddonEntry
from .problems import ConfigError, KeyPath, Problem, SourceMap, nearest
from .settings import Settings, problems_of

GROUP: Final = "tidegate.plugins"

SIGNATURES: Final = {
    name: tuple(inspect.signature(getattr(HookSpecs, name)).parameters)[1:] for name in HOOKS
}
SYNC_ONLY: Final = frozenset({"transform_event", "bootstrap", "cli_commands", "console_routes"})


def available() -> dict[str, EntryPoint]:
    """The installed plugins by entry-point name; nothing is imported."""
    return {point.name: point for point in entry_points(group=GROUP)}


def load_class(
    entry: AddonEntry,
    settings: Settings,
    path: KeyPath,
    given: Mapping[str, type[Plugin[Any]]] = MappingProxyType({}),
) -> type[Plugin[Any]]:
    """Import the plugin that `entry` uses, or take it from `given`. Raises ConfigError."""
    source = settings.source
    if entry.file is not None:
        return policy_class(entry.file, entry.code, entry.plugin)
    if entry.use in given:
        return _checked(given[entry.use], entry, source, path)
    known = available()
    point = known.get(entry.use)
    if point is None:
        hint = nearest(entry.use, known) or (
            "is its package installed? `tidegate plugins` lists what is"
        )
        raise ConfigError(
            source.problem("unknown_plugin", f'no plugin "{entry.use}"', (*path, "use"), hint)
        )
    try:
        found = point.load()
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        raise ConfigError(
            source.problem(
                "plugin_import_failed",
                f'plugin "{entry.use}" can\'t be imported: '
                f"{type(error).__name__}: {error}{place(error)}",
                (*path, "use"),
            )
        ) from error
    return _checked(found, entry, source, path)


def policy_class(file: str, code: str, choice: str | None) -> type[Plugin[Any]]:
    """The plugin of a policy file whose text is `code`. Raises ConfigError, with the lines."""
    found = policy_file.choose(policy_file.load(file, code), file, choice)
    problems = [
        Problem(p.code, p.message, file, p.line or _line(p, code, found.__name__), p.hint)
        for p in check_class(found, found.__name__)
    ]
    if problems:
        raise ConfigError(problems)
    return found


def _line(problem: Problem, code: str, cls: str) -> int:
    member = re.search(rf"\b{cls}\.(\w+)", problem.message)
    return policy_file.line_of(code, cls, member[1] if member else "")


def _checked(
    found: object, entry: AddonEntry, source: SourceMap, path: KeyPath
) -> type[Plugin[Any]]:
    problems = [
        p if p.file else Problem(p.code, p.message, source.file, source.line(path), p.hint)
        for p in check_class(found, entry.use)
    ]
    if problems:
        raise ConfigError(problems)
    return cast(type[Plugin[Any]], found)


def check_class(found: object, name: str) -> list[Problem]:
    """What is wrong with a plugin class: hooks unmarked, misspelt, or of a wrong shape."""
    if not (isinstance(found, type) and issubclass(found, Plugin)):
        return [Problem("plugin_invalid", f'plugin "{name}": {found!r} is not a Plugin subclass')]
    problems = []
    for attribute in dir(found):
        if attribute.startswith("_"):
            continue
        value = inspect.getattr_static(found, attribute)
        marked = hasattr(value, "tidegate_hook")
        where = f'plugin "{name}": {found.__name__}.{attribute}'
        at = _source(value)
        if not marked and attribute in HOOKS and callable(value):
            text = f"{where} is named like a hook but has no @hook mark"
            hint = f"write @hook above it, or call it _{attribute} if it is none"
            problems.append(Problem("hook_unmarked", text, *at, hint))
        elif marked and attribute not in HOOKS:
            hint = nearest(attribute, HOOKS) or f"hooks are {', '.join(HOOKS)}"
            problems.append(Problem("hook_unknown", f"{where} is not a hook", *at, hint))
        elif marked:
            problems.extend(
                Problem("hook_signature", f"{where} {text}", *at, f"write `{hint}:`")
                for text, hint in _shape(attribute, value)
            )
    return problems


def _shape(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """What is wrong with how a hook is defined, and how it should be."""
    wanted = ", ".join(("self", *SIGNATURES[name]))
    names = tuple(inspect.signature(value).parameters)[1:]
    waits = inspect.iscoroutinefunction(value)
    if waits and name in SYNC_ONLY:
        yield "must be a plain def", f"def {name}({wanted})"
    elif names != SIGNATURES[name]:
        yield f"takes ({wanted})", f"{'async ' if waits else ''}def {name}({wanted})"


def _source(value: Any) -> tuple[str, int]:
    """File and line of a method; none where it has no code of its own."""
    code = getattr(inspect.unwrap(getattr(value, "__func__", value)), "__code__", None)
    return (code.co_filename, definition(code)) if code is not None else ("", 0)


def decode_config(cls: type[Plugin[Any]], entry: AddonEntry, settings: Settings,
                  path: KeyPath) -> AddonConfig:  # fmt: skip
    """The typed options of an addon. Raises ConfigError with each wrong key and its line."""
    try:
        return cls.Config.model_validate(entry.options)
    except ValidationError as error:
        raise ConfigError(
            [
                Problem(
                    p.code,
                    f'addon "{entry.name}": {p.message}',
                    p.file,
                    p.line,
                    p.hint or _no_options(cls),
                )
                for p in problems_of(error, cls.Config, path, settings.source)
            ]
        ) from None


def digest(entry: AddonEntry) -> str:
    """Equal for two entries that need no new instance."""
    what = [entry.use, entry.file, entry.plugin, entry.code, entry.options]
    state = orjson.dumps(what, option=orjson.OPT_SORT_KEYS, default=str)
    return hashlib.sha256(state).hexdigest()


def _no_options(cls: type[Plugin[Any]]) -> str:
    """Why a plugin knows no options: a hint for its author."""
    if cls.Config is not AddonConfig:
        return ""
    return f"{cls.__name__} takes no options: it has no `Config = …`"


class Hooks:
    """pluggy's view of the addons that are on: marker, signature and spelling checks."""

    def __init__(self) -> None:
        self.manager = pluggy.PluginManager(PROJECT)
        self.manager.add_hookspecs(HookSpecs)

    def register(self, name: str, instance: Plugin[Any]) -> None:
        """Register an addon under its name; pluggy checks its hooks against the specs."""
        self.manager.register(instance, name)

    def check(self) -> None:
        """Raises pluggy's PluginValidationError for a hook that no spec knows."""
        self.manager.check_pending()
