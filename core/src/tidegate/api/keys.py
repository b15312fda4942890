"""The form of API keys: how one is made, and how it is recognised. No I/O.

    tg_ + 43 characters of base62 (256 random bits) + 6 characters of base62 (CRC-32 of the rest)

The prefix and the checksum let secret scanners recognise a key without asking anyone, and let
the gateway refuse a mistyped one without looking it up. The checksum protects nothing: it is
public. Whoever keeps keys stores a keyed hash of each, and its first `SHOWN` characters.

>>> well_formed(new_key())
True
"""

from __future__ import annotations

import secrets
from typing import Final
from zlib import crc32

__all__ = ["MAX_LENGTH", "PREFIX", "SHOWN", "new_key", "well_formed"]

PREFIX: Final = "tg_"
SHOWN: Final = 8
"""How many characters of a key are kept in the clear: by these a person recognises it."""
MAX_LENGTH: Final = 512
"""A longer credential is refused unread: no key of any form is that long."""

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_PAIRS: Final = tuple(a + b for a in _ALPHABET for b in _ALPHABET)
_RANDOM: Final = 43
_CHECK: Final = 6


def new_key(prefix: str = PREFIX) -> str:
    """A fresh key of 256 random bits. What is no key of an application has another `prefix`."""
    number, digits = secrets.randbits(256), ""
    for _ in range(_RANDOM):
        number, digit = divmod(number, 62)
        digits = _ALPHABET[digit] + digits
    body = prefix + digits
    return body + _checksum(body)


def well_formed(key: str, prefix: str = PREFIX) -> bool:
    """Whether `key` has the form of ours, checksum included."""
    return (
        len(key) == len(prefix) + _RANDOM + _CHECK
        and key.startswith(prefix)
        and key.isascii()
        and key[len(prefix) :].isalnum()
        and key[-_CHECK:] == _checksum(key[:-_CHECK])
    )


def _checksum(body: str) -> str:
    """CRC-32 in base62, two digits at a time: each request with a key pays for this."""
    rest, low = divmod(crc32(body.encode()), 62 * 62)
    high, middle = divmod(rest, 62 * 62)
    return _PAIRS[high] + _PAIRS[middle] + _PAIRS[low]
