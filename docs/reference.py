"""`api.md`: what a plugin and its tests import, made from signatures and docstrings."""

from __future__ import annotations

import ast
import inspect
import itertools
import re
import sys
from types import FunctionType
from typing import Any, TypeAliasType

from pydantic import BaseModel
from typing_extensions import is_protocol

from tidegate import api, testing
from tidegate.testing import Contract

FIRST = ("Exchange", "Principal", "Denial", "Upstream", "upstream_from_url", "Body", "hook")
"""What an author needs first."""
FOREIGN = {
    "Secret": "A string that is shown as `**********`, such as in a log: pydantic's `SecretStr`. "
    "`.get_secret_value()` gives it.",
}
"""Names of other packages, whose own texts are for other readers."""
KIT = (
    *("Harness", "Use", "make_exchange", "make_answer", "Clock", "Gateway", "ScriptedUpstream"),
    *("PluginContract", "AuthContract", "AuthorizeContract", "TransformContract"),
    *("CacheContract", "RouteContract", "LogContract"),
)
"""What of the test kit an author meets."""


def reference() -> str:
    """The page."""
    lines = ["# What a plugin imports", "", "Everything of `tidegate.api`. Requests and responses"]
    lines += ["are mitmproxy's `http.Request` and `http.Response`: see [plugins.md](plugins.md)."]
    for name in dict.fromkeys((*FIRST, *api.__all__)):
        lines += described(api, name)
    lines += ["", "# What its tests import", "", "Of `tidegate.testing`. The tests of a contract"]
    lines += ["suite can't be overridden; what is listed under it can: what `PluginContract` has,"]
    lines += ["all suites have."]
    for name in KIT:
        lines += described(testing, name)
    return "\n".join([*lines, "", "Made from the code by `uv run python docs/build.py`.", ""])


def described(module: Any, name: str) -> list[str]:
    """A name's heading, signature, text, and the members that are the reader's business."""
    value = getattr(module, name)
    lines = ["", f"## {name}", ""]
    if name in FOREIGN:
        return [*lines, FOREIGN[name]]
    if isinstance(value, TypeAliasType):
        return [*lines, f"`{value.__value__}`".replace("tidegate.api.types.", "")]
    if not isinstance(value, type | FunctionType):
        return [*lines, text_of(module, name)]
    suite = isinstance(value, type) and issubclass(value, BaseModel | Contract)
    if not suite and not (isinstance(value, type) and is_protocol(value)):
        lines += ["```python", signature(value, name), "```", ""]
    lines.append(markdown(inspect.getdoc(value) or ""))
    if isinstance(value, type):
        rows = [row for member in members(value) if (row := member_row(value, member))]
        lines += ["", *rows] if rows else []
    return lines


def members(cls: type) -> list[str]:
    """The public members that a class of ours or its bases of ours define."""
    ours = [c for c in cls.__mro__ if c.__module__.startswith("tidegate")]
    if issubclass(cls, Contract) and cls is not testing.PluginContract:
        ours.remove(Contract)
    names = dict.fromkeys(n for c in ours for n in vars(c))
    return [n for n in names if not n.startswith(("_", "test_"))]


def member_row(cls: type, name: str) -> str:
    """One line for a method or a property; "" for the rest, which the text of the class tells."""
    value = inspect.getattr_static(cls, name)
    if isinstance(value, property):
        text, shown = inspect.getdoc(value.fget), name
    elif inspect.isfunction(value):
        text, shown = inspect.getdoc(value), signature(value, name)
    else:
        return ""
    return f"- `{shown}`: {' '.join((text or '').partition(chr(10) * 2)[0].split())}"


def signature(value: Any, name: str) -> str:
    """`name(parameters) -> result`, as its author wrote them, without `self`."""
    made = inspect.signature(value)
    out, star = [], False
    for parameter in made.parameters.values():
        if parameter.name == "self":
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not star:
            out.append("*")
        star = star or parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_POSITIONAL)
        out.append(shown(parameter))
    result = made.return_annotation
    plain = isinstance(value, type) or result in ("None", made.empty)
    return f"{name}({', '.join(out)}){'' if plain else f' -> {result}'}"


def shown(parameter: inspect.Parameter) -> str:
    """A parameter: name, type, default."""
    marks = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}
    text = f"{marks.get(parameter.kind, '')}{parameter.name}"
    if parameter.annotation is not parameter.empty:
        text += f": {parameter.annotation}"
    if parameter.default is not parameter.empty:
        default = repr(parameter.default)
        text += " = …" if default.startswith("<") or "(" in default[1:] else f" = {default}"
    return text


def text_of(module: Any, name: str) -> str:
    """The text below an assignment, in the file that makes the name."""
    prefix = f"{module.__name__}."
    homes = [m for key, m in sorted(sys.modules.items()) if key.startswith(prefix)]
    for home in homes:
        body = ast.parse(inspect.getsource(home)).body
        for node, after in itertools.pairwise(body):
            if not isinstance(after, ast.Expr) or not isinstance(after.value, ast.Constant):
                continue
            targets = node.targets if isinstance(node, ast.Assign) else ()
            targets = (node.target,) if isinstance(node, ast.AnnAssign) else targets
            if any(isinstance(t, ast.Name) and t.id == name for t in targets):
                return inspect.cleandoc(str(after.value.value))
    raise LookupError(f"{name} has no text below it")


def markdown(text: str) -> str:
    """A docstring as Markdown: attributes and arguments as a list, examples as code."""
    out: list[str] = []
    code = False
    for line in text.splitlines():
        if line in ("Attributes:", "Args:"):
            continue
        if line.startswith(">>>") and not code:
            code = True
            out.append("```python")
        elif code and not line:
            code = False
            out.append("```")
        item = re.fullmatch(r"    (\w+(?:, \w+)*): (.+)", line)
        out.append(f"- `{item[1]}`: {item[2]}" if item else re.sub(r"^ {8}", "  ", line))
    return "\n".join([*out, *(["```"] if code else [])])
