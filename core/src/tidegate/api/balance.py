"""Upstreams made of upstreams: `Balanced`, `Failover`, `Retry`.

They nest: `Failover([Retry(Balanced([a, b])), c])`. None of them waits or does I/O.

A request is repeated only where that is safe (`may_repeat`): whatever is nested, a POST that an
upstream may have seen is not sent twice unless the operator said `safe_to_retry`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from .combinator import Clock, Combinator, Ejection, Member, may_repeat
from .sticky import HashRing, StickyKey, sticky_by
from .upstream import Attempt, Upstream

if TYPE_CHECKING:
    from .exchange import Exchange

__all__ = ["Balanced", "Ejection", "Failover", "Retry", "may_repeat", "sticky_by"]


class Balanced(Combinator):
    """Several upstreams for the same thing: the one with the fewest active attempts per weight.

    Among equals the turns follow the weights (smooth weighted round robin), so that an idle
    pool is shared as one under load. With `sticky`, the exchanges of one key go to one member
    by consistent hashing: a member that comes or goes moves only its own share. A member far
    over its share of the load passes a key on to the next one.

    At most half of the members are ejected. After a failure an untried member is picked, where
    the request may be repeated; `Retry` around it bounds how often.
    """

    SLACK: Final = 16
    """Active attempts that a member may hold however idle the others are (sticky only)."""
    BOUND: Final = 1.25
    """How much more than its share a member may hold (consistent hashing with bounded loads)."""

    def __init__(
        self,
        members: Sequence[Upstream],
        *,
        name: str = "",
        sticky: StickyKey | None = None,
        ejection: Ejection | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        super().__init__(members, name=name, ejection=ejection, most=len(members) // 2, clock=clock)
        self._sticky = sticky
        self._ring = HashRing([(f"{m.name} {m.url}", m.weight) for m in members])
        self._weights = sum(member.weight for member in self.members)

    def pick(self, exchange: Exchange, tried: Sequence[Attempt]) -> Upstream | None:
        """A leaf of the best member that was not tried."""
        trail = self._trail(exchange)
        choices = [member for member in self.members if self._usable(member)]
        if tried:
            if not all(may_repeat(exchange, attempt) for attempt in tried):
                return None
            out = [self._member_of(trail, attempt) for attempt in tried]
            choices = [member for member in choices if member not in out]
        key = self._sticky(exchange) if self._sticky is not None else None
        while choices:
            member = self._stuck(key, choices) if key is not None else least(choices)
            leaf = self._take(exchange, trail, member, ())
            if leaf is not None:
                return leaf
            choices.remove(member)
        return None

    def _stuck(self, key: str, choices: list[Member]) -> Member:
        """The first member on the key's way round the ring that is not overloaded."""
        share = self.BOUND * (self.active + 1) / self._weights
        first: Member | None = None
        for index in self._ring.order(key):
            member = self.members[index]
            if member in choices:
                first = first or member
                if member.active < max(self.SLACK, share * member.weight):
                    return member
        assert first is not None
        return first


def least(choices: list[Member]) -> Member:
    """The member with the fewest active attempts per weight, in turn where several have."""
    low = min([member.active / member.weight for member in choices])
    idle = [member for member in choices if member.active / member.weight == low]
    best = idle[0]
    for member in idle:
        member.credit += member.weight
        if member.credit > best.credit:
            best = member
    best.credit -= sum([member.weight for member in idle])
    return best


class Failover(Combinator):
    """A chain: the first healthy member; after a failure before the first byte, the next.

    Members are ejected as in `Balanced`, but for one: someone is always asked.
    """

    def __init__(
        self,
        members: Sequence[Upstream],
        *,
        name: str = "",
        ejection: Ejection | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        super().__init__(members, name=name, ejection=ejection, most=len(members) - 1, clock=clock)

    def pick(self, exchange: Exchange, tried: Sequence[Attempt]) -> Upstream | None:
        """A leaf of the member in turn, or of the next one where that has none to give."""
        if not all(may_repeat(exchange, attempt) for attempt in tried):
            return None
        trail = self._trail(exchange)
        if not tried:
            trail.position = 0
        for position in range(trail.position, len(self.members)):
            member = self.members[position]
            mine = [a for a in tried if self._member_of(trail, a) is member]
            if not mine and not self._usable(member):
                continue
            trail.position = position
            leaf = self._take(exchange, trail, member, mine)
            if leaf is not None:
                return leaf
        return None


class Retry(Combinator):
    """Repeats on one upstream, within a budget, after a pause that grows.

    Per `window` seconds at most `floor` retries and `ratio` of the requests are repeated, so
    that an upstream in trouble is not buried. The pause (`delay`) is drawn between zero and a
    bound that doubles from `base` up to `longest` seconds; chance is the exchange's.
    """

    def __init__(
        self,
        upstream: Upstream,
        *,
        retries: int = 1,
        ratio: float = 0.2,
        floor: int = 10,
        window: float = 10.0,
        base: float = 0.025,
        longest: float = 1.0,
        clock: Clock = time.monotonic,
    ) -> None:
        super().__init__([upstream], name=upstream.name, ejection=None, most=0, clock=clock)
        self.retries = retries
        self._budget = Budget(ratio, floor, window, clock)
        self._base = base
        self._longest = longest

    def pick(self, exchange: Exchange, tried: Sequence[Attempt]) -> Upstream | None:
        """What the upstream picks; where it has nothing more, its first choice again."""
        trail = self._trail(exchange)
        member = self.members[0]
        if not tried:
            self._budget.request()
            trail.round, trail.delay = 0, 0.0
            return self._take(exchange, trail, member, ())
        if (
            len(tried) > self.retries
            or not all(may_repeat(exchange, attempt) for attempt in tried)
            or not self._budget.take()
        ):
            return None
        bound = min(self._longest, self._base * 2.0 ** (len(tried) - 1))
        trail.delay = exchange.random.uniform(0.0, bound)
        leaf = self._take(exchange, trail, member, tried[trail.round :])
        if leaf is None:
            trail.round = len(tried)
            leaf = self._take(exchange, trail, member, ())
        return leaf

    def delay(self, exchange: Exchange) -> float:
        """Seconds to wait before this retry; 0.0 before a first attempt."""
        return max(self._trail(exchange).delay, super().delay(exchange))


class Budget:
    """Retries per requests over a window that slides in two halves."""

    __slots__ = ("_clock", "_floor", "_half", "_now", "_past", "_ratio", "_until")

    def __init__(self, ratio: float, floor: int, window: float, clock: Clock) -> None:
        self._ratio = ratio
        self._floor = floor
        self._half = window / 2
        self._clock = clock
        self._until = clock() + self._half
        self._past = [0, 0]
        self._now = [0, 0]

    def _slide(self) -> None:
        now = self._clock()
        if now >= self._until:
            fresh = now < self._until + self._half
            self._past = self._now if fresh else [0, 0]
            self._now = [0, 0]
            self._until = (self._until if fresh else now) + self._half

    def request(self) -> None:
        """Count a request."""
        self._slide()
        self._now[0] += 1

    def take(self) -> bool:
        """Count a retry, if there may be one."""
        self._slide()
        requests, retries = (now + past for now, past in zip(self._now, self._past, strict=True))
        if retries >= self._floor + self._ratio * requests:
            return False
        self._now[1] += 1
        return True
