"""All prompts of an addon: read from a folder and from the configuration, by path."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from .operation import Operation
from .options import AiPromptsConfig, Case, Example, Expectation, Output, Prompt, Variable, Version
from .templates import BrokenTemplate

FIELDS: Final = sorted(
    {
        field.alias or name
        for model in (Prompt, Version, Variable, Example, Output, Case, Expectation)
        for name, field in model.model_fields.items()
    }
)
"""What may stand in a prompt, wherever."""

type Signature = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """A path that is served."""

    path: str
    operation: Operation
    latest: bool


class Book:
    """The operations by path. Raises ValueError, with file and line where they are known."""

    def __init__(self, config: AiPromptsConfig, base: Path) -> None:
        self.prompts: list[Prompt] = []
        self.entries: dict[str, Entry] = {}
        for prompt in config.prompts:
            self._add(prompt, config, None)
        if config.folder is not None:
            for file in files(base / config.folder):
                self._add(read(file), config, file)

    def _add(self, prompt: Prompt, config: AiPromptsConfig, file: Path | None) -> None:
        where = f"{file}: " if file is not None else f"prompt {prompt.name}: "
        if any(prompt.name == other.name for other in self.prompts):
            raise ValueError(f"{where}there are two prompts called {prompt.name!r}")
        self.prompts.append(prompt)
        path = f"{config.prefix}/{prompt.name}"
        for version in prompt.versions:
            try:
                operation = Operation(prompt, version, config.fuel)
            except BrokenTemplate as error:
                raise ValueError(f"{_place(file, error.source) or where}{error}") from None
            except ValueError as error:
                raise ValueError(f"{where}version {version.version}: {error}") from None
            numbered = f"{path}/v{version.version}"
            self.entries[numbered] = Entry(numbered, operation, latest=False)
            if version is prompt.current:
                self.entries[path] = Entry(path, operation, latest=True)

    def find(self, name: str, version: int | None = None) -> Operation | None:
        """A prompt's operation; without a version, the one of its short path."""
        for entry in self.entries.values():
            operation = entry.operation
            if operation.prompt.name == name and (
                entry.latest if version is None else operation.version.version == version
            ):
                return operation
        return None

    def operations(self) -> Iterator[tuple[str, Operation]]:
        """(numbered path, operation) of every version."""
        for entry in self.entries.values():
            if not entry.latest:
                yield entry.path, entry.operation


def files(folder: Path) -> list[Path]:
    """The prompts' files. Raises ValueError where there is no such folder."""
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    return sorted(folder.glob("*.toml"))


def signature(folder: Path) -> Signature:
    """What changes when a file of the folder does."""
    found = []
    for file in files(folder):
        stat = file.stat()
        found.append((file.name, stat.st_mtime_ns, stat.st_size))
    return tuple(found)


def read(file: Path) -> Prompt:
    """The prompt of a file; its name is the file's where it says none. Raises ValueError."""
    try:
        table: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{file}: {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: {error}") from None
    try:
        return Prompt.model_validate({"name": file.stem, **table})
    except ValidationError as error:
        raise ValueError(f"{file}{_told(error, file)}") from None


def _told(error: ValidationError, file: Path) -> str:
    """The first fault, with the line of its key. A name that is unknown comes before all others."""
    faults = error.errors(include_url=False)
    first = next((fault for fault in faults if fault["type"] == "extra_forbidden"), faults[0])
    keys = [str(step) for step in first["loc"] if not isinstance(step, int)]
    reason = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        near = get_close_matches(keys[-1], FIELDS, n=1)
        reason = f"there is no such field{f': did you mean `{near[0]}`?' if near else ''}"
    if keys[:1] == ["versions"]:
        del keys[0]
    line = _line_of(file, keys[-1]) if keys else 0
    named = ".".join(keys)
    return f"{f':{line}' if line else ''}: {f'`{named}`: ' if named else ''}{reason}"


def _line_of(file: Path, text: str) -> int:
    """The first line that holds `text`; 0: none does."""
    if text:
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            if text in line:
                return number
    return 0


def _place(file: Path | None, source: str) -> str:
    if file is None:
        return ""
    line = _line_of(file, source.strip())
    return f"{file}:{line}: " if line else f"{file}: "


def describe(version: Version) -> str:
    """A prompt's variables in one line."""
    return ", ".join(
        f"{name}{'' if variable.is_required else '?'}: {variable.type}"
        for name, variable in version.variables.items()
    )
