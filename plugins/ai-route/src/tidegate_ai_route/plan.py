"""`Plan`: the way of one call through the models that it may go to.

A plan is an `Upstream` of one exchange. It gives the carrier the next model's upstream where an
attempt failed before the first byte with a failure that the configuration names. Asking another
model again is safe: what a model answers changes nothing anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from mitmproxy import http

from tidegate.api import Attempt, Exchange, StashKey, Timeouts, Tls, Upstream
from tidegate.api.formats import AiCall
from tidegate.api.models import Models

from .failures import Failure, failure_of, failure_of_error
from .targets import Candidate

PLAN: Final = StashKey["Plan"]("ai-route.plan")

_NONE: Final = Timeouts()
_PLAIN: Final = Tls()
_OF_THE_TARGET: Final = frozenset({"rate-limit", "server-error", "timeout", "auth"})
"""Failures that count against a target; the others are about the request."""


class Plan(Upstream):
    """Candidates in order, and the failures on which the next one is asked.

    `used` is the candidate that was asked last, `asked` the ids of all models that were, `failures`
    what went wrong, in order. `begun` is called when the carrier first asks: the plan is in force.
    """

    __slots__ = (
        "_active",
        "_begun",
        "_call",
        "_candidates",
        "_first",
        "_here",
        "_leave",
        "_models",
        "_on",
        "asked",
        "failures",
        "used",
    )

    def __init__(
        self,
        name: str,
        candidates: Sequence[Candidate],
        on: tuple[Failure, ...],
        models: Models,
        call: AiCall,
        begun: Callable[[Exchange], None] | None = None,
    ) -> None:
        super().__init__(
            name, "http", "", 0, timeouts=_NONE, tls=_PLAIN, safe_to_retry=True, judges=True
        )
        self._candidates = list(candidates)
        self._on = on
        self._models = models
        self._call = call
        self._begun = begun
        self._here: Upstream | None = None
        self._first = 0
        """How many attempts were made before this candidate's."""
        self._active = False
        self._leave = False
        self.used: Candidate | None = None
        self.asked: list[str] = []
        self.failures: list[str] = []

    # -- what the carrier asks ------------------------------------------------------------------

    def pick(self, exchange: Exchange, tried: Sequence[Attempt]) -> Upstream | None:
        """The next leaf of this candidate; else, after a failure that counts, of the next one."""
        begun, self._begun = self._begun, None
        if begun is not None:
            begun(exchange)
        here = self._here
        if here is not None and not self._leave:
            leaf = here.pick(exchange, tried[self._first :])
            if leaf is not None:
                return self._taken(leaf)
        if tried and (not self.failures or self.failures[-1] not in self._on):
            return None
        return self._next(exchange, tried)

    def _next(self, exchange: Exchange, tried: Sequence[Attempt]) -> Upstream | None:
        while self._candidates:
            candidate = self._candidates.pop(0)
            if tried and self._hopeless(candidate):
                continue
            try:
                here = self._models.upstream(candidate.model, self._call)
            except LookupError:
                continue  # no installed format can translate the call
            leaf = here.pick(exchange, ())
            if leaf is not None:
                self._here, self._first, self._leave = here, len(tried), False
                self.used = candidate
                self.asked.append(candidate.model.id)
                self._call.provider = candidate.model.provider
                return self._taken(leaf)
        return None

    def _hopeless(self, candidate: Candidate) -> bool:
        """Whether the prompt that was too long for the last model is too long for this one."""
        if self.failures[-1] != "context-window" or self.used is None:
            return False
        before, after = self.used.model.context, candidate.model.context
        return before is not None and after is not None and after <= before

    def _taken(self, leaf: Upstream) -> Upstream:
        assert self.used is not None
        if not self._active:
            self._active = True
            self.used.target.active += 1
        return leaf

    def delay(self, exchange: Exchange) -> float:
        """That of the model's own upstream; none before another model."""
        started = len(exchange.attempts) > self._first
        return self._here.delay(exchange) if self._here is not None and started else 0.0

    def rejects(self, exchange: Exchange, attempt: Attempt, response: http.Response) -> bool:
        """Whether another attempt is made instead of passing an error on."""
        if attempt.connected == 0.0:
            self.failures.append("untranslatable")  # the codec's answer: nothing was sent
        else:
            status = attempt.status or response.status_code  # the provider's own
            self.failures.append(failure_of(status, response.get_content(strict=False)))
        here = self._here
        if here is not None and here.judges and here.rejects(exchange, attempt, response):
            return True
        self._leave = True
        return bool(self._candidates) and self.failures[-1] in self._on

    def ended(self, exchange: Exchange, attempt: Attempt) -> None:
        """Tell the model's upstream, and the target what it is worth."""
        self.release()
        used = self.used
        if used is None or self._here is None:
            return
        if attempt.error:
            failure = failure_of_error(attempt.error)
            if failure is not None:
                self.failures.append(failure)
                used.target.failed(exchange.now)
        elif attempt.status is not None and attempt.status < 400:
            used.target.answered(attempt, self._call)
        elif self.failures and self.failures[-1] in _OF_THE_TARGET:
            used.target.failed(exchange.now)
        self._here.ended(exchange, attempt)

    # -- the end --------------------------------------------------------------------------------

    def release(self) -> None:
        """Nothing is under way any more."""
        if self._active:
            self._active = False
            if self.used is not None:
                self.used.target.active -= 1
