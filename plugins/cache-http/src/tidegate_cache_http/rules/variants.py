"""Vary: which stored response goes with which request (RFC 9111 §4.1)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from .fields import Fields, first, joined
from .messages import Nominated, Stored

_COMMA: Final = re.compile(rb"[ \t]*,[ \t]*")
_BY_MEANING: Final = frozenset({b"accept-language", b"accept-encoding"})
"""Lists with weights: order, spaces and letter case mean nothing (RFC 9110 §12.5)."""
CODINGS: Final = frozenset({b"", b"gzip", b"x-gzip", b"deflate", b"br", b"zstd", b"identity"})
"""Content codings that are worth a variant. Others that a request names are not compared."""


def nominated(vary: bytes | None) -> tuple[bytes, ...] | None:
    """The field names that Vary lists, lower case, sorted; None where it has `*`."""
    if vary is None:
        return ()
    names = {name.strip().lower() for name in vary.split(b",")} - {b""}
    return None if b"*" in names else tuple(sorted(names))


def values_of(names: Iterable[bytes], request: Fields) -> Nominated:
    """The nominated fields of a request, normalised: what a variant is stored under."""
    return tuple((name, _value(name, request)) for name in names)


def _value(name: bytes, request: Fields) -> bytes | None:
    value = joined(request, name)
    return None if value is None else _normalised(name, value)


@lru_cache(maxsize=4096)
def _normalised(name: bytes, value: bytes) -> bytes:
    if name in _BY_MEANING:
        return by_meaning(value, codings=name == b"accept-encoding")
    value = value.strip(b" \t")
    return value if b'"' in value else _COMMA.sub(b",", value)


def by_meaning(value: bytes, *, codings: bool) -> bytes:
    """A weighted list in one canonical spelling: the greatest weight first, then by name."""
    members: dict[bytes, int] = {}
    for member in value.lower().split(b","):
        name, *parameters = (part.strip(b" \t") for part in member.split(b";"))
        if not name or (codings and name not in CODINGS and name != b"*"):
            continue
        weight = 1000
        for parameter in parameters:
            if parameter.startswith(b"q="):
                weight = _weight(parameter[2:])
        members.setdefault(name, weight)
    ordered: Iterable[tuple[bytes, int]] = sorted(
        members.items(), key=lambda pair: (-pair[1], pair[0])
    )
    return b",".join(b"%b;q=%d" % pair for pair in ordered)


def _weight(text: bytes) -> int:
    """A qvalue in thousandths (RFC 9110 §12.4.2); what is none counts as 0."""
    try:
        value = float(text) if text[:1] in (b"0", b"1") and len(text) <= 5 else 0.0
    except ValueError:
        return 0
    return min(1000, int(value * 1000 + 0.5))


def matches(stored: Stored, request: Fields) -> bool:
    """Whether the nominated fields of a stored response equal those of a request.

    A stored response in the one language that a request likes best matches as well: that is
    what the origin would choose for it (RFC 9110 §12.5.4).
    """
    for name, value in stored.vary:
        asked = _value(name, request)
        if asked != value and not (
            name == b"accept-language" and asked is not None and _is_favourite(asked, stored)
        ):
            return False
    return True


def _is_favourite(asked: bytes, stored: Stored) -> bool:
    """Whether the favourite of a canonical Accept-Language is the language of a response."""
    language = (first(stored.fields, b"content-language") or b"").strip().lower()
    best, *others = (member.split(b";q=") for member in asked.split(b",") if member)
    return bool(language) and best[0] == language and all(int(o[1]) < int(best[1]) for o in others)


def select(stored: Iterable[Stored], request: Fields) -> Stored | None:
    """The stored response for a request: of those that match, the most recent (§4)."""
    best: Stored | None = None
    for one in stored:
        if matches(one, request) and (best is None or _newer(one, best)):
            best = one
    return best


def _newer(one: Stored, other: Stored) -> bool:
    return (one.date, one.asked_at) > (other.date, other.asked_at)
