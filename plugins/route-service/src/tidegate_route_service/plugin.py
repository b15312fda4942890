"""The addon: a service's upstream is built once and kept while nothing of it changes."""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from tidegate.api import (
    AddonConfig,
    AddonContext,
    Duration,
    Exchange,
    Model,
    Plugin,
    Timeouts,
    Upstream,
    hook,
    upstream_from_url,
)
from tidegate.api.conditions import within
from tidegate.api.platform import SERVICE, Service
from tidegate.api.upstream import parse_url

KEPT: Final = 16_384
"""Services whose upstream is kept."""
_HOST: Final = re.compile(r"(?:\*\.)?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")

Timeout = Annotated[Duration, Field(gt=0)]


def _inside(text: str) -> str:
    try:
        return str(ip_network(text))
    except ValueError:
        if not _HOST.fullmatch(text.lower()):
            raise ValueError(
                f'{text!r} is neither a host nor a network: write "*.corp.example.com" or'
                ' "10.0.0.0/8"'
            ) from None
    return text.lower()


class ServiceTimeouts(Model):
    """Bounds of an attempt (see `tidegate.api.Timeouts`)."""

    connect: Timeout = 5.0
    first_byte: Timeout = 60.0
    idle: Timeout = 60.0
    total: Timeout | None = None


class RouteServiceConfig(AddonConfig):
    """The options. `internal`: hosts and networks that upstreams may be in besides public ones.

    `websocket`: whether services may be asked for WebSockets.
    """

    internal: tuple[Annotated[str, AfterValidator(_inside)], ...] = ()
    timeouts: ServiceTimeouts = ServiceTimeouts()
    max_connections: int = Field(default=256, ge=1)
    websocket: bool = False


class RouteService(Plugin[RouteServiceConfig]):
    """Routes by the services of the platform's store."""

    Config = RouteServiceConfig

    def __init__(self, config: RouteServiceConfig, context: AddonContext) -> None:
        super().__init__(config, context)
        self._timeouts = Timeouts(**config.timeouts.model_dump())
        internal = config.internal
        self._networks = tuple(ip_network(text) for text in internal if "/" in text)
        self._hosts = tuple(text for text in internal if "/" not in text)
        self._known: dict[str, tuple[Service, Upstream]] = {}

    @hook
    def route(self, exchange: Exchange) -> Upstream | None:
        """The upstream of the service that the request is for; None: it has none."""
        service = exchange.stashed(SERVICE)
        if service is None or not service.upstream:
            return None
        known = self._known.get(service.id)
        if known is not None and known[0] is service:
            return known[1]
        return self._build(service, None if known is None else known[1])

    def _build(self, service: Service, old: Upstream | None) -> Upstream:
        """A service that changed keeps its upstream where that is the same: what it knows lasts."""
        upstream = upstream_from_url(
            service.upstream,
            name=service.ref,
            strip=service.path.removesuffix("/*").removesuffix("/") if service.strip else "",
            timeouts=self._timeouts,
            trusted=self._internal(parse_url(service.upstream).hostname or ""),
            max_connections=self.config.max_connections,
            websocket=self.config.websocket,
        )
        if old is not None and _same(old, upstream):
            upstream = old
        if len(self._known) >= KEPT:
            self._known.pop(next(iter(self._known)))
        self._known[service.id] = (service, upstream)
        return upstream

    def _internal(self, host: str) -> bool:
        """Whether the operator vouches for a host. Others are checked once they are resolved:
        who may publish a service may not reach the gateway's own network by it."""
        hosts = self._hosts
        wild = any(host.endswith(name[1:]) for name in hosts if name.startswith("*."))
        return wild or host in hosts or within(host, self._networks)

    def explain(self, hook: str, exchange: Exchange) -> str:
        """Why it does not know where to."""
        service = exchange.stashed(SERVICE)
        if service is None:
            return "the request is for no service"
        return f"{service.ref} names no upstream"


def _same(one: Upstream, other: Upstream) -> bool:
    names = ("name", "scheme", "host", "port", "path", "strip")
    return all(getattr(one, name) == getattr(other, name) for name in names)
