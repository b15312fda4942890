"""What is wrong with a configuration: told with file, line, and the nearest right name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Final

type KeyPath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. `line` is 1-based, 0 where it is not known."""

    code: str
    message: str
    file: str = ""
    line: int = 0
    hint: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}: " if self.line else f"{self.file}: " if self.file else ""
        return f"{where}{self.message}{f' ({self.hint})' if self.hint else ''} [{self.code}]"


class ConfigError(Exception):
    """A configuration that is refused, with all its problems."""

    def __init__(self, problems: Sequence[Problem] | Problem) -> None:
        self.problems = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("\n".join(str(p) for p in self.problems))


def nearest(name: str, known: Iterable[str]) -> str:
    """`did you mean "…"?`, or "" where nothing is near."""
    close = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f'did you mean "{close[0]}"?' if close else ""


_HEADER: Final = re.compile(r"^\s*(\[\[?)\s*([^\]]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY: Final = re.compile(r"""^\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*[\w"'-]+)*)\s*=""")


class SourceMap:
    """Where the keys of a TOML document stand. Good to the line for tables and their keys;
    what is nested in an inline value has the line of that value, or its own where it is near."""

    def __init__(self, text: str, file: str = "") -> None:
        self.file = file
        self._lines: dict[KeyPath, int] = {}
        self._text = text.splitlines()
        counts: dict[KeyPath, int] = {}
        table: KeyPath = ()
        for number, line in enumerate(self._text, 1):
            header = _HEADER.match(line)
            if header and "=" not in header[2]:
                names: list[str | int] = []
                parts = [p.strip().strip("\"'") for p in header[2].split(".")]
                for depth, part in enumerate(parts):
                    names.append(part)
                    key = tuple(names)
                    if header[1] == "[[" and depth == len(parts) - 1:
                        counts[key] = counts.get(key, -1) + 1
                    if key in counts:
                        names.append(counts[key])
                table = tuple(names)
                self._lines.setdefault(table, number)
                continue
            key_match = _KEY.match(line)
            if key_match:
                keys = tuple(p.strip().strip("\"'") for p in key_match[1].split("."))
                self._lines.setdefault((*table, *keys), number)

    def line(self, path: KeyPath) -> int:
        """The line of a key, else of the nearest table around it; 0 where nothing is known."""
        for size in range(len(path), 0, -1):
            found = self._lines.get(path[:size])
            if found is not None:
                return self._nested(found, [p for p in path[size:] if isinstance(p, str)])
        return 0

    def _nested(self, start: int, names: list[str]) -> int:
        """The line at or below `start` that mentions the last of `names`, within its value."""
        if not names:
            return start
        for number in range(start, min(len(self._text), start + 200) + 1):
            line = self._text[number - 1]
            if number > start and (_HEADER.match(line) and "=" not in line):
                break
            if re.search(rf"\b{re.escape(names[-1])}\b\s*=", line):
                return number
        return start

    def problem(self, code: str, message: str, path: KeyPath = (), hint: str = "") -> Problem:
        """A problem at a key."""
        return Problem(code, message, self.file, self.line(path), hint)


def file_problem(code: str, message: str, file: Path, line: int = 0) -> ConfigError:
    """A ConfigError about a whole file."""
    return ConfigError(Problem(code, message, str(file), line))
