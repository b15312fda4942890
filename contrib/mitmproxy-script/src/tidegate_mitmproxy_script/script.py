"""A script of mitmproxy: imported, its options set, its hooks found."""

from __future__ import annotations

import ast
import inspect
import logging
import sys
import traceback
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import mitmproxy.eventsequence  # noqa: F401, fills the list of hooks that @concurrent asks
from mitmproxy import addonmanager, exceptions

from .names import CONNECTION, FLOW, IGNORED, LIFE, REFUSED, why_not
from .surroundings import Master, in_place, logging_by, make_ctx

type Hook = Callable[..., Any]

_numbers: Final = count()


class ScriptError(Exception):
    """A script that can't run here; says where and why."""


class Script:
    """One script, loaded. Its hooks are called by the plugin."""

    def __init__(
        self, file: Path, options: Mapping[str, Any], log: logging.Logger, text: str = ""
    ) -> None:
        self.file = file
        self.log = log
        self.master = Master(log)
        self.ctx = make_ctx(self.master)
        try:
            text = text or file.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise ScriptError(f"{file}: {getattr(error, 'strerror', None) or error}") from None
        self.text = text
        try:
            tree = ast.parse(text, str(file))
        except SyntaxError as error:
            raise ScriptError(where(file, text, error)) from error
        if late := late_ctx(tree):
            why = "write `from mitmproxy import ctx`, at the top: each script has its own"
            raise ScriptError(f"{file}:{late}: {why}")
        self.streams = sets_stream(tree)
        """Whether it may give a response's `stream` a function."""
        module = self._import()
        self.addons = list(addonmanager.traverse([module]))  # type: ignore[no-untyped-call]
        self.hooks: dict[str, list[Hook]] = {
            name: found for name in (*FLOW, *LIFE) if (found := self._find(name))
        }
        with in_place(self.ctx):
            self._life(options)

    # -- what it has --------------------------------------------------------------------------

    def has(self, *names: str) -> bool:
        """Whether it has one of these hooks."""
        return any(name in self.hooks for name in names)

    def is_async(self, *names: str) -> bool:
        """Whether one of these hooks is to be awaited."""
        return any(
            inspect.iscoroutinefunction(fn) for name in names for fn in self.hooks.get(name, ())
        )

    def _find(self, name: str) -> list[Hook]:
        found = []
        for addon in self.addons:
            fn = getattr(addon, name, None)
            if fn is None or isinstance(fn, ModuleType):  # `from mitmproxy import tls`, say
                continue
            if not callable(fn):
                raise ScriptError(f"{self.file}: {name} of {addon!r} is not a function")
            found.append(fn)
        return found

    def refused(self, carriers: frozenset[str]) -> dict[str, str]:
        """Its hooks that nothing calls on a node with these carriers, and why."""
        return {
            name: reason
            for name in CONNECTION | REFUSED.keys()
            if (reason := why_not(name, carriers)) and self._find(name)
        }

    def about_connections(self, carriers: frozenset[str]) -> dict[str, list[Hook]]:
        """Its hooks about connections that the engine is to call."""
        return {
            name: found
            for name in sorted(CONNECTION)
            if not why_not(name, carriers) and (found := self._find(name))
        }

    @property
    def ignored(self) -> list[str]:
        """Its hooks and commands that are left out, to nobody's harm."""
        commands = [
            f"command {path}"
            for addon in self.addons
            for member in vars(type(addon) if not isinstance(addon, ModuleType) else addon).values()
            if isinstance(path := getattr(member, "command_name", None), str)
        ]
        return sorted([*(name for name in IGNORED if self._find(name)), *commands])

    # -- loading ------------------------------------------------------------------------------

    def _import(self) -> ModuleType:
        """Run the file as mitmproxy does: its folder is on the path meanwhile."""
        name = f"{self.log.name}.{self.file.stem}_{next(_numbers)}"  # also of its logger
        module = ModuleType(name)
        module.__file__ = str(self.file)
        path = sys.path.copy()
        sys.path.insert(0, str(self.file.parent))
        sys.modules[name] = module
        try:
            with in_place(self.ctx):
                exec(compile(self.text, str(self.file), "exec"), vars(module))  # noqa: S102
        except Exception as error:
            raise ScriptError(where(self.file, self.text, error)) from error
        finally:
            sys.path[:] = path
            del sys.modules[name]
        for key, value in vars(module).items():
            if value is logging:
                vars(module)[key] = logging_by(self.log)
        return module

    def _life(self, options: Mapping[str, Any]) -> None:
        """`load`, the options, `configure`: as mitmproxy does at its start."""
        known: Any = self.master.options
        try:
            self.call("load", addonmanager.Loader(self.master))  # type: ignore[no-untyped-call]
            for name in options:
                if name not in known:
                    close = get_close_matches(name, known.keys(), n=1)
                    hint = f' (did you mean "{close[0]}"?)' if close else ""
                    raise ScriptError(f'{self.file}: it has no option "{name}"{hint}')
            known.update(**options)
            self.call("configure", known.keys())
        except ScriptError:
            raise
        except (exceptions.OptionsError, TypeError, ValueError) as error:
            raise ScriptError(f"{self.file}: {error}") from error
        except Exception as error:
            raise ScriptError(where(self.file, self.text, error)) from error
        known.changed.connect(self._changed)

    def _changed(self, updated: set[str]) -> None:
        self.call("configure", updated)

    def call(self, name: str, *args: Any) -> None:
        """Call a hook that is a plain function."""
        if self.is_async(name):
            raise ScriptError(f"{self.file}: {name} must be a plain def here")
        for fn in self.hooks.get(name, ()):
            fn(*args)


def where(file: Path, text: str, error: BaseException) -> str:
    """`file:line: the statement: what went wrong`."""
    if isinstance(error, SyntaxError) and error.filename == str(file):
        line, reason = error.lineno or 0, f"{error.msg}"
    else:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno or 0 for frame in frames if frame.filename == str(file)]
        line, reason = (lines[-1] if lines else 0), f"{type(error).__name__}: {error}"
    source = text.splitlines()
    statement = f"`{source[line - 1].strip()}`: " if 0 < line <= len(source) else ""
    return f"{file}:{line}: {statement}{reason}" if line else f"{file}: {reason}"


def late_ctx(tree: ast.Module) -> int:
    """The line where a script imports `ctx` in a way that would give it the engine's; 0: none."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and any(x.name == "mitmproxy.ctx" for x in node.names):
            return node.lineno
        functions = (ast.FunctionDef, ast.AsyncFunctionDef)
        if isinstance(node, functions) and node.name not in ("load", "configure"):
            for inner in ast.walk(node):
                match inner:
                    case ast.ImportFrom(module="mitmproxy", names=names):
                        if any(x.name == "ctx" for x in names):
                            return inner.lineno
    return 0


def sets_stream(tree: ast.Module) -> bool:
    """Whether a script gives some `x.stream` a value other than True or False."""
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=targets, value=value) if any(
                isinstance(target, ast.Attribute) and target.attr == "stream" for target in targets
            ):
                if not isinstance(value, ast.Constant):
                    return True
    return False
