"""Keys and records of the file."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, Final, NamedTuple

import msgpack

from tidegate_cache_http.rules.messages import Nominated, Stored

FORMAT: Final = 1


class Key(NamedTuple):
    """What a request is looked up by: its URL, and the part of the cache that is its own.

    `scope` holds the partition and whatever else the operator puts into the key; it is empty
    for anonymous requests of a path without a recipe.
    """

    url: bytes
    scope: bytes


def extended(key: Key, values: Nominated) -> Key:
    """A key that tells variants apart as well."""
    return Key(key.url, key.scope + b"\0" + msgpack.packb(values))


def shelf_id(key: Key) -> bytes:
    """24 bytes for all variants of a key; the first 16 for all scopes of its URL."""
    return url_id(key.url) + (_scope_id(key.scope) if key.scope else _OPEN)


def _scope_id(scope: bytes) -> bytes:
    return blake2b(scope, digest_size=8).digest()


_OPEN: Final = _scope_id(b"")


def url_id(url: bytes) -> bytes:
    """16 bytes for a URL."""
    return blake2b(url, digest_size=16).digest()


def record_id(shelf: bytes, vary: Nominated) -> bytes:
    """32 bytes for one variant."""
    packed: bytes = msgpack.packb(vary)
    return shelf + blake2b(packed, digest_size=8).digest()


class Record(NamedTuple):
    """One entry as the file has it: its number, its key, its head, and what it costs there."""

    number: int
    key: Key
    head: Stored
    chunks: int
    cost: int


def pack(record: Record) -> bytes:
    """The bytes of a record."""
    head = record.head
    packed: bytes = msgpack.packb(
        (
            FORMAT, record.number, record.key, record.chunks, record.cost,
            head.status, head.reason, head.fields, head.size, head.part,
            head.asked_at, head.age, head.lifetime, head.heuristic, head.date,
            head.always_validate, head.never_stale, head.immutable, head.swr, head.sie,
            head.etag, head.modified, head.vary, head.asked_range, head.tags, head.purged,
            head.stamp,
        )
    )  # fmt: skip
    return packed


def unpack(data: bytes | memoryview) -> Record | None:
    """The record in `data`; None where it is of another format."""
    values: tuple[Any, ...] = msgpack.unpackb(data, use_list=False)
    if values[0] != FORMAT:
        return None
    return Record(values[1], Key(*values[2]), Stored(*values[5:]), values[3], values[4])
