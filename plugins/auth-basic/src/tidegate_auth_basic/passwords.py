"""Passwords: how they are hashed, and how often a wrong one may be tried. No I/O."""

from __future__ import annotations

import math
from base64 import b64decode
from binascii import Error
from collections import OrderedDict
from typing import Final

from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import InvalidHashError, VerificationError

MAX_LENGTH: Final = 1_024
"""Bytes of a credential. A longer one is refused unread."""
KEPT: Final = 4_096
"""Users and addresses whose failures are counted at a time."""

_HASHER: Final = PasswordHasher()
"""Argon2id with the parameters of RFC 9106 §4, second choice: 64 MiB, three passes."""


def hash_password(password: str) -> str:
    """The hash of a password for `users`, with a salt of its own."""
    return _HASHER.hash(password)


def nobody(like: str) -> str:
    """A hash that no password has, as costly as `like`: what unknown names are checked against."""
    return PasswordHasher.from_parameters(extract_parameters(like)).hash("\0")


def matches(hashed: str, password: str) -> bool:
    """Whether a password has this hash. Takes about 50 ms and 64 MiB: not on the loop."""
    try:
        return _HASHER.verify(hashed, password)
    except (VerificationError, InvalidHashError, UnicodeEncodeError):
        return False


def is_hash(text: str) -> bool:
    """Whether it is a hash by Argon2id in PHC form."""
    try:
        _HASHER.check_needs_rehash(text)
    except (InvalidHashError, ValueError):
        return False
    return text.startswith("$argon2id$")


def decode(token: str) -> tuple[str, str] | None:
    """Name and password of a credential (RFC 7617 §2), in UTF-8; None: it is none."""
    try:
        text = b64decode(token, validate=True).decode()
    except (Error, ValueError):
        return None
    name, colon, password = text.partition(":")
    if not colon or any(ord(c) < 32 or ord(c) == 127 for c in text):
        return None
    return name, password


class Throttle:
    """Counts failures by key, and says how long to wait.

    `free` failures cost nothing; each one after doubles the wait, from one second to `longest`.
    A key that had no failure for `longest` begins anew.
    """

    __slots__ = ("_failures", "_free", "_longest")

    def __init__(self, free: int, longest: float) -> None:
        self._free = free
        self._longest = longest
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def wait(self, key: str, now: float) -> float:
        """Seconds until `key` may try again; 0: now."""
        count, last = self._failures.get(key, (0, -math.inf))
        if count < self._free:
            return 0.0
        return max(0.0, last + min(2.0 ** (count - self._free), self._longest) - now)

    def failed(self, key: str, now: float) -> None:
        """A try that is counted; where it succeeds, `take_back` says so."""
        count, last = self._failures.pop(key, (0, -math.inf))
        count = 0 if now - last > self._longest else min(count, 64)
        self._failures[key] = (count + 1, now)
        if len(self._failures) > KEPT:
            self._failures.popitem(last=False)

    def take_back(self, key: str) -> None:
        """The try that was counted last was none that failed."""
        count, last = self._failures.get(key, (0, 0.0))
        if count > 1:
            self._failures[key] = (count - 1, last)
        else:
            self._failures.pop(key, None)
