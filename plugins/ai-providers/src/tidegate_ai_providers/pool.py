"""`KeyPool`: the keys of one provider for one model, as an upstream."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from mitmproxy import http

from tidegate.api import Attempt, StashKey, Upstream
from tidegate.api.balance import least
from tidegate.api.combinator import Clock, Combinator, Member

from .keys import KeyState

if TYPE_CHECKING:
    from tidegate.api import Exchange

ASKED: Final = StashKey[float | None]("ai-providers.retry-after")
"""How long the provider that answered last asked to be left alone (see `wire`)."""
ANOTHER: Final = frozenset((401, 403, 429))
"""Answers by which a provider says that it did nothing, because of the key."""


class KeyPool(Combinator):
    """The key with the fewest active calls per weight, of those that are not resting.

    Where the answer is an error of the key's, the next key is picked and the caller never sees it.
    A provider that can't be reached is not asked again with another key.
    """

    def __init__(
        self,
        leaves: Sequence[Upstream],
        states: Sequence[KeyState],
        *,
        name: str,
        model: str,
        clock: Clock = time.monotonic,
    ) -> None:
        super().__init__(leaves, name=name, ejection=None, most=len(leaves) // 2, clock=clock)
        self.judges = len(leaves) > 1
        self._model = model
        self._states = dict(zip(self.members, states, strict=True))

    def wait(self) -> float:
        """Seconds until some key may be used; 0.0: one may be used now."""
        now = self._clock()
        return min([state.wait(self._model, now) for state in self._states.values()])

    @property
    def refused(self) -> bool:
        """Whether the provider takes none of the keys."""
        return all(state.refused for state in self._states.values())

    def pick(self, exchange: Exchange, tried: Sequence[Attempt]) -> Upstream | None:
        """A leaf with a key that was not tried."""
        trail = self._trail(exchange)
        now, out = self._clock(), []
        for attempt in tried:
            if attempt.status not in ANOTHER:
                return None
            out.append(self._member_of(trail, attempt))
        choices = [
            member
            for member, state in self._states.items()
            if member not in out and not state.wait(self._model, now) and self._usable(member)
        ]
        if not choices:
            return None
        member: Member = choices[0] if len(choices) == 1 else least(choices)
        self._states[member].taken(now)
        return self._take(exchange, trail, member, ())

    def rejects(self, exchange: Exchange, attempt: Attempt, response: http.Response) -> bool:
        """Whether another key may do better."""
        return attempt.status in ANOTHER

    def ended(self, exchange: Exchange, attempt: Attempt) -> None:
        """Learn of the key what its answer says."""
        super().ended(exchange, attempt)
        member = self._member_of(self._trail(exchange), attempt)
        if member is not None and attempt.status is not None:
            asked = exchange.stash.get(ASKED)
            now = self._clock()
            self._states[member].answered(attempt.status, self._model, asked, now)
