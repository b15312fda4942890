"""What the tests of the rules share: requests, responses and stored ones, briefly."""

from __future__ import annotations

from email.utils import formatdate
from typing import Any

from tidegate_cache_http.rules.messages import Asked, Stored, Terms
from tidegate_cache_http.rules.storing import storable

NOW = 1_800_000_000.0
TERMS = Terms()

type Pairs = dict[str, Any]


def date(offset: float = 0.0) -> str:
    """An HTTP date, `offset` seconds from NOW."""
    return formatdate(NOW + offset, usegmt=True)


def fields(pairs: Pairs) -> tuple[tuple[bytes, bytes], ...]:
    """Fields of a dictionary; a list is several lines."""
    out = []
    for name, value in pairs.items():
        for one in value if isinstance(value, list) else [value]:
            out.append((name.encode(), str(one).encode("latin-1")))
    return tuple(out)


def ask(pairs: Pairs | None = None, method: str = "GET") -> Asked:
    return Asked(method.encode(), fields(pairs or {}))


def keep(
    pairs: Pairs,
    request: Asked | None = None,
    *,
    status: int = 200,
    size: int = 10,
    at: float = NOW,
    terms: Terms = TERMS,
) -> Stored:
    """The stored form of a response that came at `at`. Raises Refusal."""
    stored = storable(request or ask(), status, fields(pairs), at, terms, asked_at=at)
    stored.size = size
    return stored
