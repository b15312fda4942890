"""Raw header fields: finding, joining, leaving out (RFC 9110 §5)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

type Fields = tuple[tuple[bytes, bytes], ...]

HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""RFC 9111 §3.1: fields that are not stored, whatever Connection lists."""


def lines(fields: Fields, name: bytes) -> list[bytes]:
    """The values of all fields called `name` (lower case)."""
    size = len(name)
    return [value for key, value in fields if len(key) == size and key.lower() == name]


def joined(fields: Fields, name: bytes) -> bytes | None:
    """The values of a list-based field, joined by commas (§5.3); None where it is absent."""
    size = len(name)
    found: bytes | None = None
    for key, value in fields:
        if len(key) == size and key.lower() == name:
            found = value if found is None else found + b", " + value
    return found


def first(fields: Fields, name: bytes) -> bytes | None:
    """The first value of a field, or None."""
    size = len(name)
    for key, value in fields:
        if len(key) == size and key.lower() == name:
            return value
    return None


def without(fields: Fields, names: Collection[bytes]) -> Fields:
    """`fields` but for those whose name (lower case) is in `names`."""
    return tuple(field for field in fields if field[0].lower() not in names)


def connection_options(fields: Fields) -> frozenset[bytes]:
    """The field names that Connection lists (§7.6.1)."""
    value = joined(fields, b"connection")
    if value is None:
        return frozenset()
    return frozenset(part.strip().lower() for part in value.split(b",") if part.strip())
