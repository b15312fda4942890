"""An `[[addon]]` table, as far as core reads it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import ConfigDict, Field

from tidegate.api.config import Model

from . import policy_file
from .document import policy_name
from .problems import KeyPath, Problem
from .scope import Scope

CORE_KEYS: Final = frozenset(
    {"use", "name", "mode", "percent", "rest", "scope", "on_error", "if_env"}
)
"""What core reads of every `[[addon]]` table; of a policy's also `file` and `plugin`."""

type Texts = Mapping[str, str | None]
"""The texts of policy files, by absolute path; None: it is to be read."""


class AddonEntry(Model):
    """What core reads of an `[[addon]]` table; `options` is the rest, for the plugin.

    `percent` is the share of the callers for which `enforce` holds, `rest` what holds for others.
    For a policy of one file, `file` is its absolute path, `plugin` the class. `code` is the text of
    that file, or of the Python file that an option of a plugin names.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    use: str
    name: str
    mode: Literal["off", "shadow", "enforce"] = "enforce"
    percent: float | None = Field(default=None, ge=0, le=100)
    rest: Literal["shadow", "off"] = "shadow"
    scope: Scope = Scope()
    on_error: Literal["fail", "skip"] = "fail"
    if_env: str | None = None
    file: str | None = None
    plugin: str | None = None
    code: str = ""
    options: dict[str, Any] = Field(default_factory=dict)

    @property
    def active(self) -> bool:
        """False where `if_env` names a variable that is not set."""
        return self.if_env is None or bool(os.environ.get(self.if_env))


def fields_of(table: dict[str, Any], base: Path) -> dict[str, Any]:
    """The fields of an `AddonEntry`."""
    policy = policy_file.is_policy(table)
    keys = CORE_KEYS | {"file", "plugin"} if policy else CORE_KEYS
    core = {k: v for k, v in table.items() if k in keys}
    core["options"] = {k: v for k, v in table.items() if k not in keys}
    if policy:
        core["use"] = policy_name(core["file"])
        core["file"] = str(base / core["file"])
    core.setdefault("name", core.get("use", ""))
    return core


def with_code(
    entry: AddonEntry,
    base: Path,
    texts: Texts,
    problem: Callable[[str, str, KeyPath], Problem],
    path: KeyPath,
    problems: list[Problem],
) -> AddonEntry:
    """An entry with the text of the file that it names; a plugin says itself where it can't."""
    file = entry.file
    if file is None:
        named = policy_file.code_file(entry.options)
        if named is None:
            return entry
        file = str(base / named)
    code = texts.get(file)
    if code is None:
        try:
            code = policy_file.read(Path(file))
        except (OSError, ValueError) as error:
            if entry.file is None:
                return entry
            reason = getattr(error, "strerror", None) or str(error)
            text = f"{entry.file} can't be read: {reason}"
            problems.append(problem("policy_unreadable", text, (*path, "file")))
            return entry
    return entry.model_copy(update={"code": code})
