"""Policies of one file: `[[addon]] file = "policies/x.py"`, without a package around it.

A file is run once per process for each text that it has had: its module is named after the path
and the text, so that an old version and a new one can stand beside each other during a reload.
`sys.path` is left alone: a policy imports what is installed, not its neighbours.
"""

from __future__ import annotations

import ast
import hashlib
import sys
import tomllib
import traceback
from collections.abc import Iterator, Mapping
from importlib.abc import ExecutionLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from tidegate.api.plugin import Plugin

from .document import expand, overlay
from .problems import ConfigError, Problem, SourceMap, nearest

__all__ = ["PREFIX", "choose", "line_of", "load", "named", "read"]

PREFIX: Final = "tidegate_policy_"
"""How the names of the modules begin."""


def read(file: Path) -> str:
    """The text of a policy file. Raises OSError, or ValueError where it is not UTF-8."""
    return file.read_text(encoding="utf-8")


def named(text: str, base: Path, deployment: str, env: Mapping[str, str]) -> list[Path]:
    """The Python files that a configuration switches on, there or not: policies and scripts.

    What else is wrong with the configuration does not matter here. Raises ValueError where it is
    not TOML.
    """
    nowhere, ignored = SourceMap(""), list[Problem]()
    document, _ = overlay(tomllib.loads(text), deployment, nowhere, ignored)
    tables = expand(document, env, (), nowhere, ignored)["addon"]
    return [base / file for table in tables if is_on(table, env) and (file := code_file(table))]


def code_file(table: Mapping[str, Any]) -> str | None:
    """The Python file that an `[[addon]]` table names: a policy's, else an option such as
    `script = "x.py"`."""
    if is_policy(table):
        return str(table["file"])
    return next((v for v in table.values() if isinstance(v, str) and v.endswith(".py")), None)


def is_policy(table: Mapping[str, Any]) -> bool:
    """Whether an `[[addon]]` table is a policy's: with `use`, a `file` is an option's."""
    return "use" not in table and isinstance(table.get("file"), str)


def is_on(table: Mapping[str, Any], env: Mapping[str, str]) -> bool:
    """Whether an `[[addon]]` table is not `off`, by its mode or by its `if_env`."""
    return table.get("mode") != "off" and ("if_env" not in table or bool(env.get(table["if_env"])))


class _Loader(ExecutionLoader):
    """Runs the text that it was given, under the name of the file."""

    def __init__(self, file: str, text: str) -> None:
        self._file = file
        self._text = text

    def get_filename(self, fullname: str) -> str:
        return self._file

    def get_source(self, fullname: str) -> str:
        return self._text


def load(file: str, text: str) -> ModuleType:
    """The module of a policy file. Raises ConfigError, at the line where it went wrong."""
    digest = hashlib.sha256(f"{file}\0{text}".encode()).hexdigest()[:16]
    name = f"{PREFIX}{Path(file).stem}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = spec_from_file_location(name, file, loader=_Loader(file, text))
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pydantic look annotations up there
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, KeyboardInterrupt):
            raise
        raise ConfigError(_problem(file, text, error)) from error
    return module


def _problem(file: str, text: str, error: BaseException) -> Problem:
    """Where a policy file went wrong, the statement that stands there, and why."""
    if isinstance(error, SyntaxError) and error.filename == file:
        code, line, reason = "policy_syntax", error.lineno or 0, f"{error.msg}"
    else:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
        line = (frames[-1].lineno or 0) if frames else 0
        code, reason = "policy_failed", f"{type(error).__name__}: {error}"
    lines = text.splitlines()
    statement = lines[line - 1].strip() if 0 < line <= len(lines) else ""
    hint = ""
    missing = (error.name or "") if isinstance(error, ModuleNotFoundError) else ""
    if missing and Path(file).with_name(f"{missing.partition('.')[0]}.py").exists():
        hint = "a policy is one file: `tidegate new-plugin` makes a package for more"
    return Problem(code, f"`{statement}`: {reason}" if statement else reason, file, line, hint)


def choose(module: ModuleType, file: str, choice: str | None) -> type[Plugin[Any]]:
    """The plugin of a policy: its only one, or the one that `plugin = "…"` names. ConfigError."""
    found = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, Plugin)
        and value.__module__ == module.__name__
    }
    if choice is not None:
        if choice not in found:
            hint = nearest(choice, found)
            text = f'`plugin`: there is no Plugin subclass "{choice}" here'
            raise ConfigError(Problem("policy_invalid", text, file, hint=hint))
        return found[choice]
    if len(found) == 1:
        return next(iter(found.values()))
    if not found:
        hint = "write `class X(Plugin):`, with `from tidegate.api import Plugin, hook`"
        raise ConfigError(
            Problem("policy_invalid", "there is no Plugin subclass here", file, hint=hint)
        )
    text = f"there are several Plugin subclasses here: {', '.join(found)}"
    hint = 'choose one with `plugin = "…"`'
    raise ConfigError(Problem("policy_invalid", text, file, hint=hint))


def line_of(text: str, cls: str, member: str = "") -> int:
    """The line of a class of a policy, or of a method of it; 0 where it is not found."""
    for node in _definitions(ast.parse(text).body):
        if node.name == cls:
            inner = [x for x in _definitions(node.body) if x.name == member]
            return inner[-1].lineno if inner else node.lineno
    return 0


type Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _definitions(body: list[ast.stmt]) -> Iterator[Definition]:
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
