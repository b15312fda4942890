"""Whose an exchange is: the key under which limits count it, as people read it in reports.

A plugin that limits takes `per` as an option, of type `Per`, and asks `KEYS[per]` for the key of an
exchange. It calls it in `authorize`, when it is known who is calling.

>>> KEYS["team"](exchange)
'red'
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network
from types import MappingProxyType
from typing import Final, Literal

from .exchange import Exchange
from .formats import AiCall, ai_call, endpoint_call, inbound_endpoint, inbound_format
from .models import MODELS
from .platform import CONSUMER, SERVICE

__all__ = ["KEYS", "Per", "calls_a_model", "model_id"]

type Per = Literal[
    "gateway", "team", "application", "key", "principal", "address", "service", "model"
]


def by_gateway(_: Exchange) -> str:
    """One for all."""
    return ""


def by_address(exchange: Exchange) -> str:
    """The client's address; of IPv6 its /64, which is what one caller has (RFC 6177)."""
    address = exchange.client.address
    return f"address {network(address) if ':' in address else address}"


@lru_cache(maxsize=4096)
def network(address: str) -> str:
    """The /64 of an IPv6 address; the address itself where it is no such thing."""
    try:
        parsed = IPv6Address(address)
    except ValueError:
        return address
    mapped = parsed.ipv4_mapped
    return str(mapped or IPv6Network((int(parsed) >> 64 << 64, 64)))


def by_principal(exchange: Exchange) -> str:
    """The principal's id; of an anonymous caller the address."""
    principal = exchange.principal
    return by_address(exchange) if principal is None else principal.id


def by_team(exchange: Exchange) -> str:
    """The principal's team; without one, the principal or the address."""
    principal = exchange.principal
    if principal is None:
        return by_address(exchange)
    return principal.team or f"principal {principal.id}"


def by_application(exchange: Exchange) -> str:
    """The application that a credential stands for; without the platform's store, the principal."""
    consumer = exchange.stashed(CONSUMER)
    if consumer is None:
        return by_principal(exchange)
    return f"{consumer.application.team.name}/{consumer.application.name}"


def by_key(exchange: Exchange) -> str:
    """The credential; without the platform's store, the principal."""
    consumer = exchange.stashed(CONSUMER)
    if consumer is None:
        return by_principal(exchange)
    return f"key {consumer.prefix or consumer.key}"


def by_service(exchange: Exchange) -> str:
    """The service that the request is for, "" where it is for none."""
    service = exchange.stashed(SERVICE)
    return "" if service is None else service.ref


def by_model(exchange: Exchange) -> str | None:
    """The model that is asked for, "" where the call doesn't say; None: it is no call to a model.

    Needs `Body(request=True)`.
    """
    if not calls_a_model(exchange):
        return None
    call: AiCall | None = None
    try:
        call = ai_call(exchange) or endpoint_call(exchange)
    except (ValueError, LookupError):
        pass  # not for whoever counts to say; it counts as a call that names no model
    return "" if call is None else model_id(exchange, call.request.model)


def calls_a_model(exchange: Exchange) -> bool:
    """Whether a request is a call to a model, by its head: for `Body(request=True, when=…)`."""
    if exchange.request.data.method != b"POST":
        return False
    path = exchange.path
    return inbound_format(path) is not None or inbound_endpoint(path) is not None


def model_id(exchange: Exchange, name: str) -> str:
    """A model as `provider/model` where a plugin knows it, else as its caller names it."""
    models = exchange.stashed(MODELS)
    found = None if models is None else models.find(name)
    return name if found is None else found.id


KEYS: Final[Mapping[Per, Callable[[Exchange], str | None]]] = MappingProxyType(
    {
        "gateway": by_gateway,
        "team": by_team,
        "application": by_application,
        "key": by_key,
        "principal": by_principal,
        "address": by_address,
        "service": by_service,
        "model": by_model,
    }
)
"""The key of an exchange; None: nothing of that kind is in it, so that no limit is for it."""
