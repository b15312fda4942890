"""Edits of `addons.toml` that keep its comments and its order.

A change is made in the text, the result is checked as `tidegate check` would, and only then takes
the place of the old text, at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import tomlkit
from tomlkit.items import InlineTable

from tidegate.api.edit import Edit, FileChanged, inline, text_of
from tidegate.runtime.document import addon_name
from tidegate.runtime.entry import AddonEntry
from tidegate.runtime.problems import ConfigError, Problem, nearest
from tidegate.runtime.settings import Settings

from .check import load
from .source import DEFAULT, STATE, Source

BEFORE: Final = ("name", "file", "use")
"""After the first of these keys that is there, a key that is new is put."""

type Change = Mapping[str, Any]
"""Keys of an addon, and their new values."""


class CheckedEdit(Edit):
    """A change of a configuration file that was found to be right."""

    __slots__ = ()

    def write(self) -> None:
        """See `Edit.write`. Raises ConfigError."""
        try:
            super().write()
        except FileChanged:
            text = "the file was changed by another at the same time: try again"
            raise ConfigError(Problem("config_changed", text, str(self.file))) from None


def edited(source: Source, name: str, change: Change) -> CheckedEdit:
    """The edit that makes `change`. Raises ConfigError where the result would not be right."""
    if source.file == DEFAULT:
        text = "the built-in configuration can't be changed: write an addons.toml"
        raise ConfigError(Problem("config_built_in", text))
    old = text_of(Path(source.file))
    settings = source.settings()
    find_entry(settings, name)
    new = with_change(old, source.deployment, name, change)
    result = replace(source, text=new).with_texts()
    after = result.settings()
    load(after, Path(source.base) / STATE)
    entry = find_entry(after, name)
    if any(getattr(entry, key) != value for key, value in change.items()):
        text = f'the change of "{name}" has no effect here: edit the file by hand'
        raise ConfigError(Problem("edit_failed", text, source.file))
    return CheckedEdit(Path(source.file), old, new)


def find_entry(settings: Settings, name: str) -> AddonEntry:
    """The addon of that name. Raises ConfigError."""
    found = {entry.name: entry for entry in settings.addons}
    if name not in found:
        hint = nearest(name, found) or f"here are {', '.join(found)}"
        text = f'no addon is named "{name}"'
        raise ConfigError(Problem("unknown_addon", text, settings.file, hint=hint))
    return found[name]


# -- the document -----------------------------------------------------------------------------


def with_change(text: str, deployment: str, name: str, change: Change) -> str:
    """The text with the keys of an addon changed, in the base or in a deployment's overlay."""
    document: Any = tomlkit.parse(text)
    if not deployment:
        put(document["addon"], _index(document["addon"], name), change)
        return tomlkit.dumps(document)
    over = document["deployments"][deployment]
    own = over.get("addon", [])
    if _index(own, name) is not None:
        put(own, _index(own, name), change)
    elif name in over.get("addons", {}):
        put(over["addons"], name, change)
    elif isinstance(over.get("addons"), InlineTable):
        put(over, "addons", {name: inline(change)})
    elif isinstance(over, InlineTable):
        put(document["deployments"], deployment, {"addons": inline({name: inline(change)})})
    else:
        return text + _new_table(text, ("deployments", deployment, "addons", name), change)
    return tomlkit.dumps(document)


def _index(tables: Any, name: str) -> int | None:
    return next((i for i, table in enumerate(tables) if addon_name(table) == name), None)


def _new_table(text: str, path: tuple[str, ...], change: Change) -> str:
    """A table of its own at the end, where it stands between nobody and their comments."""
    end = "\r\n" if "\r\n" in text else "\n"
    header = ".".join(tomlkit.key(key).as_string() for key in path)
    lines = [f"{key} = {tomlkit.item(value).as_string()}" for key, value in change.items()]
    gap = "" if text.endswith("\n") else end
    return gap + end + end.join((f"[{header}]", *lines)) + end


def put(parent: Any, at: Any, change: Change) -> None:
    """Set keys of the table `parent[at]`. New ones come after those that name the addon.

    Not at the end: in tomlkit a comment above the next table is the end of this one.
    """
    table = parent[at]
    if isinstance(table, InlineTable):
        parent[at] = inline({**table, **change})
        return
    after = next((key for key in BEFORE if key in table), None)
    for key, value in change.items():
        if key in table:
            table[key] = value
        elif after is None:
            table.value._insert_at(0, tomlkit.key(key), tomlkit.item(value))
        else:
            table.value._insert_after(after, key, tomlkit.item(value))
        after = key
