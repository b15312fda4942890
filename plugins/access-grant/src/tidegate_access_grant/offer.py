"""What a service offers, compiled: its operations, its models, its policy."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final

from tidegate.api import Denial, Exchange
from tidegate.api.conditions import OPERATION, Condition, Models, Operations, When
from tidegate.api.errors import METHOD_NOT_ALLOWED
from tidegate.api.expression import Expression
from tidegate.api.formats import find_format, format_names
from tidegate.api.platform import Service

KEPT: Final = 16_384
"""Services whose compiled form is kept."""


class Offer:
    """One service, as it was when it was compiled.

    `late` is what is asked of it once the request's body is there.
    """

    __slots__ = ("_operations", "_when", "key", "late", "service", "tag")

    def __init__(self, service: Service, failed: Callable[[Exception], None]) -> None:
        """Raises ValueError where it makes no sense. `failed`: its policy raised."""
        self.service = service
        self.key = b"service=" + service.id.encode()
        self.tag = f"service:{service.ref}"
        operations = service.operations
        self._operations = None if operations is None else Operations(operations, service.path)
        self._when = When(service.policy, failed) if service.policy.strip() else None
        late: list[Condition] = []
        if service.models is not None:
            late.append(models(service.models))
        if self._when is not None and self._when.reads_model:
            late.append(self._when)
            self._when = None
        self.late = tuple(late)

    def refusal(self, exchange: Exchange) -> Denial | None:
        """Why the head of a request asks for what is not offered."""
        operations = self._operations
        if operations is not None and not operations.holds(exchange):
            others = operations.others(exchange)
            if others:
                return METHOD_NOT_ALLOWED.denial(headers=(("allow", ", ".join(others)),))
            return OPERATION.denial()
        if self._when is not None and not self._when.holds(exchange):
            return self._when.code.denial()
        return None


class Offers:
    """The compiled services. A service that did not change is the same object in each snapshot."""

    def __init__(self, failed: Callable[[Service, Exception], None]) -> None:
        self._failed = failed
        self._known: dict[str, Offer] = {}

    def of(self, service: Service) -> Offer:
        """Raises ValueError."""
        known = self._known.get(service.id)
        if known is not None and known.service is service:
            return known
        offer = Offer(service, lambda error: self._failed(service, error))
        if len(self._known) >= KEPT:
            self._known.pop(next(iter(self._known)))
        self._known[service.id] = offer
        return offer


def load() -> None:
    """Load the language of policies, and the parsers of calls: half a second."""
    Expression("true")
    for name in format_names():
        find_format(name)


@lru_cache(maxsize=4096)
def models(patterns: tuple[str, ...]) -> Models:
    """The same few lists come again and again, on services and on keys."""
    return Models(patterns)
