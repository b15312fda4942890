"""The broker's journal: records appended and synced before anyone hears of them.

A line is the CRC-32 of its JSON and the JSON. The end of a file that a crash has cut is left out
when it is read; a line that is broken elsewhere as well, and counted: other lines hold without it,
because each says values and not changes.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final
from zlib import crc32

import orjson

FILE: Final = "journal"
COMPACT_FROM: Final = 4 * 1024 * 1024
"""Bytes below which a journal is not written anew."""
GROWTH: Final = 4
"""How many times its size after the last time it is, when it is written anew."""


def line(record: Any) -> bytes:
    """A record as a line."""
    text = orjson.dumps(record)
    return b"%08x %b\n" % (crc32(text), text)


class Journal:
    """An append-only file, of one process at a time. BlockingIOError: another one has it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self.broken = 0
        self._lock = os.open(folder / f"{FILE}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise
        self._file = self._open()
        self._size = os.fstat(self._file).st_size
        if self._size and os.pread(self._file, 1, self._size - 1) != b"\n":
            self._size += os.write(self._file, b"\n")  # a crash has cut the last line
        self._compacted = COMPACT_FROM // GROWTH

    def _open(self) -> int:
        return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)

    def read(self) -> Iterator[Any]:
        """All records that are whole."""
        with self.path.open("rb") as file:
            for raw in file:
                sum_, _, text = raw.rstrip(b"\n").partition(b" ")
                try:
                    if int(sum_, 16) != crc32(text):
                        raise ValueError("the sum is another one")
                    record = orjson.loads(text)
                except ValueError:
                    self.broken += 1
                    continue
                yield record

    @property
    def grown(self) -> bool:
        """Whether it is time to write it anew."""
        return self._size > max(COMPACT_FROM, GROWTH * self._compacted)

    def append(self, records: Iterable[Any]) -> None:
        """Write records and wait until they are on the disk.

        OSError: they are not; the file then has none of them, or the caller has to `replace` it.
        """
        data = b"".join(map(line, records))
        try:
            _write(self._file, data)
            os.fdatasync(self._file)
        except OSError:
            os.ftruncate(self._file, self._size)
            raise
        self._size += len(data)

    def replace(self, records: Iterable[Any]) -> None:
        """Put these records in the place of all that it has: all or none of them. OSError."""
        fresh = self.path.with_suffix(".new")
        file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            data = b"".join(map(line, records))
            _write(file, data)
            os.fsync(file)
        finally:
            os.close(file)
        fresh.replace(self.path)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        os.close(self._file)
        self._file = self._open()
        self._size = self._compacted = len(data)

    def close(self) -> None:
        """Close it and let the next process have it."""
        os.close(self._file)
        os.close(self._lock)


def _write(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
