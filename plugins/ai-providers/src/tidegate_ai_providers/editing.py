"""Edits of the list of providers in `addons.toml`, which keep its comments and its order."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomlkit

from tidegate.api.edit import Edit, inline, text_of


def with_provider(file: Path, addon: str, entry: Mapping[str, Any]) -> Edit:
    """The edit that adds a provider, or replaces the one of its name. Raises ValueError."""
    old = text_of(file)
    document: Any = tomlkit.parse(old)
    table = _addon(document, addon, file)
    item = inline(entry)
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
