"""What the rules are told: `Asked`, a request; `Stored`, a stored response; `Terms`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal

from .directives import NONE, Directives, parse_cache_control
from .fields import Fields, joined

DAY: Final = 86400


@dataclass(frozen=True, slots=True)
class Terms:
    """What the operator says of a path. Times are seconds.

    Attributes:
        mode: `respect` the origin, `override` its lifetime with `ttl`, or `bypass` the cache.
        negative: lifetimes of error statuses for which the origin gives none.
        heuristic_share, heuristic_most: the guess where the origin says nothing (§4.2.2).
        targets: targeted fields that are meant for us, the most specific first (RFC 9213 §2.2).
        client_directives: whether requests may ask for more or less than is stored.
        stale_if_unreachable: for how long past its lifetime a response may stand in for an
            origin that can't be reached (§4.2.4); 0: never.
        stale_if_error: the same for 5xx answers of an origin that says nothing (RFC 5861 §4).
        max_object: bytes of a body that is stored.
    """

    mode: Literal["respect", "override", "bypass"] = "respect"
    ttl: int | None = None
    negative: Mapping[int, int] = field(default_factory=lambda: MappingProxyType({}))
    heuristic_share: float = 0.1
    heuristic_most: int = DAY
    targets: tuple[bytes, ...] = (b"cdn-cache-control",)
    client_directives: bool = True
    stale_if_unreachable: int = 3600
    stale_if_error: int = 0
    max_object: int = 8 * 1024 * 1024


_NOTABLE: Final = frozenset(
    {
        b"authorization",
        b"cache-control",
        b"content-length",
        b"if-match",
        b"if-modified-since",
        b"if-none-match",
        b"if-range",
        b"if-unmodified-since",
        b"pragma",
        b"range",
        b"transfer-encoding",
        # A request that is to be taken as another one. Its answer must not reach those who
        # send the plain request: they would be poisoned by a field that is not in the key.
        b"front-end-https",
        b"x-forwarded-scheme",
        b"x-forwarded-ssl",
        b"x-host",
        b"x-http-host-override",
        b"x-http-method",
        b"x-http-method-override",
        b"x-http-destinationurl",
        b"x-method-override",
        b"x-original-host",
        b"x-original-url",
        b"x-rewrite-url",
    }
)
_OVERRIDES: Final = frozenset(n for n in _NOTABLE if n.startswith(b"x-") or n == b"front-end-https")


class _Notable(dict[bytes, bytes]):
    """The lower-case name of a field that caching depends on, b"" for any other.

    Names are remembered as they come, in whatever case, within bounds: one look-up for each.
    """

    def __missing__(self, name: bytes) -> bytes:
        lowered = name.lower()
        found = lowered if lowered in _NOTABLE else b""
        if len(name) <= 64 and len(self) < 4096:
            self[name] = found
        return found


NOTABLE: Final = _Notable()


class Asked:
    """A request, as far as a cache looks at it. One walk over its fields.

    Attributes:
        method: as sent.
        fields: all of them.
        cache_control: its directives; `Pragma: no-cache` counts where there are none (§5.4).
        notable: the fields that caching depends on, by lower-case name, first value.
    """

    __slots__ = ("cache_control", "fields", "method", "notable")

    def __init__(self, method: bytes, fields: Fields) -> None:
        self.method = method
        self.fields = fields
        notable: dict[bytes, bytes] = {}
        names = NOTABLE
        for name, value in fields:
            if lowered := names[name]:
                notable.setdefault(lowered, value)
        self.notable = notable
        self.cache_control = NONE
        if notable:
            if b"cache-control" in notable:
                self.cache_control = parse_cache_control(joined(fields, b"cache-control") or b"")
            elif b"pragma" in notable:
                pragma = parse_cache_control(joined(fields, b"pragma") or b"")
                if "no-cache" in pragma:
                    self.cache_control = Directives({"no-cache": None})

    @property
    def overrides(self) -> bool:
        """Whether it carries a field by which origins take it as another request."""
        return not _OVERRIDES.isdisjoint(self.notable)

    @property
    def has_body(self) -> bool:
        """Whether it has content: that is no part of any key."""
        length = self.notable.get(b"content-length", b"0")
        return b"transfer-encoding" in self.notable or length.strip(b"0") != b""

    @property
    def authorized(self) -> bool:
        """Whether it carries Authorization to the origin (§3.5)."""
        return b"authorization" in self.notable


type Nominated = tuple[tuple[bytes, bytes | None], ...]


@dataclass(slots=True)
class Stored:
    """One stored response, or a part of one. Times are Unix seconds, lifetimes seconds.

    Attributes:
        fields: the header section as stored: no hop-by-hop fields, no Age.
        size: bytes of the stored body.
        part: (first, last, complete length) where only a range of the body is stored.
        asked_at: when the request was sent that brought or last validated it (§4.2.3).
        age: the Age it came with.
        lifetime: its freshness lifetime (§4.2.1); `heuristic` says that it was guessed.
        date: its Date, or when it was received.
        always_validate: an unqualified no-cache (§5.2.2.4).
        never_stale: must-revalidate, proxy-revalidate, s-maxage or no-cache (§4.2.4).
        swr, sie: windows of stale-while-revalidate and stale-if-error (RFC 5861).
        asked_range: the Range that `part` answered: the same one may be answered so again.
        vary: the nominated request fields with their values, normalised (§4.1).
        purged: softly purged: stale from then on.
        stamp: that of its URL when its request was sent (see `tiers.stamps`).
    """

    status: int
    reason: bytes
    fields: Fields
    size: int
    part: tuple[int, int, int | None] | None
    asked_at: float
    age: int
    lifetime: int
    heuristic: bool
    date: float
    always_validate: bool
    never_stale: bool
    immutable: bool
    swr: int
    sie: int | None
    etag: bytes
    modified: bytes
    vary: Nominated
    asked_range: bytes = b""
    tags: tuple[bytes, ...] = ()
    purged: bool = False
    stamp: int = 0

    def age_at(self, now: float) -> int:
        """Its current age (§4.2.3): what it came with and the time since it was asked for."""
        return self.age + max(0, int(now - self.asked_at))

    def ttl_at(self, now: float) -> int:
        """Seconds for which it stays fresh; negative: for which it has been stale."""
        ttl = self.lifetime - self.age_at(now)
        return min(ttl, 0) if self.purged else ttl

    def fresh_at(self, now: float) -> bool:
        """Whether it is fresh (§4.2): its age has not reached its lifetime."""
        return not self.purged and self.lifetime > self.age_at(now)

    @property
    def validator(self) -> bool:
        """Whether an origin can be asked about it."""
        return bool(self.etag or self.modified)
