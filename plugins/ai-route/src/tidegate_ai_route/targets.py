"""A target and what was seen of it: attempts under way, failures in a row, how quick it is."""

from __future__ import annotations

from typing import Final

from tidegate.api import Attempt
from tidegate.api.formats import AiCall
from tidegate.api.models import Model

from .options import Price, TargetOption

ALPHA: Final = 0.2
"""The weight of the newest measurement in an average."""
FAILURES: Final = 3
"""Failures in a row after which a target is asked last."""
SHORTEST: Final = 10.0
LONGEST: Final = 300.0


class Target:
    """One model of a virtual model. Times are Unix seconds of the exchanges, not of the clock.

    What one name means to a team with providers of its own is another model: see `of`.

    Attributes:
        active: attempts that have not ended.
        first_byte: average seconds until a stream began; None: none was seen.
        per_token: average seconds per token of answers that came whole.
        price: dollars per million tokens; None: not asked yet, or not known.
    """

    __slots__ = (
        "_of_teams",
        "_option",
        "active",
        "failures",
        "first_byte",
        "name",
        "out_until",
        "per_token",
        "price",
        "priced",
        "weight",
    )

    def __init__(self, option: TargetOption) -> None:
        self._option = option
        self._of_teams: dict[str, Target] = {}
        self.name = option.model
        self.weight = option.weight
        self.price: Price | None = option.price
        self.priced = option.price is not None
        self.active = 0
        self.failures = 0
        self.out_until = 0.0
        self.first_byte: float | None = None
        self.per_token: float | None = None

    def of(self, team: str) -> Target:
        """What was seen of the model of a team's own provider; "": of everyone's."""
        if not team:
            return self
        found = self._of_teams.get(team)
        if found is None:
            found = self._of_teams[team] = Target(self._option)
        return found

    def is_out(self, now: float) -> bool:
        """Whether it failed so often of late that others are asked first."""
        return now < self.out_until

    def failed(self, now: float) -> None:
        """An attempt failed by the target's fault."""
        self.failures += 1
        if self.failures >= FAILURES:
            self.out_until = now + min(LONGEST, SHORTEST * 2.0 ** (self.failures - FAILURES))

    def answered(self, attempt: Attempt, call: AiCall) -> None:
        """An attempt got its answer: learn how long it took."""
        self.failures, self.out_until = 0, 0.0
        if attempt.first_byte == 0.0:
            return
        if call.request.stream:
            self.first_byte = _average(self.first_byte, attempt.first_byte - attempt.started)
        else:
            tokens = max(1, call.usage.output) if call.usage is not None else 1
            taken = (attempt.ended or attempt.first_byte) - attempt.started
            self.per_token = _average(self.per_token, taken / tokens)

    def seconds(self, *, stream: bool) -> float:
        """How slow it is; 0.0 where it was never asked, so that it will be."""
        return (self.first_byte if stream else self.per_token) or 0.0


class Candidate:
    """A target that one call may go to, and the model that it names."""

    __slots__ = ("model", "target")

    def __init__(self, target: Target, model: Model) -> None:
        self.target = target
        self.model = model


def _average(before: float | None, seconds: float) -> float:
    return seconds if before is None else before + ALPHA * (seconds - before)
