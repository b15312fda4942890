"""Known keys: by their hash, whose they are and when they end. No I/O.

What is stored of a key is its HMAC-SHA256 under the node's pepper, and its first characters, by
which a person recognises it.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

from tidegate.api import Principal

REMEMBERED: Final = 4096
"""Keys in use that are found without their hash being made again."""


def hash_key(pepper: bytes, key: str) -> str:
    """HMAC-SHA256 of a key under the pepper, in hex: what is stored and looked up."""
    return hmac.digest(pepper, key.encode("utf-8", "surrogateescape"), "sha256").hex()


def expiry(value: date | datetime | None) -> float | None:
    """Unix seconds at which a key ends: a date ends with its day (UTC), a time is exact."""
    if value is None:
        return None
    if not isinstance(value, datetime):
        value = datetime.combine(value + timedelta(days=1), time(), UTC)
    return (value if value.tzinfo is not None else value.replace(tzinfo=UTC)).timestamp()


@dataclass(frozen=True, slots=True)
class Key:
    """A known key: never itself, but its hash and whose it is."""

    hash: str
    principal: Principal
    expires: float | None = None


class KeyRing:
    """Known keys by hash. The keys never change; a changed file makes a new ring.

    The HMAC costs 2 µs, so credentials that were found good are remembered, up to `REMEMBERED`:
    the next request with one finds it by itself. Python looks a text up by a hash under a key of
    the process's own, and compares texts only where that is equal: how long it takes says
    nothing about how much of a guess was right. Bad credentials are never remembered.
    """

    __slots__ = ("_keys", "seen")

    def __init__(self, keys: list[Key]) -> None:
        self._keys = {key.hash: key for key in keys}
        self.seen: dict[str, Key] = {}
        """Credentials that were found good, and their keys."""

    def __len__(self) -> int:
        return len(self._keys)

    def remember(self, credential: str, key: Key) -> None:
        """`credential` was found to be `key`: from now on `seen` tells so."""
        if len(self.seen) >= REMEMBERED:
            self.seen.clear()
        self.seen[credential] = key

    def find(self, hashed: str) -> Key | None:
        """The key with this hash. Hash and table lookup depend on no secret byte by byte; the
        comparison after it is constant-time, for a hit and for a miss."""
        found = self._keys.get(hashed, _NOBODY)
        same = hmac.compare_digest(found.hash, hashed)
        return found if same and found is not _NOBODY else None


_NOBODY: Final = Key("0" * 64, Principal("nobody"))


def principal(name: str, team: str, prefix: str) -> Principal:
    """Who holds a key; `attributes["key"]` is its first characters, for logs."""
    attributes: dict[str, Any] = {"key": prefix} if prefix else {}
    return Principal(name, team, attributes)
