"""Both tiers as one: what the plugin talks to.

A look-up goes to the memory tier, then to the file. What is stored is in memory at once and in
the file a few milliseconds later. Another backing (a shared Redis, say) takes the place of
`Disk` and `Writer`: it must load the records of a key, read a body, and take changes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tidegate.api import Counters
from tidegate_cache_http.rules.messages import Stored

from .changes import Drop, Purge, Put, Scope, Update
from .disk import Disk
from .memory import Memory, Shelf, Variant
from .record import Key
from .shared import Shared
from .writer import Writer

VARIANTS: Final = 32
"""Variants of one key; the one that was validated longest ago goes for a new one."""

OWN_WRITES: Final = 256
"""Writes of a key that may be on their way to the file at a time, for its shelf to hold."""
LARGEST: Final = 4
"""A body that takes more than this part of the memory tier is in the file only."""


class Store:
    """The cache of one worker over the file of the node. Open it after the worker has started.

    Args:
        folder: where the file is.
        budget: bytes of all entries in the file.
        memory: bytes of the memory tier of this worker.
    """

    def __init__(self, folder: Path, budget: int, memory: int, counters: Counters) -> None:
        self.folder = folder
        self.counters = counters
        self.disk = Disk(folder, budget)
        self.shared = self.disk.shared
        self.memory = Memory(memory, self.shared)
        self._largest = memory // LARGEST
        self._writer = Writer(self.disk, counters)
        self._closed = False

    # -- reading ------------------------------------------------------------------------------

    def shelf(self, key: Key) -> Shelf | None:
        """All that is stored under a key, or None."""
        shelf = self.memory.get(key)
        if shelf is not None:
            return shelf
        slot = Shared.slot(key.url)
        stamp, version = self.shared.stamps[slot], self.shared.versions[slot]
        records, body = self.disk.load(key)
        if not records:
            return None
        shelf = Shelf(slot, stamp, (version,))
        shelf.variants = [Variant(r.head, None, r.number, r.chunks) for r in records]
        if body is not None and len(body) == records[0].head.size:
            shelf.variants[0].body = body
        self.memory.put(key, shelf)
        return shelf

    def body(self, key: Key, shelf: Shelf, variant: Variant) -> bytes | None:
        """The body of a variant, or None where it has been evicted since. Counts as a use."""
        if variant.number:
            self.shared.visit(variant.number)
        body = variant.body
        if body is None:
            body = self.disk.body(variant.number, variant.chunks)
            if body is None or len(body) != variant.head.size:
                self.memory.discard(key)
                return None
            if len(body) <= self._largest:
                variant.body = body
                self.memory.put(key, shelf)
        return body

    def stamp(self, url: bytes) -> int:
        """The stamp of a URL now: what is asked for now is stored under it."""
        return self.shared.stamps[Shared.slot(url)]

    # -- writing ------------------------------------------------------------------------------

    def put(self, key: Key, head: Stored, body: bytes) -> bool:
        """Store a response, unless its URL was invalidated since `head.stamp` was taken."""
        slot = Shared.slot(key.url)
        if self.shared.stamps[slot] != head.stamp:
            self.counters.add("outdated_total")
            return False
        variant = Variant(head, body, 0)
        version = self.shared.unique()
        if len(body) <= self._largest:
            shelf = self._own(key, slot, version)
            others = [v for v in shelf.variants if v.head.vary != head.vary]
            others.sort(key=lambda v: v.head.asked_at)
            shelf.variants = [*others[-(VARIANTS - 1) :], variant]
            self.memory.put(key, shelf)
        else:
            self.memory.discard(key)
        return self._writer.submit(Put(key, version, variant))

    def update(self, key: Key, shelf: Shelf, variant: Variant, head: Stored) -> None:
        """Give a variant the head that a validation left it."""
        if self.shared.stamps[shelf.slot] != head.stamp:
            return
        version = self.shared.unique()
        own = self._own(key, shelf.slot, version)
        own.variants = [v for v in own.variants if v.head.vary != head.vary]
        own.variants.append(Variant(head, variant.body, variant.number, variant.chunks))
        self.memory.put(key, own)
        self._writer.submit(Update(key, version, head))

    def _own(self, key: Key, slot: int, version: int) -> Shelf:
        """A copy of the shelf of a key that holds before and after the write of `version`."""
        old = self.shelf(key)
        known = (self.shared.versions[slot],) if old is None else old.versions[-OWN_WRITES:]
        shelf = Shelf(slot, self.shared.stamps[slot], (*known, version))
        if old is not None:
            shelf.variants = list(old.variants)
        return shelf

    def invalidate(self, url: bytes) -> None:
        """Drop a URL: at once, for all workers, and for answers that are on their way."""
        self.shared.invalidate(url)
        self._writer.submit(Drop(Key(url, b""), self.shared.unique()))

    def purge(
        self, scope: Scope, value: bytes, *, soft: bool, done: Callable[[int | None], None]
    ) -> None:
        """Purge; `done` is called on the writer's thread with the number of entries."""
        if not self._writer.submit(Purge(scope, value, soft=soft, done=done)):
            done(None)

    def resize(self, budget: int, memory: int, counters: Counters) -> None:
        """Take other sizes. The file grows up to what its map allows; beyond it at a new start."""
        self.counters = self._writer.counters = counters
        self.disk.resize(budget)
        self._largest = memory // LARGEST
        self.memory = Memory(memory, self.shared)

    # -- the rest -----------------------------------------------------------------------------

    def drain(self, seconds: float = 10.0) -> bool:
        """Wait until all is in the file. Not on the loop."""
        return self._writer.drain(seconds)

    def close(self) -> None:
        """Write what waits and close, once. Not on the loop."""
        if not self._closed:
            self._closed = True
            self._writer.close()
            self.disk.close()

    def figures(self) -> dict[str, Any]:
        """What the file holds, and this worker's memory."""
        return {**figures(self.disk), "memory_bytes": self.memory.bytes}


def figures(disk: Disk) -> dict[str, Any]:
    """Entries, bytes and counts of the file."""
    names = ("entries", "bytes", "small", "serial")
    with disk.env.begin(db=disk.db["meta"]) as txn:
        found = {name: int.from_bytes(txn.get(name.encode(), b"")) for name in names}
    info, stat = disk.env.info(), disk.env.stat()
    return {
        "entries": found["entries"],
        "bytes": found["bytes"],
        "budget": disk.budget,
        "small_bytes": found["small"],
        "evicted_early": found["serial"],
        "file_bytes": (info["last_pgno"] + 1) * stat["psize"],
        "map_bytes": info["map_size"],
    }
