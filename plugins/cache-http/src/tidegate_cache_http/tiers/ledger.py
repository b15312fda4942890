"""The file within a write transaction: entries in and out, and who goes when it is full.

The policy is S3-FIFO as in `memory`, with the main queue kept as SIEVE keeps it: what was used
stays in its place and a hand passes over it, so that a use costs no write.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from tidegate_cache_http.rules.messages import Stored

from .disk import Disk, chunk_key
from .record import Key, Record, pack, record_id, shelf_id, unpack
from .shared import VISITS

PAGE: Final = 4096
INLINE: Final = 2000
"""Values above this take pages of their own."""
INDEX_COST: Final = 400
"""Bytes of an entry's share of queue and indexes, about."""
SMALL_SHARE: Final = 10
INDEXED: Final = 480
"""Bytes of a URL or a tag that are indexed: LMDB's keys end at 511."""


def cost_of(head: Stored, chunks: list[bytes]) -> int:
    """Bytes that an entry takes in the file."""
    total = INDEX_COST + 300 + sum(len(n) + len(v) + 6 for n, v in head.fields)
    for chunk in chunks:
        size = len(chunk) + 24
        total += size if size <= INLINE else size + 16 + -(size + 16) % PAGE
    return total


class Ledger:
    """One write transaction over the file."""

    def __init__(self, disk: Disk, txn: Any) -> None:
        self._txn = txn
        self._disk = disk
        self._db = disk.db
        self._shared = disk.shared
        self.evicted = 0
        self.bytes = self._count("bytes")
        self.small = self._count("small")
        self.serial = self._count("serial")
        self.number = self._count("number")
        self.hand = self._count("hand")
        self.entries = self._count("entries")

    def _count(self, name: str) -> int:
        return int.from_bytes(self._txn.get(name.encode(), b"", db=self._db["meta"]))

    def settle(self) -> None:
        """Write the counters down, before the commit."""
        for name in ("bytes", "small", "serial", "number", "hand", "entries"):
            value: int = max(0, getattr(self, name))
            self._txn.put(name.encode(), value.to_bytes(8), db=self._db["meta"])

    # -- entries ------------------------------------------------------------------------------

    def get(self, record: bytes) -> Record | None:
        """The record with this id."""
        data = self._txn.get(record, db=self._db["heads"])
        return None if data is None else unpack(data)

    def put(self, key: Key, head: Stored, chunks: list[bytes]) -> int:
        """Store an entry in the place of the one with its key and variant; its number."""
        name = record_id(shelf_id(key), head.vary)
        old = self.get(name)
        known = self._shared.haunted(name, self.serial, max(64, self.entries))
        small = not known
        if old is not None:
            # a new version of what was used goes on where the old one was
            small = self._txn.get(b"s" + old.number.to_bytes(8), db=self._db["queue"]) is not None
            self._delete(name, old)
        cost = cost_of(head, chunks)
        self.number += 1
        record = Record(self.number, key, head, len(chunks), cost)
        self._txn.put(name, pack(record), db=self._db["heads"])
        for index, chunk in enumerate(chunks):
            self._txn.put(chunk_key(self.number, index), chunk, db=self._db["bodies"])
        queue = b"s" if small else b"m"
        self._txn.put(queue + self.number.to_bytes(8), name, db=self._db["queue"])
        self._index(name, key, head, add=True)
        self._shared.visits[self.number & (VISITS - 1)] = 0
        self.bytes += cost
        self.small += cost if small else 0
        self.entries += 1
        return self.number

    def update(self, key: Key, head: Stored) -> bool:
        """Give an entry another head (after a 304); False where it is gone."""
        name = record_id(shelf_id(key), head.vary)
        old = self.get(name)
        if old is None or old.head.size != head.size:
            return False
        self._index(name, key, old.head, add=False)
        self._index(name, key, head, add=True)
        self._txn.put(name, pack(old._replace(head=head)), db=self._db["heads"])
        return True

    def delete(self, record: bytes) -> Record | None:
        """Remove the entry with this record id."""
        old = self.get(record)
        if old is not None:
            self._delete(record, old)
        return old

    def _delete(self, name: bytes, old: Record) -> None:
        number = old.number.to_bytes(8)
        if self._txn.delete(b"s" + number, db=self._db["queue"]):
            self.small -= old.cost
        else:
            self._txn.delete(b"m" + number, db=self._db["queue"])
        for index in range(old.chunks):
            self._txn.delete(chunk_key(old.number, index), db=self._db["bodies"])
        self._txn.delete(name, db=self._db["heads"])
        self._index(name, old.key, old.head, add=False)
        self.bytes -= old.cost
        self.entries -= 1

    def _index(self, name: bytes, key: Key, head: Stored, *, add: bool) -> None:
        change = self._txn.put if add else self._txn.delete
        change(key.url[:INDEXED], name, db=self._db["urls"])
        for tag in head.tags:
            change(tag[:INDEXED], name, db=self._db["tags"])

    # -- eviction -----------------------------------------------------------------------------

    def shrink(self, budget: int) -> None:
        """Evict until no more than `budget` bytes are taken."""
        while self.bytes > budget and self.entries > 0:
            if self.small > budget // SMALL_SHARE or not self._sweep_main():
                self._shift_small()

    def _shift_small(self) -> None:
        """The oldest of the small queue: to the main one if it was used, else out."""
        with self._txn.cursor(self._db["queue"]) as cursor:
            if not cursor.set_range(b"s") or cursor.key()[:1] != b"s":
                self.small = 0
                return
            place, name = bytes(cursor.key()), bytes(cursor.value())
        number = int.from_bytes(place[1:])
        old = self.get(name)
        visits = self._shared.visits
        if old is not None and visits[number & (VISITS - 1)]:
            visits[number & (VISITS - 1)] = 0
            self._txn.delete(place, db=self._db["queue"])
            self._txn.put(b"m" + place[1:], name, db=self._db["queue"])
            self.small -= old.cost
            return
        self._evict(place, name, old)
        self.serial += 1
        self._shared.haunt(name, self.serial)

    def _sweep_main(self) -> bool:
        """Move the hand to the next that was not used, and evict it; False: the queue is empty."""
        visits = self._shared.visits
        with self._txn.cursor(self._db["queue"]) as cursor:
            while True:
                if not self._under_hand(cursor):
                    self.hand = 0
                    if not self._under_hand(cursor):
                        return False
                place, name = bytes(cursor.key()), bytes(cursor.value())
                number = int.from_bytes(place[1:])
                self.hand = number + 1
                index = number & (VISITS - 1)
                if not visits[index]:
                    break
                visits[index] -= 1
        self._evict(place, name, self.get(name))
        return True

    def _under_hand(self, cursor: Any) -> bool:
        found: bool = cursor.set_range(b"m" + self.hand.to_bytes(8))
        return found and cursor.key()[:1] == b"m"

    def _evict(self, place: bytes, name: bytes, old: Record | None) -> None:
        self.evicted += 1
        if old is not None:
            self._delete(name, old)
        self._txn.delete(place, db=self._db["queue"])

    # -- finding ------------------------------------------------------------------------------

    def of_url(self, url: bytes) -> Iterator[bytes]:
        """The record ids of all scopes and variants of a URL."""
        for record in self._listed("urls", url[:INDEXED]):
            found = self.get(record)
            if found is not None and found.key.url == url:
                yield record

    def of_prefix(self, prefix: bytes) -> Iterator[bytes]:
        """The record ids of all URLs that begin so."""
        names: list[bytes] = []
        with self._txn.cursor(self._db["urls"]) as cursor:
            going = cursor.set_range(prefix[:INDEXED])
            while going and bytes(cursor.key()).startswith(prefix[:INDEXED]):
                names.append(bytes(cursor.value()))
                going = cursor.next()
        for record in names:
            found = self.get(record)
            if found is not None and found.key.url.startswith(prefix):
                yield record

    def of_tag(self, tag: bytes) -> Iterator[bytes]:
        """The record ids of all that has a tag."""
        for record in self._listed("tags", tag[:INDEXED]):
            found = self.get(record)
            if found is not None and tag in found.head.tags:
                yield record

    def everything(self) -> Iterator[bytes]:
        """All record ids."""
        with self._txn.cursor(self._db["heads"]) as cursor:
            yield from [bytes(name) for name in cursor.iternext(keys=True, values=False)]

    def _listed(self, database: str, name: bytes) -> list[bytes]:
        with self._txn.cursor(self._db[database]) as cursor:
            if not cursor.set_key(name):
                return []
            return [bytes(value) for value in cursor.iternext_dup()]
