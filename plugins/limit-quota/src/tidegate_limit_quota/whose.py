"""Whose limit it is: the key of an exchange's account, as `tidegate quota status` shows it."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network
from typing import Final

from tidegate.api import Exchange
from tidegate.api.platform import CONSUMER, SERVICE


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


def by_gateway(_: Exchange) -> str:
    """One limit for all."""
    return ""


KEYS: Final[dict[str, Callable[[Exchange], str]]] = {
    "gateway": by_gateway,
    "team": by_team,
    "application": by_application,
    "key": by_key,
    "principal": by_principal,
    "address": by_address,
    "service": by_service,
}
"""Of `model`, the plugin takes the name of the model that is asked for."""
