"""Conditional requests: the client's, answered here; ours, sent instead (RFC 9111 §4.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .dates import parse_date
from .fields import HOP_BY_HOP, Fields, connection_options, first, joined, without
from .freshness import directives_for_us, lifetime_of, year_of
from .messages import Asked, Stored, Terms
from .storing import make_stored, surrogate_tags
from .tags import parse_tags, weakly_equal

PRECONDITIONS: Final = frozenset({b"if-none-match", b"if-modified-since"})
_NOT_UPDATED: Final = HOP_BY_HOP | {b"content-length"}
_NOT_IN_304: Final = frozenset(
    {b"content-encoding", b"content-language", b"content-length", b"content-range",
     b"content-type"}
)  # fmt: skip
"""Metadata of a body that a 304 has not (RFC 9110 §15.4.5)."""


def not_modified(asked: Asked, stored: Stored, now: float) -> bool:
    """Whether the client's conditions are answered with 304 from `stored` (§4.3.2).

    If-None-Match goes before If-Modified-Since, which is passed over beside it and where its
    date is not one (RFC 9110 §13.1.3).
    """
    if not asked.notable or stored.status not in (200, 206):
        return False
    if b"if-none-match" in asked.notable:
        tags = joined(asked.fields, b"if-none-match") or b""
        if tags.strip() == b"*":
            return True
        return bool(stored.etag) and any(weakly_equal(t, stored.etag) for t in parse_tags(tags))
    since = asked.notable.get(b"if-modified-since")
    if since is None:
        return False
    year = year_of(now)
    moment = parse_date(since.decode("latin-1"), year)
    if moment is None:
        return False
    modified = parse_date(stored.modified.decode("latin-1"), year)
    return (stored.date if modified is None else modified) <= moment


def fields_of_304(fields: Fields) -> Fields:
    """The fields of a 304 made from stored ones."""
    return without(fields, _NOT_IN_304)


def conditions(candidates: Sequence[Stored]) -> Fields:
    """The conditions by which the origin is asked about stored responses (§4.3.1).

    All their entity tags, so that a 304 can choose one; the Last-Modified of the only one.
    """
    out: list[tuple[bytes, bytes]] = []
    tags = dict.fromkeys(one.etag for one in candidates if one.etag)
    if tags:
        out.append((b"if-none-match", b", ".join(tags)))
    if len(candidates) == 1 and candidates[0].modified:
        out.append((b"if-modified-since", candidates[0].modified))
    return tuple(out)


def with_conditions(fields: Fields, ours: Fields) -> Fields:
    """A request's fields with our conditions in the place of the client's."""
    return without(fields, PRECONDITIONS) + ours


def chosen(candidates: Sequence[Stored], answer: Fields) -> Stored | None:
    """The stored response that a 304 is about (§4.3.4); None where it can't be told.

    Its entity tag tells, else its Last-Modified; and where only one response was asked about,
    it is that one, whatever fields the origin put into the 304.
    """
    tag = (first(answer, b"etag") or b"").strip()
    modified = (first(answer, b"last-modified") or b"").strip()
    for one in candidates:
        if tag and one.etag and weakly_equal(one.etag, tag):
            return one
    for one in candidates:
        if modified and one.modified == modified:
            return one
    return candidates[0] if len(candidates) == 1 else None


def updated(stored: Stored, answer: Fields, now: float, asked_at: float, terms: Terms) -> Stored:
    """`stored` as a 304 (or the 200 to a HEAD) that came at `now` leaves it (§3.2, §4.3.4).

    Each field that the answer has replaces the stored ones of its name; the age starts anew.
    """
    fresh = without(answer, _NOT_UPDATED | connection_options(answer))
    replaced = {name.lower() for name, _ in fresh}
    fields = without(stored.fields, replaced) + fresh
    directives, targeted = directives_for_us(fields, terms)
    lifetime = lifetime_of(stored.status, fields, directives, targeted, now, terms)
    new = make_stored(stored.status, fields, directives, lifetime, now, asked_at)
    new.reason = stored.reason
    new.size, new.part, new.vary = stored.size, stored.part, stored.vary
    new.asked_range, new.stamp = stored.asked_range, stored.stamp
    named = surrogate_tags(stored.fields)
    new.tags += tuple(tag for tag in stored.tags if tag not in named and tag not in new.tags)
    return new


def same_representation(stored: Stored, answer: Fields) -> bool:
    """Whether the 200 to a HEAD is about what is stored (§4.3.5)."""
    tag, modified = first(answer, b"etag"), first(answer, b"last-modified")
    length = first(answer, b"content-length")
    if tag is not None and tag.strip() != stored.etag:
        return False
    if modified is not None and modified.strip() != stored.modified:
        return False
    return length is None or stored.part is not None or length.strip() == b"%d" % stored.size
