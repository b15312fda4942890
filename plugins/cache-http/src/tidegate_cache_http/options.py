"""The operator's side: what stands in `addons.toml`, and the rule that holds for a path."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Annotated, Final, Literal
from urllib.parse import unquote_plus

import msgpack
from pydantic import Field, field_validator, model_validator

from tidegate.api import AddonConfig, ByteSize, Duration, Exchange, Model
from tidegate.api.caching import CACHE_HINTS
from tidegate.api.fields import field_name

from .rules.fields import Fields, joined
from .rules.messages import Terms
from .tiers.record import Key

type Partition = Literal["identity", "trust_origin", "shared"]

_TRUSTED_FORWARDS: Final = (b"x-forwarded-host", b"x-forwarded-proto")


class KeyRecipe(Model):
    """What of a request is in the key besides its URL, and what of the URL is not.

    `query` keeps only the parameters named so, `ignore_query` leaves those out; `*` at an end
    stands for any rest. `headers` puts the values of request fields into the key.
    """

    query: tuple[str, ...] | None = None
    ignore_query: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()

    @field_validator("headers")
    @classmethod
    def _names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(field_name(name).lower() for name in names)

    @model_validator(mode="after")
    def _one_of(self) -> KeyRecipe:
        if self.query is not None and self.ignore_query:
            raise ValueError("name the parameters in `query` or those out, not both")
        return self

    def url(self, url: bytes) -> bytes:
        """A URL as it stands in the key."""
        if self.query is None and not self.ignore_query:
            return url
        path, mark, query = url.partition(b"?")
        if not mark:
            return url
        kept = [part for part in query.split(b"&") if self._keeps(part)]
        return path + b"?" + b"&".join(kept) if kept else path

    def _keeps(self, part: bytes) -> bool:
        name = unquote_plus(part.partition(b"=")[0].decode("latin-1"))
        if self.query is not None:
            return any(_fits(pattern, name) for pattern in self.query)
        return not any(_fits(pattern, name) for pattern in self.ignore_query)


def _fits(pattern: str, name: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


class Rules(Model):
    """How the cache treats the requests of some paths. The options are those of `Terms`."""

    mode: Literal["respect", "override", "bypass"] = "respect"
    ttl: Duration | None = None
    negative: dict[int, Duration] = Field(default_factory=dict)
    heuristic: Annotated[float, Field(ge=0, le=1)] = 0.1
    heuristic_most: Duration = 86400.0
    targets: tuple[str, ...] = ("CDN-Cache-Control",)
    client_directives: bool = True
    stale_if_unreachable: Duration = 3600.0
    stale_if_error: Duration = 0.0
    max_object: ByteSize = 8 * 1024 * 1024
    partition: Partition = "identity"
    key: KeyRecipe = KeyRecipe()
    collapse: bool = True

    @model_validator(mode="after")
    def _ttl(self) -> Rules:
        if (self.mode == "override") != (self.ttl is not None):
            raise ValueError('`ttl` belongs to `mode = "override"`, which needs one')
        return self

    @field_validator("negative")
    @classmethod
    def _errors(cls, ttls: dict[int, float]) -> dict[int, float]:
        for status in ttls:
            if not 400 <= status <= 599:
                raise ValueError(f"{status} is not an error status")
        return ttls


class PathRules(Rules):
    """Rules for paths: `/x` is that path, `/x/*` what begins so."""

    paths: Annotated[tuple[str, ...], Field(min_length=1)]
    hosts: tuple[str, ...] = ()

    def fits(self, host: str, path: str) -> bool:
        """Whether they hold for a request."""
        if self.hosts and not any(_fits_host(pattern, host) for pattern in self.hosts):
            return False
        return any(_fits(pattern, path) for pattern in self.paths)


def _fits_host(pattern: str, host: str) -> bool:
    return host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern.lower()


class CacheConfig(Rules, AddonConfig):
    """Options of the addon: the rules for all paths, those for some, and the tiers' sizes."""

    size: ByteSize = 1024**3
    memory: ByteSize = 64 * 1024**2
    rules: tuple[PathRules, ...] = ()
    purge: tuple[str, ...] = ()
    collapse_wait: Duration = 10.0

    @field_validator("size")
    @classmethod
    def _size(cls, size: int) -> int:
        if size < 1 << 20:
            raise ValueError("a file of less than 1 MiB holds nothing")
        return size


