"""Scopes: which exchanges an addon sees, and the pipeline for each combination of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from pydantic import field_validator

from tidegate.api.config import Model

type Match = Callable[[str, str, str, str], bool]


class Scope(Model):
    """`scope = { … }` of an addon: all lists that are given must match; the default matches all.

    `hosts` are exact or `*.example.com`; `paths` are exact, or end in `*` (`/v1/*` matches
    `/v1` and all below it), with `*` for one segment in the middle.
    """

    listeners: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()

    @field_validator("paths")
    @classmethod
    def _rooted(cls, paths: tuple[str, ...]) -> tuple[str, ...]:
        for path in paths:
            if not path.startswith("/"):
                raise ValueError(f'{path!r}: a path starts with "/"')
        return paths

    @field_validator("methods")
    @classmethod
    def _upper(cls, methods: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(m.upper() for m in methods)

    @field_validator("hosts")
    @classmethod
    def _lower(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(h.lower() for h in hosts)

    @property
    def everything(self) -> bool:
        """True where no list is given."""
        return not (self.listeners or self.hosts or self.methods or self.paths)

    def __str__(self) -> str:
        if self.everything:
            return "everything"
        parts = ("listeners", "methods", "hosts", "paths")
        return " ".join(f"{p}={','.join(v)}" for p in parts if (v := getattr(self, p)))

    def why_not(self, listener: str, host: str, path: str, method: str) -> str:
        """What of a request head is not in this scope, in words; "" where all is."""
        head = {"listeners": listener, "hosts": host, "methods": method, "paths": path}
        for name, value in head.items():
            patterns = getattr(self, name)
            if patterns and not Scope(**{name: patterns}).matcher()(listener, host, path, method):
                return f"its scope: {name[:-1]} {value} is not in {', '.join(patterns)}"
        return ""

    def matcher(self) -> Match:
        """A function of (listener, host, path, method)."""
        listeners, methods = frozenset(self.listeners), frozenset(self.methods)
        hosts = _any_of([_host(h) for h in self.hosts])
        paths = _any_of([_path(p) for p in self.paths])

        def match(listener: str, host: str, path: str, method: str) -> bool:
            return (
                (not listeners or listener in listeners)
                and (not methods or method in methods)
                and (hosts is None or hosts(host) is not None)
                and (paths is None or paths(path) is not None)
            )

        return match


def _any_of(patterns: list[str]) -> Callable[[str], re.Match[str] | None] | None:
    return re.compile("|".join(patterns)).fullmatch if patterns else None


def _host(pattern: str) -> str:
    if pattern.startswith("*."):
        return r"(?:[^.]+\.)+" + re.escape(pattern[2:])
    return re.escape(pattern) if pattern != "*" else ".*"


def _path(pattern: str) -> str:
    rest = ""
    if pattern.endswith("/*"):
        pattern, rest = pattern[:-2], "(?:/.*)?"
    elif pattern.endswith("*"):
        pattern, rest = pattern[:-1], ".*"
    return "[^/]+".join(re.escape(part) for part in pattern.split("*")) + rest


class ScopeTable[P]:
    """Maps a request head to the value compiled for the set of scopes that match it.

    `build(matched)` is called once for each distinct set that turns up; `matched[i]` says
    whether `scopes[i]` matches.
    """

    __slots__ = ("_build", "_cache", "_matchers", "_only", "_slots")

    def __init__(self, scopes: Sequence[Scope], build: Callable[[tuple[bool, ...]], P]) -> None:
        self._build = build
        distinct = list(dict.fromkeys(s for s in scopes if not s.everything))
        self._matchers = [scope.matcher() for scope in distinct]
        self._slots = [None if s.everything else distinct.index(s) for s in scopes]
        self._cache: dict[tuple[bool, ...], P] = {}
        self._only = None if distinct else build((True,) * len(scopes))

    def match(self, listener: str, host: str, path: str, method: str) -> P:
        """The value for this head."""
        if self._only is not None:
            return self._only
        key = tuple([m(listener, host, path, method) for m in self._matchers])
        found = self._cache.get(key)
        if found is None:
            matched = tuple(slot is None or key[slot] for slot in self._slots)
            found = self._cache[key] = self._build(matched)
        return found
