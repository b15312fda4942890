"""Where a plugin went wrong: the line of its author's file, not one of a library's or of ours."""

from __future__ import annotations

import linecache
import sysconfig
import traceback
from pathlib import Path
from types import CodeType
from typing import Final

import tidegate

_OURS: Final = str(Path(next(iter(tidegate.__path__))))
_LIBRARIES: Final = tuple({sysconfig.get_path(n) for n in ("stdlib", "purelib", "platlib")})


def place(error: BaseException, code: CodeType | None = None) -> str:
    """` at FILE:LINE`, or "" where an exception has no place of its own.

    `code` is of the hook that raised, or returned what it may not: what lies in its folder is the
    author's, wherever it is installed.
    """
    frames = traceback.extract_tb(error.__traceback__)
    for frame in reversed(frames):
        if _is_authors(frame.filename, code):
            return f" at {frame.filename}:{frame.lineno}"
    if code is not None:
        return f" at {code.co_filename}:{definition(code)}"
    return f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""


def definition(code: CodeType) -> int:
    """The line of a function's `def`: the first line of its code may be a decorator's."""
    first = code.co_firstlineno
    for line in range(first, first + 20):
        if linecache.getline(code.co_filename, line).lstrip().startswith(("def ", "async def ")):
            return line
    return first


def told(error: BaseException, code: CodeType | None = None) -> str:
    """What an exception says at load: a reason that its author wrote, or its type and place."""
    frames = traceback.extract_tb(error.__traceback__)
    text = str(error)
    if frames and text and _is_authors(frames[-1].filename, code):
        last = linecache.getline(frames[-1].filename, frames[-1].lineno or 0)
        if last.lstrip().startswith("raise "):
            return text
    return f"{type(error).__name__}: {text}{place(error, code)}"


def _is_authors(file: str, code: CodeType | None) -> bool:
    if code is not None and file.startswith(str(Path(code.co_filename).parent)):
        return True
    return not file.startswith((_OURS, "<", *_LIBRARIES))
