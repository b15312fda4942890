"""Nonces that were used: shared by all workers of a node, on disk, for as long as they count."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from typing import Final

import lmdb

MAP_SIZE: Final = 64 << 20
"""Bytes of the file: several hundred thousand nonces."""
PRUNED: Final = 4
"""Old nonces that are removed with each new one: the file never grows past what counts."""


class NoncesFull(Exception):
    """There is no room for another nonce: replays could not be told any more."""


class Nonces:
    """Used nonces by the time of their signature, in an LMDB file.

    A write is one transaction under a lock that all workers share: of two requests with the
    same nonce exactly one is first, whichever workers they reach. Nothing is synced to disk: a
    crash of the machine may lose the last ones, a crash of a process loses none.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._env = lmdb.open(
            str(folder), map_size=MAP_SIZE, sync=False, metasync=False, max_readers=256
        )
        self._users = 1

    def shared(self) -> Nonces:
        """Itself, for one user more: LMDB can't open a file twice in a process."""
        self._users += 1
        return self

    def close(self) -> None:
        """One user less."""
        self._users -= 1
        if self._users == 0:
            self._env.close()

    def first(self, key: str, nonce: str, created: int, oldest: float) -> bool:
        """Whether this is the first use; from now on it was. What is before `oldest` is dropped.

        Raises NoncesFull.
        """
        mark = hashlib.sha256(f"{key}\n{nonce}".encode()).digest()[:16]
        try:
            with self._env.begin(write=True) as transaction:
                cursor = transaction.cursor()
                limit = struct.pack(">q", int(oldest))
                for _ in range(PRUNED):
                    if not cursor.first() or cursor.key() >= limit:
                        break
                    cursor.delete()
                added = transaction.put(struct.pack(">q", created) + mark, b"", overwrite=False)
                return bool(added)
        except lmdb.MapFullError:
            raise NoncesFull from None
