"""Appends batches of whole lines to a file, from a thread of its own.

The loop never waits for a disk. One batch is one `write` on a descriptor opened with O_APPEND:
the kernel puts it at the end of the file as a whole, so that several workers share one file
without torn lines. What can't be written is counted and let go.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread
from typing import Final

PENDING: Final = 8 * 1024 * 1024
"""Bytes that may wait for a slow disk; beyond that lines are lost."""
WARN_EVERY: Final = 60.0
RETRY_EVERY: Final = 1.0


class Writer:
    """Writes to `path`, or to standard output where it is None.

    `broken` says that the file can't be opened. `lost(lines)` is called from both threads.
    """

    def __init__(self, path: Path | None, lost: Callable[[int], None], log: logging.Logger) -> None:
        self.path = path
        self.broken = False
        self._lost = lost
        self._log = log
        self._queue: SimpleQueue[bytes | None] = SimpleQueue()
        self._put = 0  # bytes, written by the loop only
        self._taken = 0  # bytes, written by the thread only
        self._done = Event()
        self._fd: int | None = 1 if path is None else None
        self._held = (0, 0)
        """What file `_fd` is. Asked once: each system call hands the interpreter's lock over
        and back, and the loop waits for it."""
        self._torn = False
        self._warned = -WARN_EVERY
        self._tried = -RETRY_EVERY

    def start(self) -> None:
        """Open the file; a failure is a warning, and tried again once a second."""
        if self.path is not None:
            self._open(self.path)
        Thread(target=self._run, name="log-access", daemon=True).start()

    def put(self, batch: bytes) -> None:
        """Hand over a batch of whole lines. Returns at once."""
        if self._put - self._taken + len(batch) > PENDING:
            self._lost(batch.count(b"\n"))
            return
        self._put += len(batch)
        self._queue.put(batch)

    def probe(self) -> None:
        """Try again to open a file that could not be opened. Returns at once."""
        self._queue.put(b"")

    def close(self, seconds: float) -> bool:
        """Write what waits, close the file. False where that took longer than `seconds`."""
        self._queue.put(None)
        return self._done.wait(seconds)

    # -- the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            batch = self._queue.get()
            if batch is None:
                break
            self._write(batch)
            self._taken += len(batch)
        if self._fd is not None and self.path is not None:
            os.close(self._fd)
        self._done.set()

    def _write(self, batch: bytes) -> None:
        if self.path is not None:
            self._follow(self.path)
        if self._fd is None:
            self._lost(batch.count(b"\n"))
            return
        batch = b"\n" + batch if self._torn and batch else batch
        done = 0
        try:
            while done < len(batch):  # one write, but for a disk that has just become full
                done += os.write(self._fd, memoryview(batch)[done:])
        except OSError as error:
            self._lost(batch.count(b"\n", done))
            self._warn(error)
        if done:
            self._torn = batch[done - 1] != ord("\n")

    def _follow(self, path: Path) -> None:
        """Open the file anew where it was rotated away or removed."""
        if self._fd is not None:
            try:
                if identity(os.stat(path)) == self._held:
                    return
            except OSError:
                pass
            os.close(self._fd)
            self._fd = None
            self._torn = False
            self._open(path)
        elif time.monotonic() - self._tried >= RETRY_EVERY:
            self._open(path)

    def _open(self, path: Path) -> None:
        self._tried = time.monotonic()
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self._fd = os.open(path, flags, 0o640)
            self._held = identity(os.fstat(self._fd))
            self.broken = False
        except OSError as error:
            self.broken = True
            self._warn(error)

    def _warn(self, error: OSError) -> None:
        now = time.monotonic()
        if now - self._warned >= WARN_EVERY:
            self._warned = now
            where = self.path or "standard output"
            self._log.warning("%s can't be written: %s; lines are lost", where, error.strerror)


def identity(status: os.stat_result) -> tuple[int, int]:
    """What tells a file from another under the same name."""
    return status.st_ino, status.st_dev
