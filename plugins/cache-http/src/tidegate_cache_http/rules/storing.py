"""What may be stored, and what of it (RFC 9111 §3)."""

from __future__ import annotations

from typing import Final

from .directives import Directives
from .fields import HOP_BY_HOP, Fields, connection_options, first, joined, without
from .freshness import (
    HEURISTIC,
    Lifetime,
    age_received,
    date_of,
    directives_for_us,
    lifetime_of,
)
from .messages import Asked, Stored, Terms
from .ranges import parse_content_range
from .variants import CODINGS, nominated, values_of

UNDERSTOOD: Final = frozenset(
    {200, 203, 204, 206, 300, 301, 302, 303, 307, 308, 404, 405, 410, 414, 501}
)
"""Statuses whose caching requirements this cache follows: must-understand asks (§5.2.2.3)."""

_NOT_OURS: Final = HOP_BY_HOP | {b"age", b"content-length"}


class Refusal(Exception):
    """Why a response is not stored, in words."""


def storable(
    asked: Asked, status: int, fields: Fields, now: float, terms: Terms, *, asked_at: float
) -> Stored:
    """The stored form of a response that may be stored, without its size. Raises Refusal.

    `now` is when its head came, `asked_at` when its request was sent.
    """
    directives, targeted = directives_for_us(fields, terms)
    lifetime = lifetime_of(status, fields, directives, targeted, now, terms)
    _may_store(asked, status, directives, lifetime, terms)
    names = nominated(joined(fields, b"vary"))
    if names is None:
        raise Refusal("the response varies on everything (Vary: *)")
    coding = (first(fields, b"content-encoding") or b"").strip().lower()
    if b"accept-encoding" in names and coding not in CODINGS:
        raise Refusal("its content coding is not one that variants are kept for")
    part = None
    if status == 206:
        part = parse_content_range(first(fields, b"content-range") or b"")
        if part is None:
            raise Refusal("it is a partial response without one usable Content-Range")
    stored = make_stored(status, fields, directives, lifetime, now, asked_at)
    stored.part = part
    if part is not None:
        stored.asked_range = asked.notable.get(b"range", b"")
    stored.vary = values_of(names, asked.fields)
    if not (lifetime.seconds or stored.validator or stored.swr or stored.sie):
        raise Refusal("the response has neither a lifetime nor a validator")
    return stored


def _may_store(
    asked: Asked, status: int, directives: Directives, lifetime: Lifetime, terms: Terms
) -> None:
    """§3 in the order of its list. The operator's override stands above the origin's wishes."""
    if terms.mode == "bypass":
        raise Refusal("the operator's rules bypass the cache here")
    if status < 200 or status == 304:
        raise Refusal(f"status {status} is not stored")
    if asked.overrides:
        raise Refusal("the request has a field by which origins take it as another request")
    if "no-store" in asked.cache_control:
        raise Refusal("the request says no-store")
    if terms.mode == "override":
        return
    if "must-understand" in directives:
        if status not in UNDERSTOOD:
            raise Refusal(f"it says must-understand, and status {status} is not understood")
    elif "no-store" in directives:
        raise Refusal("the response says no-store")
    if directives.unqualified("private"):
        raise Refusal("the response says private")
    if asked.authorized and not shareable(directives):
        raise Refusal("the request has Authorization, and the response is not marked as shared")
    if not (lifetime.explicit or status in HEURISTIC or "public" in directives):
        raise Refusal(f"status {status} is not cacheable without a lifetime")


def shareable(directives: Directives) -> bool:
    """Whether a response to an authenticated request may be used for others (§3.5)."""
    return any(name in directives for name in ("public", "must-revalidate", "s-maxage"))


def stored_fields(fields: Fields, directives: Directives) -> Fields:
    """The fields that are stored (§3.1); Age is made anew for each use."""
    drop = _NOT_OURS | connection_options(fields)
    drop |= directives.fields("no-cache") | directives.fields("private")
    return without(fields, drop)


def make_stored(
    status: int,
    fields: Fields,
    directives: Directives,
    lifetime: Lifetime,
    now: float,
    asked_at: float,
) -> Stored:
    """A `Stored` of a response's head; what depends on the request and the body comes later."""
    always_validate = directives.unqualified("no-cache")
    never_stale = always_validate or any(
        name in directives for name in ("must-revalidate", "proxy-revalidate", "s-maxage")
    )
    if lifetime.source == "operator":
        always_validate = never_stale = False
    date = date_of(fields, b"date", now)
    return Stored(
        status=status,
        reason=b"",
        fields=stored_fields(fields, directives),
        size=0,
        part=None,
        asked_at=asked_at,
        age=age_received(fields),
        lifetime=lifetime.seconds,
        heuristic=lifetime.source == "guess",
        date=now if date is None else float(date),
        always_validate=always_validate,
        never_stale=never_stale,
        immutable="immutable" in directives,
        swr=directives.seconds("stale-while-revalidate") or 0,
        sie=directives.seconds("stale-if-error"),
        etag=(first(fields, b"etag") or b"").strip(),
        modified=(first(fields, b"last-modified") or b"").strip(),
        vary=(),
        tags=surrogate_tags(fields),
    )


def surrogate_tags(fields: Fields) -> tuple[bytes, ...]:
    """The tags by which a response can be purged: Cache-Tag, Surrogate-Key, xkey."""
    found: list[bytes] = []
    for name, separator in ((b"cache-tag", b","), (b"surrogate-key", b" "), (b"xkey", b" ")):
        value = joined(fields, name)
        if value is not None:
            spaced = value.replace(b",", separator) if separator == b" " else value
            found += [tag.strip() for tag in spaced.split(separator) if tag.strip()]
    return tuple(dict.fromkeys(found))
