"""Rollout: an addon that enforces for a share of the callers only.

Who is inside is told by a hash of the addon's name and the caller: the same on every worker, node
and restart, and independent from addon to addon. A caller who was inside stays inside while the
percentage grows.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Any, Final, Literal

from tidegate.api.exchange import Exchange

type Call = Callable[..., Any]
type Rest = Literal["shadow", "off"]

WHOLE: Final = 1 << 64


class Rollout:
    """Which exchanges an addon enforces for.

    The caller is the principal, or where there is none the client's address. For an addon that
    itself authenticates (`by_address`) it is always the address: so it has one mind about an
    exchange, before there is a principal and after.
    """

    __slots__ = ("_key", "_limit", "by_address", "percent", "rest")

    def __init__(
        self, addon: str, percent: float, rest: Rest = "shadow", *, by_address: bool = False
    ) -> None:
        self.percent = percent
        self.rest: Rest = rest
        self.by_address = by_address
        self._limit = int(percent / 100 * WHOLE)
        self._key = blake2b(addon.encode(), digest_size=16).digest()

    def outside(self, exchange: Exchange) -> bool:
        """Whether the addon does not enforce for this exchange."""
        principal = exchange.principal
        caller = exchange.client.address if principal is None or self.by_address else principal.id
        return self.outside_of(caller)

    def outside_of(self, caller: str) -> bool:
        """The same, of a caller by name or address."""
        # Not hash(): every worker and every node must agree.
        place = blake2b(caller.encode("utf-8", "replace"), digest_size=8, key=self._key).digest()
        return int.from_bytes(place) >= self._limit

    def __str__(self) -> str:
        return f"enforce for {self.percent:g} %, else {self.rest}"


def rolled_out(rollout: Rollout, inside: Call, outside: Call) -> Call:
    """The hook for callers inside the rollout, else another."""
    is_outside = rollout.outside

    def call(exchange: Exchange, *event: Any) -> Any:
        return (outside if is_outside(exchange) else inside)(exchange, *event)

    return call


def absent(*, is_async: bool) -> Call:
    """A hook that is not there."""

    async def nothing_async(*_: object) -> None: ...

    def nothing(*_: object) -> None: ...

    return nothing_async if is_async else nothing
