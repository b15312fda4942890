"""A store in a folder, and entries for it."""

from __future__ import annotations

import time

from tidegate_cache_http.rules.storing import storable
from tidegate_cache_http.tiers.record import Key
from tidegate_cache_http.tiers.store import Store

from .kit import TERMS, Pairs, ask, fields


def key_of(path: str, scope: bytes = b"") -> Key:
    return Key(b"http://a.test" + path.encode(), scope)


def put(
    store: Store, path: str, body: bytes = b"x" * 100, *, scope: bytes = b"",
    request: Pairs | None = None, **pairs: str,
) -> bool:  # fmt: skip
    """Store a response for a path, as if its request had been sent just now."""
    key = key_of(path, scope)
    named = {name.replace("_", "-"): value for name, value in pairs.items()}
    given = {"cache-control": "max-age=1000", "content-type": "text/plain", **named}
    now = time.time()
    head = storable(ask(request), 200, fields(given), now, TERMS, asked_at=now)
    head.size, head.stamp = len(body), store.stamp(key.url)
    return store.put(key, head, body)


def get(store: Store, path: str, scope: bytes = b"") -> bytes | None:
    """The body of the first variant, or None."""
    key = key_of(path, scope)
    shelf = store.shelf(key)
    return None if shelf is None else store.body(key, shelf, shelf.variants[0])