class Rule:
    """The rules of a path, ready for use."""

    __slots__ = ("bypasses", "collapse", "headers", "partition", "recipe", "terms")

    def __init__(self, rules: Rules) -> None:
        self.partition: Partition = rules.partition
        self.bypasses = rules.mode == "bypass"
        self.collapse = rules.collapse
        self.recipe: KeyRecipe | None = rules.key if rules.key != KeyRecipe() else None
        self.headers = tuple(name.encode() for name in rules.key.headers)
        self.terms = Terms(
            mode=rules.mode,
            ttl=None if rules.ttl is None else int(rules.ttl),
            negative=MappingProxyType({s: int(t) for s, t in rules.negative.items()}),
            heuristic_share=rules.heuristic,
            heuristic_most=int(rules.heuristic_most),
            targets=tuple(name.lower().encode() for name in rules.targets),
            client_directives=rules.client_directives,
            stale_if_unreachable=int(rules.stale_if_unreachable),
            stale_if_error=int(rules.stale_if_error),
            max_object=rules.max_object,
        )

    def key(self, exchange: Exchange) -> Key:
        """The key of a request: its URL verbatim, and the scope that it may use."""
        data = exchange.request.data
        authority = data.authority.lower() or exchange.host.encode()
        url = data.scheme + b"://" + authority + data.path
        if self.recipe is not None:
            url = self.recipe.url(url)
        client, principal, origin = exchange.client, exchange.principal, exchange.upstream
        direct = client.peer == client.address
        hints = exchange.stashed(CACHE_HINTS)
        if hints is None and principal is None and direct and not self.headers and origin is None:
            return Key(url, b"")
        # a trusted proxy told who called: what else it told reaches the origin as well
        names = self.headers if direct else self.headers + _TRUSTED_FORWARDS
        fields: Fields = data.headers.fields
        values: Values = tuple(joined(fields, name) for name in names)
        if hints is not None and hints.key:
            values += (tuple(hints.key),)
        if origin is not None:  # intercepted: a Host field alone doesn't say who answered
            values += (origin.url.encode(),)
        owner = principal.id if principal is not None and self.partition != "shared" else None
        return Key(url, scope(owner, values) if values or owner is None else _owned(owner))

    def open_key(self, key: Key) -> Key | None:
        """The key of what an origin has marked as fit for everyone; None where it is the same."""
        if self.partition != "trust_origin" or not key.scope:
            return None
        owner, *values = msgpack.unpackb(key.scope)
        return Key(key.url, scope(None, tuple(values))) if owner is not None else None


type Values = tuple[bytes | tuple[bytes, ...] | None, ...]


def scope(owner: str | None, values: Values) -> bytes:
    """The part of a key that is not the URL; empty where there is nothing to tell apart."""
    if owner is None and all(value is None for value in values):
        return b""
    packed: bytes = msgpack.packb((owner, *values))
    return packed


@lru_cache(maxsize=4096)
def _owned(owner: str) -> bytes:
    return scope(owner, ())


class RuleBook:
    """All rules: the first that fits a path holds, else those for all paths."""

    def __init__(self, config: CacheConfig) -> None:
        self._special: Sequence[tuple[PathRules, Rule]] = [(r, Rule(r)) for r in config.rules]
        self._default = Rule(config)
        self._of = lru_cache(maxsize=4096)(self._find)

    def of(self, host: str, path: str) -> Rule:
        """The rule that holds for a request."""
        return self._of(host, path) if self._special else self._default

    def _find(self, host: str, path: str) -> Rule:
        return next((rule for rules, rule in self._special if rules.fits(host, path)),
                    self._default)  # fmt: skip


_GLOB: Final = re.compile(r"\*")


def may_purge(patterns: Sequence[str], principal: str) -> bool:
    """Whether a principal may purge: `team/name`, with `*` for any run of characters."""
    return any(
        re.fullmatch(".*".join(map(re.escape, _GLOB.split(pattern))), principal)
        for pattern in patterns
    )
