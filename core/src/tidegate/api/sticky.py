"""Stickiness: the key of an exchange, and the ring that gives each key to a member."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .exchange import Exchange

__all__ = ["HashRing", "StickyKey", "sticky_by"]

type StickyKey = Callable[[Exchange], str | None]
"""What exchanges that belong together have in common; None: this one belongs to none."""

POINTS: Final = 64
"""Points on the ring per unit of weight: shares are then even to about 12 %."""


def sticky_by(what: str) -> StickyKey:
    """The key that `what` names: `header:NAME`, `cookie:NAME`, `principal` or `address`.

    Raises ValueError for anything else.
    """
    kind, _, name = what.partition(":")
    if kind == "header" and name:
        field = name.lower()
        return lambda exchange: exchange.header(field)
    if kind == "cookie" and name:
        return lambda exchange: cookie(exchange, name)
    if what == "principal":
        return lambda exchange: exchange.principal.id if exchange.principal is not None else None
    if what == "address":
        return lambda exchange: exchange.client.address
    raise ValueError(f'{what!r}: write "header:NAME", "cookie:NAME", "principal" or "address"')


def cookie(exchange: Exchange, name: str) -> str | None:
    """The value of a cookie of the request (RFC 6265 §5.4), or None."""
    for field, line in exchange.request.headers.fields:
        if field.lower() == b"cookie":
            for pair in line.decode("latin-1").split(";"):
                key, _, value = pair.strip().partition("=")
                if key == name:
                    return value
    return None


def _hash(text: str) -> int:
    # Not hash(): every worker and every node must agree.
    return int.from_bytes(blake2b(text.encode("utf-8", "replace"), digest_size=8).digest())


class HashRing:
    """A consistent hash over named, weighted members: one that comes or goes moves its share."""

    __slots__ = ("_members", "_points", "_size")

    def __init__(self, members: Sequence[tuple[str, int]]) -> None:
        ring = sorted(
            (_hash(f"{name}#{point}"), index)
            for index, (name, weight) in enumerate(members)
            for point in range(POINTS * weight)
        )
        self._points = [point for point, _ in ring]
        self._members = [index for _, index in ring]
        self._size = len(members)

    def order(self, key: str) -> Iterator[int]:
        """The members (by index) in the order in which `key` asks for them."""
        start = bisect(self._points, _hash(key))
        seen: set[int] = set()
        for offset in range(len(self._members)):
            index = self._members[(start + offset) % len(self._members)]
            if index not in seen:
                seen.add(index)
                yield index
                if len(seen) == self._size:
                    return
