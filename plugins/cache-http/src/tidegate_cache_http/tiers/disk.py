"""The file: opening it, and reading from it. Writing is `writer`'s.

Readers take no lock and wait for nobody. All workers of a node, and the command line, have the
same file open.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any, Final

import lmdb

from .compress import restore
from .record import Key, Record, shelf_id, unpack
from .shared import Shared

log = logging.getLogger("tidegate.addon.cache-http")

FILLED: Final = 0.6
"""Share of the map that the budget may take: the rest is for free pages and fragments."""
READERS: Final = 512
DATABASES: Final = (b"heads", b"bodies", b"queue", b"urls", b"tags", b"meta")


class Disk:
    """The open file. Open it in each process, after it was forked.

    Attributes:
        env: LMDB's environment.
        db: its databases by name:
            heads   record id → record
            bodies  number, chunk → chunk
            queue   b"s" or b"m" (small, main), number → record id
            urls    URL (its beginning) → record ids; tags: tag → record ids
            meta    counters
    """

    def __init__(self, folder: Path, budget: int) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.shared = Shared(folder / "shared")
        size = int(budget / FILLED) + (1 << 24)
        size += -size % mapped_unit
        try:
            self._open(folder / "entries", size)
        except lmdb.Error as error:
            log.warning("the cache file can't be used (%s): a new one is made", error)
            shutil.rmtree(folder / "entries", ignore_errors=True)
            self.shared.invalidate_all()
            self._open(folder / "entries", size)
        self.resize(budget)

    def resize(self, budget: int) -> None:
        """Set the budget, as far as the map allows."""
        self.budget = min(budget, int(self.env.info()["map_size"] * FILLED))

    def _open(self, path: Path, size: int) -> None:
        # `metasync` off: a crash of the machine may undo the last transaction, no more;
        # a crash of a process undoes nothing that was committed.
        self.env = lmdb.open(
            str(path), map_size=size, max_dbs=len(DATABASES), max_readers=READERS,
            metasync=False, readahead=False, max_spare_txns=2, mode=0o600,
        )  # fmt: skip
        self.env.reader_check()
        self.db: dict[str, Any] = {}
        for name in DATABASES:
            self.db[name.decode()] = self.env.open_db(name, dupsort=name in (b"urls", b"tags"))

    def load(self, key: Key) -> tuple[list[Record], bytes | None]:
        """The valid records of all variants of a key; the body of the only one, if it is short."""
        shelf = shelf_id(key)
        found = []
        stamp = self.shared.stamps[Shared.slot(key.url)]
        with self.env.begin(buffers=True) as txn:
            cursor = txn.cursor(self.db["heads"])
            going = cursor.set_range(shelf)
            while going and bytes(cursor.key()[:24]) == shelf:
                record = unpack(cursor.value())
                if record is not None and record.head.stamp == stamp and record.key == key:
                    found.append(record)
                going = cursor.next()
            if len(found) == 1 and found[0].chunks <= 1:
                return found, self._read(txn, found[0].number, found[0].chunks)
        return found, None

    def body(self, number: int, chunks: int) -> bytes | None:
        """The body of an entry, or None where it has been evicted meanwhile, or is damaged."""
        with self.env.begin(buffers=True) as txn:
            return self._read(txn, number, chunks)

    def _read(self, txn: Any, number: int, chunks: int) -> bytes | None:
        found = []
        bodies = self.db["bodies"]
        for index in range(chunks):
            chunk = txn.get(chunk_key(number, index), db=bodies)
            if chunk is None:
                return None
            found.append(chunk)
        try:
            return restore(found)
        except ValueError as error:
            log.error("entry %d: %s", number, error)
            return None

    def close(self) -> None:
        """Close it. The last commit is on the disk then."""
        self.env.sync(True)
        self.env.close()
        self.shared.close()


mapped_unit: Final = 1 << 16
"""Map sizes are whole multiples of the page size of any machine."""


def chunk_key(number: int, index: int) -> bytes:
    """Where a chunk of a body stands."""
    return number.to_bytes(8) + index.to_bytes(2)
