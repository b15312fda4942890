"""Who may use a service: subscriptions, teams, visibility. No I/O."""

from __future__ import annotations

from typing import Final

from tidegate.api import Denial, ErrorCode, Exchange
from tidegate.api.errors import METHOD_NOT_ALLOWED, NO_ROUTE, UNAUTHENTICATED
from tidegate.api.platform import CONSUMER, Application, Service, Snapshot

NOT_SUBSCRIBED: Final = ErrorCode(
    "not_subscribed", 403, "This application is not subscribed to the API."
)
KEY_LIMITED: Final = ErrorCode("service_not_allowed", 403, "This key may not be used for the API.")
CHALLENGE: Final = (("www-authenticate", "Bearer"),)
"""RFC 9110 §11.6.1: a 401 says how to authenticate."""


def application_of(exchange: Exchange, snapshot: Snapshot) -> Application | None:
    """The application that calls: of the key, else the one that the principal is named like.

    Limits, logs and caches know callers by `team/name` as well: who has the name is the caller.
    """
    consumer = exchange.stashed(CONSUMER)
    if consumer is not None:
        return consumer.application
    principal = exchange.principal
    if principal is None or not principal.team:
        return None
    return snapshot.application(principal.team, principal.name)


def owns(exchange: Exchange, service: Service) -> bool:
    """Whether the caller is of the service's team."""
    principal = exchange.principal
    return principal is not None and principal.team == service.team.name


def hidden(exchange: Exchange, service: Service) -> bool:
    """Whether the caller is not to know that there is this service."""
    return service.visibility == "private" and not owns(exchange, service)


def refusal(exchange: Exchange, snapshot: Snapshot, service: Service) -> Denial | None:
    """Why the caller may not use the service; None: he may."""
    if service.anonymous:
        return None
    application = application_of(exchange, snapshot)
    if application is not None:
        if snapshot.grant(application.id, service.id) is not None:
            consumer = exchange.stashed(CONSUMER)
            only = None if consumer is None else consumer.services
            return None if only is None or service.id in only else KEY_LIMITED.denial()
    elif owns(exchange, service):
        return None
    if hidden(exchange, service):
        return NO_ROUTE.denial()
    if exchange.principal is None:
        return UNAUTHENTICATED.denial(headers=CHALLENGE)
    return NOT_SUBSCRIBED.denial()


def unmatched(exchange: Exchange, snapshot: Snapshot) -> Denial:
    """What is said where no service takes the request: 405 only where the caller may know why."""
    host, path = exchange.host, exchange.path
    method = exchange.request.data.method.decode("latin-1")
    taken = []
    for other in snapshot.methods(host, path, method):
        service = snapshot.service(host, path, other)
        if service is not None and not hidden(exchange, service):
            taken.append(other)
    if taken:
        return METHOD_NOT_ALLOWED.denial(headers=(("allow", ", ".join(taken)),))
    return NO_ROUTE.denial()
