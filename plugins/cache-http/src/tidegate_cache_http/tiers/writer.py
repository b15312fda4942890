"""Writes to the file: in batches, on a thread, never on the loop."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

import lmdb

from tidegate.api import Counters

from .compress import Compressor
from .disk import Disk
from .ledger import Ledger
from .shared import Shared

log = logging.getLogger("tidegate.addon.cache-http")

BATCH: Final = 256
GATHER: Final = 0.005
"""Seconds for which a batch waits for more."""
BACKLOG: Final = 64 * 1024 * 1024
"""Bytes that may wait to be written; what comes then is not stored in the file."""
STALE_READERS: Final = 60.0
"""Seconds between checks for readers that died: what they read can't be freed (`reader_check`)."""
RETREAT: Final = 0.9
"""Share of what is stored that stays where the map is full in spite of the budget."""


class Op(Protocol):
    """One change of the file."""

    @property
    def weight(self) -> int:
        """Bytes that it keeps waiting."""

    def apply(self, ledger: Ledger, writer: Writer) -> None:
        """Make it, within a transaction. It may be made a second time after a full map."""

    def committed(self, shared: Shared) -> None:
        """It is in the file: tell the other workers."""

    def failed(self) -> None:
        """It is not, and will not be."""


class Writer:
    """The thread that writes. `submit` from the loop; `close` waits for what was submitted."""

    def __init__(self, disk: Disk, counters: Counters) -> None:
        self.disk = disk
        self.shared = disk.shared
        self.counters = counters
        self.compressor = Compressor()
        self._queue: deque[Op] = deque()
        self._waiting = 0
        self._wake = threading.Event()
        self._idle = threading.Event()
        self._idle.set()
        self._ending = False
        self._checked = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="cache-writer", daemon=True)
        self._thread.start()

    def submit(self, op: Op) -> bool:
        """Queue a change; False where too much waits already."""
        if self._waiting + op.weight > BACKLOG or self._ending:
            self.counters.add("writes_dropped_total")
            return False
        self._waiting += op.weight
        self._idle.clear()
        self._queue.append(op)
        self._wake.set()
        return True

    def drain(self, seconds: float = 10.0) -> bool:
        """Wait until all that was submitted is in the file. Not on the loop."""
        return self._idle.wait(seconds)

    def close(self) -> None:
        """Write what waits, and end the thread."""
        self._ending = True
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            self._wake.wait(STALE_READERS)
            self._wake.clear()
            if not self._ending:
                time.sleep(GATHER)
            while self._queue:
                count = min(BATCH, len(self._queue))
                batch = [self._queue.popleft() for _ in range(count)]
                self._write(batch)
                self._waiting -= sum(op.weight for op in batch)
            self._idle.set()
            if self._queue:
                self._idle.clear()
                self._wake.set()
            elif self._ending:
                return
            if time.monotonic() - self._checked > STALE_READERS:
                self._checked = time.monotonic()
                self.disk.env.reader_check()

    def _write(self, batch: list[Op]) -> None:
        try:
            self._commit(batch, self._apply_all(batch))
        except lmdb.MapFullError:
            self._make_room()
            for op in batch:  # one by one: the one that is too much is lost, not its batch
                try:
                    self._commit([op], self._apply_all([op]))
                except lmdb.Error as error:
                    self._lost(op, error)
        except lmdb.Error as error:
            for op in batch:
                self._lost(op, error)

    def _apply_all(self, batch: list[Op]) -> Callable[[Ledger], None]:
        def apply(ledger: Ledger) -> None:
            for op in batch:
                op.apply(ledger, self)

        return apply

    def _commit(self, batch: list[Op], change: Callable[[Ledger], None]) -> None:
        transact(self.disk, change, self.counters)
        for op in batch:
            op.committed(self.shared)

    def _make_room(self) -> None:
        """The map is full: free what dead readers hold, then part of what is stored."""
        self.counters.add("map_full_total")
        self.disk.env.reader_check()
        try:
            transact(self.disk, lambda ledger: ledger.shrink(int(ledger.bytes * RETREAT)),
                     self.counters)  # fmt: skip
        except lmdb.Error as error:
            log.error("the cache file is full, and nothing can be freed: %s", error)

    def _lost(self, op: Op, error: Exception) -> None:
        self.counters.add("writes_failed_total")
        log.error("%s not written: %s", type(op).__name__, error)
        op.failed()


def transact(
    disk: Disk, change: Callable[[Ledger], None], counters: Counters | None = None
) -> None:
    """Apply a change to the file in one transaction."""
    with disk.env.begin(write=True) as txn:
        ledger = Ledger(disk, txn)
        change(ledger)
        ledger.settle()
    if counters is not None and ledger.evicted:
        counters.add("evictions_total", ledger.evicted)
