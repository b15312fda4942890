"""Edits of TOML files that keep their comments and their order, for commands that make them.

Not imported by `tidegate.api` itself: a worker has no use for it.
"""

from __future__ import annotations

import difflib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.items import InlineTable, Item


class FileChanged(ValueError):
    """The file is not any more what the edit was made from."""


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
        """Put the new text in place of the old, whole or not at all. Raises FileChanged."""
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
                raise FileChanged(f"{file} was changed by another at the same time: try again")
            fresh.replace(file)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise


def text_of(file: Path) -> str:
    """The very text of a file, line ends included."""
    with file.open(encoding="utf-8", newline="") as opened:
        return opened.read()


def inline(values: Mapping[str, Any]) -> InlineTable:
    """An inline table of these, with spaces as people write them."""
    pairs = ", ".join(f"{tomlkit.key(k).as_string()} = {_value(v)}" for k, v in values.items())
    table: Any = tomlkit.parse(f"x = {{ {pairs} }}")["x"]
    assert isinstance(table, InlineTable)
    return table


def _value(value: Any) -> str:
    if isinstance(value, Item):
        return value.as_string()  # as it stands in the file
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, dict):
        return inline(value).as_string()
    return str(tomlkit.item(value).as_string())
