"""Cache-Status (RFC 9211), and why, in words."""

from __future__ import annotations

from typing import Final

from .rules.decide import Decision
from .rules.fields import Fields, lines

NAME: Final = b"cache-status"
_HIT: Final = b"tidegate; hit; ttl=%d"


def hit(ttl: int) -> tuple[bytes, bytes]:
    """The field of an answer from the cache; a negative ttl says for how long it is stale."""
    return NAME, _HIT % ttl


def forwarded(
    decision: Decision,
    *,
    status: int | None = None,
    stored: bool = False,
    collapsed: bool = False,
    ttl: int | None = None,
    detail: str = "",
) -> tuple[bytes, bytes]:
    """The field of an answer that the origin had a part in. `status`: what it answered us."""
    parts = ["tidegate"]
    parts.append(f"fwd={decision.fwd}" if decision.fwd else "hit")
    if status is not None:
        parts.append(f"fwd-status={status}")
    if stored:
        parts.append("stored")
    if ttl is not None:
        parts.append(f"ttl={ttl}")
    if collapsed:
        parts.append("collapsed")
    if detail:
        parts.append('detail="' + detail.replace("\\", "").replace('"', "'") + '"')
    return NAME, "; ".join(parts).encode("ascii", "replace")


def told(fields: Fields, member: tuple[bytes, bytes]) -> Fields:
    """`fields` with our member of Cache-Status behind those of the caches before us (§2)."""
    before = lines(fields, NAME)
    if not before:
        return (*fields, member)
    kept = tuple(field for field in fields if field[0].lower() != NAME)
    return (*kept, (NAME, b", ".join((*before, member[1]))))
