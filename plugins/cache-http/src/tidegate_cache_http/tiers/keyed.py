"""The file as a tier for other caches: `tidegate.api.tiers.Tier` over `Store`."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tidegate.api import Counters
from tidegate.api.tiers import Kept, PurgeScope
from tidegate_cache_http.rules.messages import Stored

from .changes import Scope
from .record import Key
from .store import Store

_SCOPES: Final[dict[PurgeScope, Scope]] = {"name": "url", "tag": "tag", "all": "all"}
PATIENCE: Final = 30.0
"""Seconds that a purge may take."""


class FileTier:
    """Things by name and partition, in one file for the workers of a node, with memory above it."""

    def __init__(self, folder: Path, size: int, memory: int, counters: Counters) -> None:
        self._store = Store(folder, size, memory, counters)

    def get(self, name: bytes, partition: bytes) -> Kept | None:
        """See `Tier`."""
        key = Key(name, partition)
        shelf = self._store.shelf(key)
        if shelf is None:
            return None
        variant = shelf.variants[-1]
        body = self._store.body(key, shelf, variant)
        head = variant.head
        return None if body is None else Kept(head.fields, body, head.asked_at, head.lifetime)

    def mark(self, name: bytes) -> int:
        """See `Tier`."""
        return self._store.stamp(name)

    def put(
        self, name: bytes, partition: bytes, kept: Kept, *, mark: int, tags: Sequence[bytes] = ()
    ) -> bool:
        """See `Tier`."""
        head = Stored(
            status=200, reason=b"", fields=kept.fields, size=len(kept.body), part=None,
            asked_at=kept.at, age=0, lifetime=kept.lifetime, heuristic=False, date=kept.at,
            always_validate=False, never_stale=True, immutable=False, swr=0, sie=None,
            etag=b"", modified=b"", vary=(), tags=tuple(tags), stamp=mark,
        )  # fmt: skip
        return self._store.put(Key(name, partition), head, kept.body)

    def purge(self, scope: PurgeScope, value: bytes = b"") -> int | None:
        """See `Tier`."""
        ended = threading.Event()
        found: list[int | None] = []

        def done(number: int | None) -> None:
            found.append(number)
            ended.set()

        self._store.purge(_SCOPES[scope], value, soft=False, done=done)
        ended.wait(PATIENCE)
        return found[0] if found else None

    def resize(self, size: int, memory: int, counters: Counters) -> None:
        """See `Tier`."""
        self._store.resize(size, memory, counters)

    def figures(self) -> dict[str, Any]:
        """See `Tier`."""
        return self._store.figures()

    def close(self) -> None:
        """See `Tier`."""
        self._store.close()
