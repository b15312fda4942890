"""The addon: asks on each exchange what the platform's snapshot says of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final, Literal

from pydantic import Field

from tidegate.api import (
    AddonConfig,
    AddonContext,
    Body,
    ByteSize,
    Denial,
    ErrorCode,
    Exchange,
    Plugin,
    StashKey,
    hook,
)
from tidegate.api.caching import cache_hints
from tidegate.api.conditions import MODEL, OPERATION, POLICY, Condition
from tidegate.api.platform import CONSUMER, SERVICE, SNAPSHOT, Service

from .offer import Offer, Offers, PolicyCondition, load, models
from .rights import KEY_LIMITED, NOT_SUBSCRIBED, application_of, refusal, unmatched

NO_PLATFORM: Final = ErrorCode(
    "platform_unavailable", 503, "The gateway does not know its services here."
)
UNUSABLE: Final = ErrorCode(
    "service_unusable", 503, "This API can't be served: what it says of itself makes no sense."
)
LATE: Final = StashKey[tuple[Condition, ...]]("access-grant.late")
"""What is asked of an exchange once its body is there."""


class AccessGrantConfig(AddonConfig):
    """The options. `unmatched`: what becomes of requests that are for no service.

    `max_body` bounds the calls whose model must be known.
    """

    unmatched: Literal["deny", "pass"] = "deny"
    max_body: ByteSize = Field(default=32 * 1024 * 1024, gt=0)


def _needs(config: AccessGrantConfig) -> Body:
    return Body(request=True, limit=config.max_body, when=lambda e: e.stashed(LATE) is not None)


class AccessGrant(Plugin[AccessGrantConfig]):
    """Who may use which service, and what of it: the platform's rights, on every exchange."""

    Config = AccessGrantConfig
    codes = (NOT_SUBSCRIBED, KEY_LIMITED, OPERATION, MODEL, POLICY, NO_PLATFORM, UNUSABLE)

    def __init__(self, config: AccessGrantConfig, context: AddonContext) -> None:
        super().__init__(config, context)
        self._offers = Offers(self._failed)

    @hook
    async def startup(self, previous: Plugin[Any] | None) -> None:
        """Load what the first exchange would have to wait for."""
        await asyncio.to_thread(load)

    @hook
    def authorize(self, exchange: Exchange) -> Denial | None:
        """Deny who has no right to the service, and what the service does not offer."""
        snapshot = exchange.stashed(SNAPSHOT)
        if snapshot is None:
            return NO_PLATFORM.denial()
        service = exchange.stashed(SERVICE)
        if service is None:
            return unmatched(exchange, snapshot) if self.config.unmatched == "deny" else None
        denial = refusal(exchange, snapshot, service)
        if denial is not None:
            return denial
        offer = self._offer(service)
        if offer is None:
            return UNUSABLE.denial()
        denial = offer.refusal(exchange)
        if denial is not None:
            return self._counted(denial)
        late, consumer = offer.late, exchange.stashed(CONSUMER)
        if consumer is not None and consumer.models is not None:
            late += (models(consumer.models),)
        if late:
            exchange.stash[LATE] = late
        hints = cache_hints(exchange)
        hints.key.append(offer.key)  # what another service had stored for this URL is not its
        hints.tags.append(offer.tag)
        return None

    @hook(needs=_needs)
    def transform_request(self, exchange: Exchange) -> Denial | None:
        """Deny models that are not offered, or not for the key, and what policies say of them.

        Here and not in `authorize`, so that a caller without a right is refused at the head.
        """
        for condition in exchange.stashed(LATE) or ():
            if not condition.holds(exchange):
                return self._counted(condition.code.denial())
        return None

    def _offer(self, service: Service) -> Offer | None:
        try:
            return self._offers.of(service)
        except ValueError as error:  # the store refuses such a service: it is from elsewhere
            self.context.counters.add("unusable_services_total")
            self.context.log.error("service %s: %s", service.ref, error)
            return None

    def _counted(self, denial: Denial) -> Denial:
        if denial.code == POLICY.code:
            self.context.counters.add("policy_denials_total")
        return denial

    def _failed(self, service: Service, policy: str, error: Exception) -> None:
        """A policy raised. The error may hold values of a request: only its kind is told."""
        self.context.counters.add("policy_errors_total")
        self.context.log.warning("service %s: %s: %s", service.ref, policy, type(error).__name__)

    def explain(self, hook: str, exchange: Exchange) -> str:
        """By what right the caller uses the service."""
        service, snapshot = exchange.stashed(SERVICE), exchange.stashed(SNAPSHOT)
        if service is None or snapshot is None:
            return "the request is for no service: others may route it"
        if hook == "transform_request":
            asked = exchange.stashed(LATE)
            if not asked:
                return "no model is limited here"
            return f"the model is allowed on {service.ref}{_held(asked)}"
        offer = self._offer(service)
        offered = "" if service.operations is None else "; the operation is one of its"
        offered += "" if offer is None else _held(offer.head)
        if service.anonymous:
            return f"everyone may use {service.ref}{offered}"
        application = application_of(exchange, snapshot)
        if application is None:
            return f"{service.ref} is of the caller's own team{offered}"
        name = f"{application.team.name}/{application.name}"
        return f"{name} is subscribed to {service.ref}{offered}"


def _held(conditions: Iterable[Condition]) -> str:
    """Those among them that are policies, all of which hold."""
    policies = (one for one in conditions if isinstance(one, PolicyCondition))
    return "".join(f"; {policy.called} holds" for policy in policies)
