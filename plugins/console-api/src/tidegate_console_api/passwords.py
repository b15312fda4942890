"""Passwords: argon2id, a few at a time, and as slow for a user who is not there."""

from __future__ import annotations

import secrets
import threading
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

SHORTEST: Final = 10
LONGEST: Final = 200
"""Characters. Hashing takes longer for a longer one."""

_hasher = PasswordHasher()
_few = threading.BoundedSemaphore(2)
"""Each hash takes 64 MiB and a tenth of a second of a core: callers wait in line for it."""
_nobody = _hasher.hash(secrets.token_hex())


def new_password() -> str:
    """A random one: 120 bits, easy to copy."""
    return secrets.token_urlsafe(15)


def hash_password(password: str) -> str:
    """What is kept of a password."""
    with _few:
        return _hasher.hash(password)


def verify(kept: str | None, password: str) -> bool:
    """Whether it is the password. `kept` None (no such user) takes as long as any other."""
    with _few:
        try:
            _hasher.verify(kept or _nobody, password)
        except (VerificationError, InvalidHashError):
            return False
    return kept is not None
