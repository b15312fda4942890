"""Freshness lifetimes and age (RFC 9111 §4.2, RFC 5861, RFC 9213)."""

from __future__ import annotations

import time
from typing import Final, NamedTuple

from .dates import parse_date
from .directives import LONGEST, NONE, Directives, parse_cache_control, parse_targeted
from .fields import Fields, first, joined, lines
from .messages import Terms

HEURISTIC: Final = frozenset({200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501})
"""Statuses that are heuristically cacheable (RFC 9110 §15.1)."""


class Lifetime(NamedTuple):
    """Seconds, and who said so: the origin (explicit), a guess, the operator, or nobody."""

    seconds: int
    source: str

    @property
    def explicit(self) -> bool:
        return self.source in ("origin", "operator")


def directives_for_us(fields: Fields, terms: Terms) -> tuple[Directives, bool]:
    """The directives that hold for this cache; True: from a targeted field (RFC 9213 §2.2)."""
    for name in terms.targets:
        value = joined(fields, name)
        if value is not None:
            targeted = parse_targeted(value)
            if targeted is not None:
                return targeted, True
    value = joined(fields, b"cache-control")
    return (parse_cache_control(value) if value is not None else NONE), False


def year_of(now: float) -> int:
    """The year in which `now` lies."""
    return time.gmtime(now).tm_year


def date_of(fields: Fields, name: bytes, now: float) -> int | None:
    """The date in a field, or None where it is absent, repeated or invalid."""
    values = lines(fields, name)
    if len(values) != 1:
        return None
    return parse_date(values[0].decode("latin-1"), year_of(now))


def age_received(fields: Fields) -> int:
    """The Age of a response as it came: its first member; 0 where it is not digits (§5.1)."""
    value = first(fields, b"age")
    if value is None:
        return 0
    member = value.split(b",", 1)[0].strip()
    if not member.isdigit():
        return 0
    return min(int(member[-20:]) if len(member) > 20 else int(member), LONGEST)


def lifetime_of(
    status: int, fields: Fields, directives: Directives, targeted: bool, now: float, terms: Terms
) -> Lifetime:
    """The freshness lifetime of a response received at `now` (§4.2.1)."""
    if terms.mode == "override" and terms.ttl is not None:
        return Lifetime(terms.ttl, "operator")
    for name in ("s-maxage", "max-age"):
        seconds = directives.seconds(name)
        if seconds is not None:
            return Lifetime(seconds, "origin")
    date = date_of(fields, b"date", now)
    base = now if date is None else date
    if not targeted and first(fields, b"expires") is not None:
        # an invalid or repeated Expires is one that has passed (§5.3)
        expires = date_of(fields, b"expires", now)
        return Lifetime(0 if expires is None else max(0, int(expires - base)), "origin")
    if status in terms.negative:
        return Lifetime(terms.negative[status], "operator")
    if status in HEURISTIC or "public" in directives:
        modified = date_of(fields, b"last-modified", now)
        if modified is not None and modified < base:
            guess = int((base - modified) * terms.heuristic_share)
            return Lifetime(min(guess, terms.heuristic_most), "guess")
    return Lifetime(0, "nobody")
