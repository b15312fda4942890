"""What plugins tell caches of an exchange: more to tell requests apart by, and tags to purge by.

Put it there before `cache_lookup`:

    def transform_request(self, exchange):
        hints = cache_hints(exchange)
        hints.key.append(b"tenant=" + tenant)     # another tenant's request is another request
        hints.tags.append("service:orders")       # `tidegate cache purge --tag service:orders`
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from .exchange import Exchange, StashKey


@dataclass(slots=True)
class CacheHints:
    """What caches add to the key of an exchange, and to the tags of what they store of it."""

    key: list[bytes] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)


CACHE_HINTS: Final = StashKey[CacheHints]("cache.hints")


def cache_hints(exchange: Exchange) -> CacheHints:
    """The hints of an exchange, to be added to."""
    hints = exchange.stash.get(CACHE_HINTS)
    if hints is None:
        hints = exchange.stash[CACHE_HINTS] = CacheHints()
    return hints
