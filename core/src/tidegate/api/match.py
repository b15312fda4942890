"""Route matching: a table of host, path and method patterns, compiled once.

Sans I/O. A lookup walks one trie of path segments for the request's host: its cost grows with
the depth of the path, not with the number of routes.

>>> table = RouteTable([RouteEntry("users", path="/v1/users/{id}", methods={"GET"})])
>>> found = table.match("api.example.com", "/v1/users/7/keys", "GET")
>>> found.value, found.params["id"], found.prefix
('users', '7', '/v1/users/7')
>>> table.match("api.example.com", "/v1/users/7", "POST").methods
('GET',)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from .exchange import StashKey

__all__ = ["ROUTE_PARAMS", "Match", "NotAllowed", "RouteEntry", "RouteTable"]

ROUTE_PARAMS: Final = StashKey[Mapping[str, str]]("route.params")
"""Where a route addon puts what the `{name}` segments of the matched path captured."""

NO_PARAMS: Final[Mapping[str, str]] = MappingProxyType({})
REMEMBERED: Final = 1024
"""Request heads whose match a table remembers: it answers those in one look-up, however many
routes there are."""
SHORT: Final = 256
"""Characters of a path that is remembered."""
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_HOST: Final = re.compile(r"\*|(?:\*\.)?[a-z0-9_\-]+(?:\.[a-z0-9_\-]+)*|[0-9a-f:.]+")
_PATH: Final = re.compile(r"/[!$-;=@-~]*")
_PARAM: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True, slots=True)
class RouteEntry[T]:
    """One row of a table.

    Attributes:
        value: what a match gives.
        host: exact, `*.example.com` (any name below it), or `*` for all.
        path: a prefix that ends at a segment boundary (`/v1` matches `/v1` and `/v1/x`, never
            `/v1x`), or with `exact` the whole path. `{name}` matches one segment that is not
            empty. A slash or `/*` at the end of a prefix says nothing more.
        exact: whether `path` is the whole path.
        methods: case-sensitive (RFC 9110 §9.1); None means all.
    """

    value: T
    host: str = "*"
    path: str = "/"
    exact: bool = False
    methods: AbstractSet[str] | None = None

    def __str__(self) -> str:
        methods = "" if self.methods is None else f"{','.join(sorted(self.methods))} "
        host = "" if self.host == "*" else self.host
        return f"{methods}{host}{self.path}{' (exact)' if self.exact else ''}"


class Match[T]:
    """The entry that serves a request. Shared between requests: don't change it.

    Attributes:
        value: the entry's.
        params: what its `{name}` segments captured, as they stand in the path.
        prefix: the part of the path that the pattern matched, without a slash at its end.
    """

    __slots__ = ("params", "prefix", "value")

    def __init__(self, value: T, params: Mapping[str, str], prefix: str) -> None:
        self.value = value
        self.params = params
        self.prefix = prefix

    def __repr__(self) -> str:
        return f"Match({self.value!r}, {dict(self.params)!r}, {self.prefix!r})"


@dataclass(frozen=True, slots=True)
class NotAllowed:
    """The path is served, but not for this method: 405, with `Allow` (RFC 9110 §10.2.1)."""

    methods: tuple[str, ...]


class _Leaf[T]:
    """The entries of one host and path: by method, and the one for all methods."""

    __slots__ = ("any", "by_method", "depth")

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.by_method: dict[str, _Found[T]] = {}
        self.any: _Found[T] | None = None


class _Found[T]:
    """An entry and how its match is made; without parameters, the match itself."""

    __slots__ = ("entry", "match", "params")

    def __init__(self, entry: RouteEntry[T], segments: Sequence[str]) -> None:
        self.entry = entry
        self.params = tuple(
            (param[1], index)
            for index, segment in enumerate(segments, 1)
            if (param := _PARAM.fullmatch(segment))
        )
        prefix = "".join(f"/{segment}" for segment in segments)
        self.match = None if self.params else Match(entry.value, NO_PARAMS, prefix)


class _Node[T]:
    """One place in a trie of path segments."""

    __slots__ = ("exact", "literals", "param", "prefix")

    def __init__(self) -> None:
        self.literals: dict[str, _Node[T]] = {}
        self.param: _Node[T] | None = None
        self.prefix: _Leaf[T] | None = None
        self.exact: _Leaf[T] | None = None


class RouteTable[T]:
    """Entries compiled for lookup. Raises ValueError for a bad entry, or two in conflict.

    The most specific entry wins: exact host, then the longest wildcard, then `*`; within a host
    the longest path, then at the first segment where they differ a literal over a `{name}`,
    then `exact` over a prefix, then one that lists the method. Where that entry does not take
    the method, the next less specific one is asked.
    """

    __slots__ = ("_any", "_depth", "_hosts", "_seen", "_wildcards")

    def __init__(self, entries: Iterable[RouteEntry[T]]) -> None:
        self._seen: dict[tuple[str, str, str], Match[T]] = {}
        """Matches without parameters, by request head: the same few come again and again."""
        tries: dict[str, _Node[T]] = {}
        self._depth = 1
        for entry in entries:
            segments = parse(entry)
            self._depth = max(self._depth, len(segments))
            _insert(tries.setdefault(entry.host.lower(), _Node()), entry, segments)
        self._any: tuple[_Node[T], ...] = (tries["*"],) if "*" in tries else ()
        self._wildcards: dict[str, tuple[_Node[T], ...]] = {}
        for host in sorted((h for h in tries if h.startswith("*.")), key=len):
            self._wildcards[host[2:]] = (tries[host], *self._chain(host[2:]))
        self._hosts: dict[str, tuple[_Node[T], ...]] = {
            host: (trie, *self._chain(host)) for host, trie in tries.items() if host[0] != "*"
        }

    def _chain(self, host: str) -> tuple[_Node[T], ...]:
        """The tries of the wildcards that `host` falls under, longest first, then of `*`."""
        if self._wildcards:
            dot = host.find(".")
            while dot >= 0:
                found = self._wildcards.get(host[dot + 1 :])
                if found is not None:
                    return found
                dot = host.find(".", dot + 1)
        return self._any

    def match(self, host: str, path: str, method: str) -> Match[T] | NotAllowed | None:
        """The match for a request head, or why there is none.

        `host` is lower case without port, `path` normalised without query, as on an exchange.
        """
        head = (host, path, method)
        seen = self._seen.get(head)
        if seen is not None:
            return seen
        chain = self._hosts.get(host)
        if chain is None:
            chain = self._chain(host)
        # No pattern is deeper than `_depth`: a path of a thousand slashes is not split further.
        parts = path.split("/", self._depth + 1)
        refused: list[_Leaf[T]] = []
        for trie in chain:
            for leaf in reversed(_leaves(trie, parts)):
                found = leaf.by_method.get(method, leaf.any)
                if found is None:
                    refused.append(leaf)
                    continue
                if found.match is not None:
                    return self._remember(head, found.match)
                params = {name: parts[index] for name, index in found.params}
                return Match(found.entry.value, params, "/".join(parts[: leaf.depth + 1]))
        allowed = {method for leaf in refused for method in leaf.by_method}
        return NotAllowed(tuple(sorted(allowed))) if allowed else None

    def _remember(self, head: tuple[str, str, str], match: Match[T]) -> Match[T]:
        if len(self._seen) >= REMEMBERED:
            self._seen.clear()
        if len(head[1]) <= SHORT:
            self._seen[head] = match
        return match


def parse[T](entry: RouteEntry[T]) -> list[str]:
    """The segments of an entry's path. Raises ValueError where the entry makes no sense."""
    if not _HOST.fullmatch(entry.host.lower()):
        raise ValueError(f'{entry.host!r} is not a host: write "api.example.com", "*.example.com"')
    path = entry.path
    if not _PATH.fullmatch(path):
        raise ValueError(f'{path!r}: a path starts with "/", has no query, and escapes as in URLs')
    if entry.methods is not None and not entry.methods:
        raise ValueError(f"{path!r}: `methods` is empty; leave it out to take all")
    for method in entry.methods or ():
        if not _TOKEN.fullmatch(method):
            raise ValueError(f"{path!r}: {method!r} is not a method")
    if not entry.exact:
        path = path.removesuffix("/*").removesuffix("/")
    segments = path.split("/")[1:]
    names: set[str] = set()
    for index, segment in enumerate(segments):
        if not segment and index < len(segments) - 1:
            raise ValueError(f"{path!r}: a segment is empty")
        param = _PARAM.fullmatch(segment)
        if param is None and ("{" in segment or "}" in segment or "*" in segment):
            raise ValueError(f"{path!r}: {segment!r} is neither a literal nor a {{name}}")
        if param is not None and param[1] in names:
            raise ValueError(f"{path!r}: {segment} stands there twice")
        if param is not None:
            names.add(param[1])
    return segments


