"""Edits of the list of providers in `addons.toml`, which keep its comments and its order."""

from __future__ import annotations

import difflib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.items import InlineTable


@dataclass(frozen=True, slots=True)
class Edit:
    """A new text for a file."""

    file: Path
    old: str
    new: str

    @property
    def diff(self) -> str:
        """As `diff -u` shows it; "" where nothing changes."""
        old, new = (text.splitlines(keepends=True) for text in (self.old, self.new))
        return "".join(difflib.unified_diff(old, new, str(self.file), str(self.file)))

    def write(self) -> None:
        """Put it in place of the old text, whole or not at all. Raises ValueError."""
        file = self.file.resolve()  # a symbolic link stays one
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        fresh = Path(name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8", newline="") as out:
                out.write(self.new)
                out.flush()
                os.fsync(out.fileno())
            fresh.chmod(file.stat().st_mode & 0o7777)
            if text_of(file) != self.old:
                raise ValueError(f"{file} was changed by another at the same time: try again")
            fresh.replace(file)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise


def text_of(file: Path) -> str:
    """The very text of a file, line ends included."""
    with file.open(encoding="utf-8", newline="") as opened:
        return opened.read()


def with_provider(file: Path, addon: str, entry: Mapping[str, Any]) -> Edit:
    """The edit that adds a provider, or replaces the one of its name. Raises ValueError."""
    old = text_of(file)
    document: Any = tomlkit.parse(old)
    table = _addon(document, addon, file)
    item = _inline(entry)
    providers = table.get("providers")
    if providers is None:
        after = "name" if "name" in table else "use"
        table.value._insert_after(after, tomlkit.key("providers"), tomlkit.item([item]))
        return Edit(file, old, tomlkit.dumps(document))
    at = _index(providers, str(entry["name"]))
    if at is not None:
        providers[at] = item
    elif "\n" in providers.as_string():
        providers.add_line(item, indent="  ")
    else:
        providers.append(item)
    return Edit(file, old, tomlkit.dumps(document))


def without_provider(file: Path, addon: str, name: str) -> Edit:
    """The edit that takes a provider out. Raises ValueError: there is none of that name."""
    old = text_of(file)
    document: Any = tomlkit.parse(old)
    providers = _addon(document, addon, file).get("providers", [])
    at = _index(providers, name)
    if at is None:
        raise ValueError(f"{file} has no provider named {name!r}")
    del providers[at]
    return Edit(file, old, tomlkit.dumps(document))


def _addon(document: Any, addon: str, file: Path) -> Any:
    for table in document.get("addon", []):
        if table.get("name", table.get("use")) == addon:
            return table
    raise ValueError(f"{file} has no addon {addon!r} outside its overlays: edit it by hand")


def _index(providers: Any, name: str) -> int | None:
    for number, one in enumerate(providers):
        if (one.get("name") if isinstance(one, Mapping) else str(one)) == name:
            return number
    return None


def _inline(values: Mapping[str, Any]) -> InlineTable:
    """An inline table with spaces as people write them."""
    pairs = ", ".join(
        f"{tomlkit.key(name).as_string()} = {_value(value)}" for name, value in values.items()
    )
    table: Any = tomlkit.parse(f"x = {{ {pairs} }}")["x"]
    assert isinstance(table, InlineTable)
    return table


def _value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, dict):
        return _inline(value).as_string()
    return str(tomlkit.item(value).as_string())
