"""Numbers that all processes of a node see at once: a small file, mapped into each of them.

An LMDB transaction is too slow a way to tell every worker that a URL was invalidated, and too
slow to note that an entry was used. Here both are one store of a machine word.

    stamps    one per slot of URLs: changes when a URL of the slot is invalidated. What was
              asked for before (it carries the old stamp) is not valid, wherever it is kept or
              will arrive: an answer in flight can't bring back what was dropped.
    versions  one per slot: changes when something is stored or updated. Tells the memory tier
              of another worker to look again.
    visits    one per entry (by its number): uses since it was stored, up to 3.
    ghosts    fingerprints of what was evicted lately from the small queue.

Values are unique, not counted up, so that two processes that write at once can't hide each
other's change. URLs that share a slot are dropped together: one in 65,536.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from pathlib import Path
from typing import Final
from zlib import crc32

SLOTS: Final = 1 << 16
VISITS: Final = 1 << 20
GHOSTS: Final = 1 << 16
MOST_VISITS: Final = 3
_MAGIC: Final = b"tidegate-cache-1"
_HEAD: Final = 4096
_SIZE: Final = _HEAD + 8 * SLOTS * 2 + 8 * GHOSTS + VISITS


class Shared:
    """The mapped file. Open it in each process, after it was forked."""

    __slots__ = ("_ghosts", "_map", "_serial", "stamps", "versions", "visits")

    def __init__(self, path: Path) -> None:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(handle).st_size != _SIZE or os.pread(handle, 16, 0) != _MAGIC:
                _initialise(handle)
            self._map = mmap.mmap(handle, _SIZE)
        finally:
            os.close(handle)
        view = memoryview(self._map)
        end = _HEAD + 8 * SLOTS
        self.stamps = view[_HEAD:end].cast("Q")
        self.versions = view[end : end + 8 * SLOTS].cast("Q")
        end += 8 * SLOTS
        self._ghosts = view[end : end + 8 * GHOSTS].cast("Q")
        self.visits = view[end + 8 * GHOSTS :]
        self._serial = 0

    @staticmethod
    def slot(url: bytes) -> int:
        """The slot of a URL, the same in all processes."""
        return crc32(url) & (SLOTS - 1)

    def unique(self) -> int:
        """A value that no process has used or will use."""
        self._serial = (self._serial + 1) & 0xFFF
        stamp = (time.time_ns() >> 10) & 0xFFFFFFFFFFF  # microseconds, of half a year
        return stamp << 20 | (os.getpid() & 0xFF) << 12 | self._serial

    def invalidate(self, url: bytes) -> None:
        """Drop a URL: nothing that was asked for before now is valid any more."""
        self.stamps[self.slot(url)] = self.unique()

    def invalidate_all(self) -> None:
        """Drop every URL."""
        stamp = self.unique()
        for slot in range(SLOTS):
            self.stamps[slot] = stamp

    def visit(self, number: int) -> None:
        """Note a use of the entry `number`."""
        visits, index = self.visits, number & (VISITS - 1)
        count = visits[index]
        if count < MOST_VISITS:
            visits[index] = count + 1

    def haunt(self, record: bytes, serial: int) -> None:
        """Remember that a record was evicted early; `serial` counts evictions."""
        fingerprint = crc32(record)
        self._ghosts[fingerprint & (GHOSTS - 1)] = fingerprint << 32 | (serial & 0xFFFFFFFF)

    def haunted(self, record: bytes, serial: int, most: int) -> bool:
        """Whether a record is among the last `most` that were evicted early."""
        fingerprint = crc32(record)
        ghost = self._ghosts[fingerprint & (GHOSTS - 1)]
        return ghost >> 32 == fingerprint and (serial - ghost) & 0xFFFFFFFF <= most

    def close(self) -> None:
        """Unmap it."""
        for view in (self.stamps, self.versions, self._ghosts, self.visits):
            view.release()
        self._map.close()


def _initialise(handle: int) -> None:
    """A new file. Its stamps are new as well, so that nothing stored earlier is valid."""
    os.ftruncate(handle, 0)
    os.ftruncate(handle, _SIZE)
    stamp = struct.pack("=Q", (time.time_ns() >> 10) & 0xFFFFFFFFFFF)
    os.pwrite(handle, stamp * SLOTS, _HEAD)
    os.pwrite(handle, _MAGIC, 0)
