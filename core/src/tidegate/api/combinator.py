"""The base of upstreams made of upstreams: members, whom an exchange was given to, ejection.

What a combinator knows of one exchange (whom it picked, how that ended) is kept in the exchange's
stash, and given back when the exchange ends; what it knows of a member (active attempts, health)
in a `Member`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from . import errors
from .exchange import StashKey
from .upstream import Attempt, Upstream

if TYPE_CHECKING:
    from .exchange import Exchange

type Clock = Callable[[], float]

IDEMPOTENT: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"})
"""RFC 9110 §9.2.2."""

FAULTS: Final = frozenset(
    code.code
    for code in (
        errors.UPSTREAM_UNREACHABLE,
        errors.UPSTREAM_PROTOCOL_ERROR,
        errors.UPSTREAM_TLS_INVALID,
        errors.UPSTREAM_TIMEOUT,
    )
)
"""Errors that count against a member. Others (a client that left) say nothing about it."""


def may_repeat(exchange: Exchange, attempt: Attempt) -> bool:
    """Whether a request whose attempt failed before the first byte may be sent again.

    Yes where its method is idempotent, where the operator marked the upstream, and where no
    connection came about, so that nothing was sent.
    """
    return (
        exchange.request.data.method in IDEMPOTENT
        or attempt.upstream.safe_to_retry
        or (not attempt.reused and attempt.connected == 0.0)
    )


@dataclass(frozen=True, slots=True)
class Ejection:
    """When a member is left out: after `failures` in a row (connect errors, timeouts, 5xx).

    It is left out for `base` seconds, twice as long each time, up to `longest`; then one trial
    decides. A member that held out for `longest` seconds since starts at `base` again.
    """

    failures: int = 5
    base: float = 10.0
    longest: float = 300.0


class Member:
    """A member of a combinator, its active attempts and its health."""

    __slots__ = (
        "active",
        "credit",
        "ejected_until",
        "ejections",
        "failures",
        "recovered",
        "trial",
        "upstream",
        "weight",
    )

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.weight = upstream.weight
        self.active = 0
        self.credit = 0
        self.failures = 0
        self.ejections = 0
        self.ejected_until = 0.0
        """0.0 while it is healthy; once this time is past, one trial at a time is let through."""
        self.recovered = 0.0
        self.trial = False


class Pick:
    """That a leaf was picked from a member; `attempt` once its end was told."""

    __slots__ = ("attempt", "leaf", "member", "settled", "trial")

    def __init__(self, member: Member, leaf: Upstream, trial: bool) -> None:
        self.member = member
        self.leaf = leaf
        self.trial = trial
        self.attempt: Attempt | None = None
        self.settled = False


class Trail:
    """What one combinator did for one exchange. `round`: tried attempts of earlier rounds."""

    __slots__ = ("delay", "picks", "position", "round")

    def __init__(self) -> None:
        self.picks: list[Pick] = []
        self.position = 0
        self.round = 0
        self.delay = 0.0


class Combinator(Upstream):
    """Base: members, whom each exchange was given to, ejection. Shows its first member's origin.

    A failure counts as a member's where its `ended` was told of a fault or a 5xx. `most` members
    at a time are ejected.
    """

    def __init__(
        self,
        members: Sequence[Upstream],
        *,
        name: str,
        ejection: Ejection | None,
        most: int,
        clock: Clock,
    ) -> None:
        if not members:
            raise ValueError(f"{name or type(self).__name__}: at least one upstream is needed")
        first = members[0]
        super().__init__(
            name=name or first.name,
            scheme=first.scheme,
            host=first.host,
            port=first.port,
            path=first.path,
            timeouts=first.timeouts,
            websocket=all(m.websocket for m in members),
            safe_to_retry=all(m.safe_to_retry for m in members),
            trusted=all(m.trusted for m in members),
        )
        self.members = tuple(Member(upstream) for upstream in members)
        self._ejection = ejection or Ejection()
        self._most = most
        self._clock = clock
        self._key = StashKey[Trail](f"balance.{self.name}")

    @property
    def active(self) -> int:
        """Attempts that were picked and have not ended."""
        return sum(member.active for member in self.members)

    # -- picks --------------------------------------------------------------------------------

    def _trail(self, exchange: Exchange) -> Trail:
        stash = exchange.stash
        trail = stash.get(self._key)
        if trail is None:
            trail = stash[self._key] = Trail()
            exchange.at_end(self._abandon)
        return trail

    def _take(
        self, exchange: Exchange, trail: Trail, member: Member, tried: Sequence[Attempt]
    ) -> Upstream | None:
        """A leaf of `member`, counted as active until its end is told."""
        leaf = member.upstream.pick(exchange, tried)
        if leaf is not None:
            member.active += 1
            trial = member.ejected_until > 0.0
            member.trial = member.trial or trial
            trail.picks.append(Pick(member, leaf, trial))
        return leaf

    @staticmethod
    def _member_of(trail: Trail, attempt: Attempt) -> Member | None:
        """The member that an attempt of this exchange was made through."""
        for pick in trail.picks:
            if pick.attempt is attempt or (pick.attempt is None and pick.leaf is attempt.upstream):
                return pick.member
        return None

    def delay(self, exchange: Exchange) -> float:
        """That of the member picked last."""
        picks = self._trail(exchange).picks
        return picks[-1].member.upstream.delay(exchange) if picks else 0.0

    def ended(self, exchange: Exchange, attempt: Attempt) -> None:
        """Judge the member and tell it. An end told twice, or of another's attempt, is ignored.

        A carrier may repeat a pick by itself, on a fresh connection where a kept one had been
        closed: such an attempt is judged as well, and was not counted as active.
        """
        picks = self._trail(exchange).picks
        pick: Pick | None = None
        for one in picks:
            if one.attempt is attempt:
                return
            if one.leaf is attempt.upstream and (pick is None or pick.attempt is not None):
                pick = one  # the first one that has not ended, else the last
        if pick is None:
            return
        if pick.attempt is None:
            self._release(pick)
        else:
            pick = Pick(pick.member, pick.leaf, pick.trial)
            pick.settled = True
            picks.append(pick)
        pick.attempt = attempt
        self._judge(pick, attempt)
        pick.member.upstream.ended(exchange, attempt)

    def _abandon(self, exchange: Exchange) -> None:
        """The exchange is over: what was picked and never attempted is given back."""
        for pick in self._trail(exchange).picks:
            self._release(pick)

    @staticmethod
    def _release(pick: Pick) -> None:
        if not pick.settled:
            pick.settled = True
            pick.member.active -= 1
            if pick.trial:
                pick.member.trial = False

    # -- health -------------------------------------------------------------------------------

    def _judge(self, pick: Pick, attempt: Attempt) -> None:
        member = pick.member
        if attempt.reused and attempt.error == errors.UPSTREAM_UNREACHABLE.code:
            return  # an idle connection that was closed just as it was reused: nobody's fault
        if attempt.error in FAULTS or (attempt.status or 0) >= 500:
            member.failures += 1
            if pick.trial or (
                member.failures >= self._ejection.failures and member.ejected_until == 0.0
            ):
                self._eject(member)
        elif attempt.status is not None and not attempt.error:
            if pick.trial and member.ejected_until > 0.0:
                member.ejected_until = 0.0
                member.recovered = self._clock()
            member.failures = 0

    def _eject(self, member: Member) -> None:
        out = sum(other.ejected_until > 0.0 for other in self.members if other is not member)
        if out >= self._most:
            return
        now = self._clock()
        healthy = member.ejected_until == 0.0
        if healthy and now - member.recovered > self._ejection.longest:
            member.ejections = 0
        length = min(self._ejection.longest, self._ejection.base * 2.0**member.ejections)
        member.ejections = min(member.ejections + 1, 64)  # more would leave the range of floats
        member.ejected_until = now + length

    def _usable(self, member: Member) -> bool:
        """Healthy, or due for a trial that nobody makes yet."""
        return member.ejected_until == 0.0 or (
            not member.trial and self._clock() >= member.ejected_until
        )
