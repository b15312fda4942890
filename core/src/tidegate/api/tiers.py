"""Tiers: where caches keep things, found by name, so that plugins need not import each other.

A distribution offers a tier in the entry-point group `tidegate.tiers` (name → `module:CLASS`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final, Literal, Protocol, cast

from .messages import Fields
from .plugin import Counters

TIERS: Final = "tidegate.tiers"
"""The entry-point group."""

type PurgeScope = Literal["name", "tag", "all"]


@dataclass(frozen=True, slots=True)
class Kept:
    """One thing that is kept: a body, fields that say what it is, and until when it is good.

    `at` is Unix seconds, `lifetime` seconds.
    """

    fields: Fields
    body: bytes
    at: float
    lifetime: int

    def ttl_at(self, now: float) -> int:
        """Seconds for which it is good; not positive: it is no more."""
        return self.lifetime - max(0, int(now - self.at))


class Tier(Protocol):
    """A store of things by name and partition, shared by the workers of a node.

    What is in one partition is not found from another.
    """

    def __init__(self, folder: Path, size: int, memory: int, counters: Counters) -> None:
        """Open it; after the process was forked. `size`, `memory`: bytes, the latter per worker."""

    def get(self, name: bytes, partition: bytes) -> Kept | None:
        """What is kept, good or no more; None where there is nothing. Quick enough for the loop."""

    def mark(self, name: bytes) -> int:
        """What `put` needs: take it before the thing is asked for."""

    def put(
        self, name: bytes, partition: bytes, kept: Kept, *, mark: int, tags: Sequence[bytes] = ()
    ) -> bool:
        """Keep a thing, unless its name was purged since `mark`; False: it is not kept."""

    def purge(self, scope: PurgeScope, value: bytes = b"") -> int | None:
        """Drop things on all workers; how many, None: it failed. Not on the loop."""

    def resize(self, size: int, memory: int, counters: Counters) -> None:
        """Take other sizes, and count elsewhere."""

    def figures(self) -> dict[str, Any]:
        """What it holds: entries, bytes, budget and the like."""

    def close(self) -> None:
        """Write what waits, and close. Not on the loop."""


def open_tier(kind: str, folder: Path, *, size: int, memory: int, counters: Counters) -> Tier:
    """The tier of an entry point, opened in `folder`. LookupError: no distribution offers it."""
    for point in entry_points(group=TIERS, name=kind):
        return cast(Tier, point.load()(folder, size, memory, counters))
    raise LookupError(f"there is no tier {kind!r}: no installed package offers it")
