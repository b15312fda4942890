"""Byte ranges: asked for, answered from what is stored, combined (RFC 9110 §14, RFC 9111 §3.3)."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from .messages import Asked, Stored
from .tags import is_strong, strongly_equal

_SPEC: Final = re.compile(
    rb"bytes=[ \t]*(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))[ \t]*", re.IGNORECASE
)
_CONTENT_RANGE: Final = re.compile(rb"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.IGNORECASE)

type Part = tuple[int, int, int | None]


class Slice(NamedTuple):
    """The bytes first…last of a representation of `total` bytes."""

    first: int
    last: int
    total: int


def parse_content_range(value: bytes) -> Part | None:
    """(first, last, complete length or None) of a Content-Range, or None where it is no good."""
    found = _CONTENT_RANGE.fullmatch(value.strip())
    if not found:
        return None
    begin, end = int(found[1]), int(found[2])
    total = None if found[3] == b"*" else int(found[3])
    if begin > end or (total is not None and end >= total):
        return None
    return begin, end, total


def wanted(asked: Asked, stored: Stored) -> bytes | None:
    """The Range that counts for a stored response, or None: all of it is wanted.

    Range means something with GET only (§14.2); If-Range must hold, compared strongly
    (§13.1.5). A set of several ranges is answered with the whole, which §14.2 permits.
    """
    value = asked.notable.get(b"range")
    if value is None or asked.method != b"GET" or stored.status not in (200, 206):
        return None
    condition = asked.notable.get(b"if-range")
    if condition is not None:
        condition = condition.strip()
        if condition.startswith((b'"', b"W/")):
            if not strongly_equal(condition, stored.etag):
                return None
        elif not stored.modified or condition != stored.modified:
            return None
    return value if _SPEC.fullmatch(value.strip()) else None


def resolve(value: bytes, total: int) -> Slice | None:
    """The slice that a Range of one spec stands for; None where it can't be satisfied (416)."""
    found = _SPEC.fullmatch(value.strip())
    assert found is not None  # `wanted` has checked it
    if found[3] is not None:
        length = min(int(found[3]), total)
        return Slice(total - length, total - 1, total) if length else None
    begin = int(found[1])
    end = int(found[2]) if found[2] else total - 1
    if begin >= total or end < begin:
        return None
    return Slice(begin, min(end, total - 1), total)


def invalid(value: bytes) -> bool:
    """Whether a spec has its ends reversed: it is no valid Range and is passed over."""
    found = _SPEC.fullmatch(value.strip())
    return bool(found and found[2] and int(found[2]) < int(found[1]))


def covers(part: Part, piece: Slice) -> bool:
    """Whether a stored part holds all of a slice."""
    return part[0] <= piece.first and piece.last <= part[1]


def combinable(old: Stored, new: Stored) -> bool:
    """Whether two parts may be put together: same strong validator, no gap (RFC 9111 §3.4)."""
    if old.part is None or new.part is None or not is_strong(new.etag):
        return False
    touching = new.part[0] <= old.part[1] + 1 and old.part[0] <= new.part[1] + 1
    return touching and strongly_equal(old.etag, new.etag)


def combine(old: Stored, old_body: bytes, new: Stored, new_body: bytes) -> tuple[Part, bytes]:
    """The part that two combinable ones make, and its bytes; where both have them, the new."""
    assert old.part is not None
    assert new.part is not None
    begin, end = min(old.part[0], new.part[0]), max(old.part[1], new.part[1])
    before = old_body[: max(0, new.part[0] - old.part[0])]
    after = old_body[new.part[1] + 1 - old.part[0] :] if old.part[1] > new.part[1] else b""
    total = new.part[2] if new.part[2] is not None else old.part[2]
    return (begin, end, total), before + new_body + after


def is_complete(part: Part) -> bool:
    """Whether a part is all there is."""
    return part[2] is not None and part[0] == 0 and part[1] == part[2] - 1
