"""What a service offers, compiled: its operations, its models, its policies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache, partial
from typing import Final

from tidegate.api import Denial, ErrorCode, Exchange
from tidegate.api.conditions import OPERATION, POLICY, Condition, Models, Operations, When
from tidegate.api.errors import METHOD_NOT_ALLOWED
from tidegate.api.expression import Expression
from tidegate.api.formats import find_format, format_names
from tidegate.api.platform import Service

KEPT: Final = 16_384
"""Services whose compiled form is kept."""


type Failed = Callable[[str, Exception], None]
"""Is told which policy raised, and what."""


class PolicyCondition(When):
    """A policy, with what it is called."""

    def __init__(self, called: str, text: str, code: ErrorCode, failed: Failed) -> None:
        """Raises ValueError where the text makes no sense."""
        super().__init__(text, partial(failed, called))
        self.called = called
        self.code = code


class Offer:
    """One service, as it was when it was compiled.

    `head` is what its policies ask of a request's head, `late` all that is asked once the body is
    there.
    """

    __slots__ = ("_operations", "head", "key", "late", "service", "tag")

    def __init__(self, service: Service, failed: Failed) -> None:
        """Raises ValueError where it makes no sense."""
        self.service = service
        self.key = b"service=" + service.id.encode()
        self.tag = f"service:{service.ref}"
        operations = service.operations
        self._operations = None if operations is None else Operations(operations, service.path)
        policies = tuple(_policies(service, failed))
        self.head = tuple(policy for policy in policies if not policy.reads_model)
        late: list[Condition] = [] if service.models is None else [models(service.models)]
        late += [policy for policy in policies if policy.reads_model]
        self.late = tuple(late)

    def refusal(self, exchange: Exchange) -> Denial | None:
        """Why the head of a request asks for what is not offered."""
        operations = self._operations
        if operations is not None and not operations.holds(exchange):
            others = operations.others(exchange)
            if others:
                return METHOD_NOT_ALLOWED.denial(headers=(("allow", ", ".join(others)),))
            return OPERATION.denial()
        for policy in self.head:
            if not policy.holds(exchange):
                return policy.code.denial()
        return None


def _policies(service: Service, failed: Failed) -> Iterator[PolicyCondition]:
    """The service's own, then those of its team, which deny by their names."""
    if service.policy.strip():
        yield PolicyCondition("its policy", service.policy, POLICY, failed)
    for policy in service.policies:
        told = f'The policy "{policy.title or policy.name}" of this API denies the request.'
        code = replace(POLICY, message=told)
        yield PolicyCondition(f"policy {policy.name}", policy.text, code, failed)


class Offers:
    """The compiled services. A service that did not change is the same object in each snapshot."""

    def __init__(self, failed: Callable[[Service, str, Exception], None]) -> None:
        self._failed = failed
        self._known: dict[str, Offer] = {}

    def of(self, service: Service) -> Offer:
        """Raises ValueError."""
        known = self._known.get(service.id)
        if known is not None and known.service is service:
            return known
        offer = Offer(service, partial(self._failed, service))
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