def _insert[T](node: _Node[T], entry: RouteEntry[T], segments: Sequence[str]) -> None:
    for segment in segments:
        if not _PARAM.fullmatch(segment):
            node = node.literals.setdefault(segment, _Node())
        else:
            if node.param is None:
                node.param = _Node()
            node = node.param
    leaf = node.exact if entry.exact else node.prefix
    if leaf is None:
        leaf = _Leaf(len(segments))
        if entry.exact:
            node.exact = leaf
        else:
            node.prefix = leaf
    found = _Found(entry, segments)
    for method in entry.methods or (None,):
        other = leaf.any if method is None else leaf.by_method.get(method)
        if other is not None:
            raise ValueError(f'routes in conflict: "{other.entry}" and "{entry}"')
        if method is None:
            leaf.any = found
        else:
            leaf.by_method[method] = found


def _leaves[T](trie: _Node[T], parts: list[str]) -> list[_Leaf[T]]:
    """The leaves whose pattern matches, the most specific last."""
    leaves: list[_Leaf[T]] = [] if trie.prefix is None else [trie.prefix]
    last = len(parts) - 1
    node = trie
    for index in range(1, last + 1):
        part = parts[index]
        below = node.literals.get(part)
        if node.param is not None and part:
            if below is not None:
                _fan_out([below, node.param], parts, index, leaves)
                return leaves
            below = node.param
        if below is None:
            return leaves
        if below.prefix is not None:
            leaves.append(below.prefix)
        if index == last and below.exact is not None:
            leaves.append(below.exact)
        node = below
    return leaves


def _fan_out[T](
    nodes: list[_Node[T]], parts: list[str], index: int, leaves: list[_Leaf[T]]
) -> None:
    """Go on where a literal and a `{name}` both fit: `nodes` were reached by `parts[index]`.

    They stand in order of preference. There are never more of them than entries that overlap.
    """
    last = len(parts) - 1
    while nodes:
        for node in reversed(nodes):
            if node.prefix is not None:
                leaves.append(node.prefix)
            if index == last and node.exact is not None:
                leaves.append(node.exact)
        index += 1
        if index > last:
            return
        part = parts[index]
        both = [(node.literals.get(part), node.param if part else None) for node in nodes]
        nodes = [node for pair in both for node in pair if node is not None]
