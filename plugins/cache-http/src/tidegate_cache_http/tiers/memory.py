"""The memory tier of one worker: parsed heads and whole bodies of what is asked for often."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from itertools import chain
from typing import Final

from tidegate.api.messages import PreparedHead
from tidegate_cache_http.rules.messages import Stored

from .record import Key
from .shared import Shared

_SHELF: Final = 500
"""Bytes of a shelf with its key, and its places in the queues."""
_VARIANT: Final = 700
_FIELD: Final = 190


class S3Fifo[K: Hashable]:
    """Which keys to keep, within a budget of bytes (Yang et al., SOSP 2023).

    New ones enter a small queue (a tenth); those used again before they reach its end go to
    the main one, the others leave their name behind: a name that comes back goes to the main
    queue at once. So a scan passes through the small queue and displaces nothing.
    """

    __slots__ = ("_ghosts", "_main", "_small", "_small_bytes", "_uses", "budget", "bytes")

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.bytes = 0
        self._small: OrderedDict[K, int] = OrderedDict()
        self._main: OrderedDict[K, int] = OrderedDict()
        self._ghosts: OrderedDict[K, None] = OrderedDict()
        self._uses: dict[K, int] = {}
        self._small_bytes = 0

    def __len__(self) -> int:
        return len(self._uses)

    def use(self, key: K) -> None:
        """Note a use of a key that is kept."""
        uses = self._uses
        count = uses[key]
        if count < 3:
            uses[key] = count + 1

    def add(self, key: K, size: int) -> list[K]:
        """Keep a key, anew or with another size; those that must go for it."""
        known = self._uses.get(key)
        if known is not None:
            queue = self._small if key in self._small else self._main
            self._count(size - queue[key], small=queue is self._small)
            queue[key] = size
        elif key in self._ghosts:
            del self._ghosts[key]
            self._main[key] = size
            self._uses[key] = 0
            self._count(size, small=False)
        else:
            self._small[key] = size
            self._uses[key] = 0
            self._count(size, small=True)
        gone: list[K] = []
        while self.bytes > self.budget and self._uses:
            self._evict(gone)
        return gone

    def discard(self, key: K) -> None:
        """Forget a key."""
        if self._uses.pop(key, None) is None:
            return
        small = key in self._small
        size = (self._small if small else self._main).pop(key)
        self._count(-size, small=small)

    def _count(self, size: int, *, small: bool) -> None:
        self.bytes += size
        if small:
            self._small_bytes += size

    def _evict(self, gone: list[K]) -> None:
        if self._small and (self._small_bytes > self.budget // 10 or not self._main):
            key, size = self._small.popitem(last=False)
            self._small_bytes -= size
            if self._uses[key] > 0:
                self._uses[key] = 0
                self._main[key] = size
                return
            self._ghosts[key] = None
            while len(self._ghosts) > max(len(self._uses), 64):
                self._ghosts.popitem(last=False)
        else:
            key, size = self._main.popitem(last=False)
            if self._uses[key] > 0:
                self._uses[key] -= 1
                self._main[key] = size
                return
        del self._uses[key]
        self.bytes -= size
        gone.append(key)


class Variant:
    """A stored response on a shelf. `body` is None until it is needed."""

    __slots__ = ("body", "chunks", "head", "number", "prepared")

    def __init__(self, head: Stored, body: bytes | None, number: int, chunks: int = 0) -> None:
        self.head = head
        self.body = body
        self.number = number
        self.chunks = chunks
        self.prepared: PreparedHead | None = None
        """What a fresh hit begins with, from the first one on."""


class Shelf:
    """All that is stored under one key, as this worker knows it.

    It holds as long as the slot's stamp is the one that it was made under, and the slot's
    version one of `versions`: the one that was there, and those of the worker's own writes,
    which come into the file one after the other.
    """

    __slots__ = ("slot", "stamp", "variants", "versions")

    def __init__(self, slot: int, stamp: int, versions: tuple[int, ...]) -> None:
        self.slot = slot
        self.stamp = stamp
        self.versions = versions
        self.variants: list[Variant] = []

    @property
    def size(self) -> int:
        """Bytes that it takes, within a tenth (`tests/test_memory.py` asks the system)."""
        total = _SHELF
        for variant in self.variants:
            fields, body = variant.head.fields, variant.body
            # a head that has been given is there as fields and as it is sent
            total += (
                _VARIANT + _FIELD * len(fields) + 2 * sum(map(len, chain.from_iterable(fields)))
            )
            total += len(body) if body is not None else 0
        return total


class Memory:
    """Shelves by key, within a budget of bytes."""

    __slots__ = ("_policy", "_shared", "_shelves", "evictions")

    def __init__(self, budget: int, shared: Shared) -> None:
        self._shared = shared
        self._policy: S3Fifo[Key] = S3Fifo(budget)
        self._shelves: dict[Key, Shelf] = {}
        self.evictions = 0

    @property
    def bytes(self) -> int:
        """What the shelves take."""
        return self._policy.bytes

    def get(self, key: Key) -> Shelf | None:
        """The shelf of a key, if it is here and still holds."""
        shelf = self._shelves.get(key)
        if shelf is None:
            return None
        shared, slot = self._shared, shelf.slot
        version, own = shared.versions[slot], shelf.versions
        if shared.stamps[slot] != shelf.stamp or version not in own:
            self.discard(key)
            return None
        if len(own) > 1 and version == own[-1]:
            shelf.versions = (version,)  # all that this worker wrote is in the file
        self._policy.use(key)
        return shelf

    def put(self, key: Key, shelf: Shelf) -> None:
        """Keep a shelf, or note that it has grown; whatever must go for it goes."""
        if not self._policy.budget:
            return
        self._shelves[key] = shelf
        for gone in self._policy.add(key, shelf.size):
            del self._shelves[gone]
            self.evictions += 1

    def discard(self, key: Key) -> None:
        """Forget a key."""
        if self._shelves.pop(key, None) is not None:
            self._policy.discard(key)

    def clear(self) -> None:
        """Forget all."""
        for key in list(self._shelves):
            self.discard(key)
