"""Cache-Control (RFC 9111 §5.2) and its targeted kin (RFC 9213), parsed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

import http_sf

LONGEST: Final = 2**31
"""Seconds: longer times are taken as this (RFC 9111 §1.2.2)."""

_MEMBER: Final = re.compile(r'(?:[^",]|"(?:[^"\\]|\\.)*")*')
_DIGITS: Final = re.compile(r"[0-9]+")
_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_ESCAPED: Final = re.compile(r"\\(.)")
_RESTRICTIVE: Final = frozenset(
    {"no-store", "no-cache", "private", "must-revalidate", "proxy-revalidate", "must-understand"}
)
_SECONDS: Final = frozenset(
    {"max-age", "s-maxage", "stale-while-revalidate", "stale-if-error", "max-stale", "min-fresh"}
)

type Argument = str | None


class Directives:
    """The directives of one message: name (lower case) → argument, or None where it has none.

    The first of several with one name counts; unknown ones are kept and mean nothing.
    """

    __slots__ = ("_arguments",)

    def __init__(self, arguments: Mapping[str, Argument]) -> None:
        self._arguments = arguments

    def __contains__(self, name: str) -> bool:
        return name in self._arguments

    def __bool__(self) -> bool:
        return bool(self._arguments)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Directives) and self._arguments == other._arguments

    def __hash__(self) -> int:
        return hash(frozenset(self._arguments.items()))

    def __repr__(self) -> str:
        return f"Directives({dict(self._arguments)})"

    def seconds(self, name: str) -> int | None:
        """Delta-seconds of a directive: None where it is absent, 0 where it is malformed.

        A lifetime that can't be read must not become "no lifetime given": the response would
        then get a heuristic one.
        """
        if name not in self._arguments:
            return None
        argument = self._arguments[name]
        if argument is None or not _DIGITS.fullmatch(argument):
            return 0
        return min(int(argument[-20:]) if len(argument) > 20 else int(argument), LONGEST)

    def bare(self, name: str) -> bool:
        """Whether a directive is there without an argument."""
        return name in self._arguments and self._arguments[name] is None

    def unqualified(self, name: str) -> bool:
        """Whether `no-cache` or `private` stands for the whole response (§5.2.2.4, §5.2.2.7)."""
        return name in self._arguments and not self.fields(name)

    def fields(self, name: str) -> frozenset[bytes]:
        """The field names that a qualified `no-cache` or `private` lists, lower case."""
        argument = self._arguments.get(name)
        if not argument:
            return frozenset()
        text = _unquote(argument)
        names = (part.strip().lower() for part in text.split(","))
        return frozenset(part.encode("latin-1") for part in names if part)


NONE: Final = Directives(MappingProxyType({}))


def _unquote(argument: str) -> str:
    if len(argument) >= 2 and argument[0] == argument[-1] == '"':
        return _ESCAPED.sub(r"\1", argument[1:-1])
    return argument


@lru_cache(maxsize=4096)
def parse_cache_control(value: bytes) -> Directives:
    """The directives of Cache-Control lines joined by commas."""
    found: dict[str, Argument] = {}
    text = value.decode("latin-1")
    at = 0
    while at <= len(text):
        member = _MEMBER.match(text, at)
        assert member is not None  # it matches the empty string
        end = member.end()
        if end < len(text) and text[end] == '"':
            # A quote that never ends. What is behind it may be meant as directives or not:
            # those that restrict count, those that permit don't.
            for part in text[at:].replace('"', ",").split(","):
                if part.strip().partition("=")[0].lower() in _RESTRICTIVE:
                    found.setdefault(part.strip().partition("=")[0].lower(), None)
            break
        _add(found, member[0])
        at = end + 1
    return Directives(found) if found else NONE


def _add(found: dict[str, Argument], member: str) -> None:
    name, mark, argument = member.strip(" \t").partition("=")
    bare = name.rstrip(" \t")
    if not _NAME.fullmatch(bare):
        return
    if mark and bare != name:
        argument = "malformed"  # a space before "=": not the grammar's, so not a number either
    found.setdefault(bare.lower(), argument if mark else None)


@lru_cache(maxsize=1024)
def parse_targeted(value: bytes) -> Directives | None:
    """The directives of a targeted field such as CDN-Cache-Control (RFC 9213 §2.1).

    None where it is empty, not a structured dictionary, or has a known directive of a wrong
    type: then it is as if it were not there.
    """
    try:
        parsed: Any = http_sf.parse(value, tltype="dictionary")
    except Exception:
        return None
    found: dict[str, Argument] = {}
    for name, item in parsed.items():
        bare = item[0] if isinstance(item, tuple) else item
        if name in _SECONDS:
            if isinstance(bare, bool) or not isinstance(bare, int):
                return None
            found[name] = str(bare)  # a negative one is malformed, which means 0
        elif isinstance(bare, bool):
            if bare:
                found[name] = None
        elif name in _RESTRICTIVE and name not in ("no-cache", "private"):
            return None
        else:
            found[name] = str(bare)
    return Directives(found) if found else None
