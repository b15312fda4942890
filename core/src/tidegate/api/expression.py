"""Expressions of policies, in CEL (the Common Expression Language), with bounded cost.

Needs the extra `tidegate-core[expressions]`. What an expression reads of an exchange is in
`tidegate.api.conditions.When`.

CEL has no loops, no input and no output. What costs more than the length of an expression times
that of its values are macros within macros, and patterns that a caller could choose: both are
refused at load. So is a name that is not there, which else would deny at the first request.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, Final

__all__ = ["Expression", "ExpressionError", "bounded"]

MAX_LENGTH: Final = 2_000
VARIABLES: Final = frozenset(
    {
        "address", "anonymous", "attributes", "host", "method", "model", "name", "now", "path",
        "query", "roles", "team",
    }
)  # fmt: skip
FUNCTIONS: Final = frozenset(
    {
        "bool", "bytes", "contains", "double", "duration", "endsWith", "getDate", "getDayOfMonth",
        "getDayOfWeek", "getDayOfYear", "getFullYear", "getHours", "getMilliseconds",
        "getMinutes", "getMonth", "getSeconds", "int", "matches", "max", "min", "size",
        "startsWith", "string", "timestamp", "uint",
    }
)  # fmt: skip
MAX_VALUES: Final = 500
"""Values within one that an expression reads: a macro over them may compare each with each."""
MACROS: Final = frozenset({"all", "exists", "exists_one", "map", "filter"})

_TOKEN: Final = re.compile(
    r"""
      (?P<comment> //[^\n]*)
    | (?P<text>  [rRbB]{0,2}(?: \"{3}(?:\\.|[^\\])*?\"{3} | '{3}(?:\\.|[^\\])*?'{3}
                              | "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*' ))
    | (?P<name>  [A-Za-z_]\w*)
    | (?P<other> \S)
    """,
    re.VERBOSE | re.DOTALL,
)


class ExpressionError(ValueError):
    """The expression can't be used: says where and why."""


class Expression:
    """A compiled expression. `variables` are those that it reads."""

    __slots__ = ("program", "variables")

    def __init__(self, source: str) -> None:
        """Raises ExpressionError."""
        import cel  # with the extra only

        if len(source) > MAX_LENGTH:
            raise ExpressionError(f"longer than {MAX_LENGTH} characters")
        bound = _bounded(source)
        try:
            self.program = cel.compile(source)
        except ValueError as error:
            raise ExpressionError(_place(str(error))) from None
        used = self.program.references()
        for name in used["variables"]:
            if name not in VARIABLES and name not in bound:
                raise ExpressionError(_unknown("value", name, VARIABLES))
        for name in used["functions"]:
            if name[0].isalpha() and name not in FUNCTIONS:
                raise ExpressionError(_unknown("function", name, FUNCTIONS | MACROS))
        self.variables = frozenset(used["variables"]) & VARIABLES - bound

    def holds(self, context: Any) -> bool:
        """Whether it is true, and nothing but true. Raises what an evaluation raises."""
        return self.program.execute(context) is True


def bounded(value: Any, left: int = MAX_VALUES) -> int:
    """How many values more there may be. Raises ValueError where there are too many."""
    inner = value.values() if isinstance(value, Mapping) else value
    if isinstance(inner, Iterable) and not isinstance(inner, str | bytes):
        for one in inner:
            left = bounded(one, left - 1)
    if left < 0:
        raise ValueError(f"more than {MAX_VALUES} values")
    return left


def _tokens(source: str) -> Iterator[tuple[str, str, int]]:
    for match in _TOKEN.finditer(source):
        if match.lastgroup == "comment":
            continue
        yield match.lastgroup or "", match[0], match.start() + 1


def _bounded(source: str) -> frozenset[str]:
    """The names that macros bind. Raises ExpressionError where the cost has no bound."""
    tokens = list(_tokens(source))
    bound: set[str] = set()
    macros: list[bool] = []
    for at, (kind, text, column) in enumerate(tokens):
        following = [t for _, t, _ in tokens[at + 1 : at + 4]]
        if text == ")" and kind == "other" and macros:
            macros.pop()
        if text == "(" and kind == "other":
            macro = at > 1 and tokens[at - 1][1] in MACROS and tokens[at - 2][1] == "."
            if macro and any(macros):
                raise ExpressionError(f"column {column}: a macro within a macro")
            if macro and following:
                bound.add(following[0])
            macros.append(macro)
        if kind == "name" and text == "matches":
            literal = at + 2 < len(tokens) and tokens[at + 2][0] == "text"
            if not literal or following[0] != "(" or following[2:] != [")"]:
                raise ExpressionError(f"column {column}: a pattern must be written out")
            _check_pattern(following[1], column)
    return frozenset(bound)


def _check_pattern(literal: str, column: int) -> None:
    import cel

    try:
        cel.evaluate(f'"".matches({literal})')
    except (RuntimeError, ValueError, TypeError):
        raise ExpressionError(f"column {column}: this is no pattern (RE2)") from None


def _place(message: str) -> str:
    """The first line of the parser's message, with its column."""
    found = re.search(r"<input>:(\d+):(\d+): ([^\n]*)", message)
    return f"column {found[2]}: {found[3]}" if found else "it can't be parsed"


def _unknown(kind: str, name: str, known: frozenset[str]) -> str:
    near = get_close_matches(name, known, 1)
    return f"there is no {kind} `{name}`" + (f": do you mean `{near[0]}`?" if near else "")
