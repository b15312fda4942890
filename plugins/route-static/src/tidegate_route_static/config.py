"""The options: a list of routes, each checked by itself, then all for conflicts."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from tidegate.api import AddonConfig, Duration, Model, RouteEntry, RouteTable, Secret
from tidegate.api.balance import sticky_by
from tidegate.api.fields import field_name, field_value
from tidegate.api.upstream import parse_url


def _url(url: str) -> str:
    parse_url(url)
    return url


def _sticky(what: str) -> str:
    sticky_by(what)
    return what


def _secret_value(secret: Secret) -> Secret:
    return Secret(field_value(secret.get_secret_value()))


def _table(value: object) -> object:
    return {"url": value} if isinstance(value, str) else value


Url = Annotated[str, AfterValidator(_url)]
Headers = dict[
    Annotated[str, AfterValidator(field_name)], Annotated[Secret, AfterValidator(_secret_value)]
]
Timeout = Annotated[Duration, Field(gt=0)]


class Member(Model):
    """One of several upstreams that share the exchanges of a route by weight."""

    url: Url
    weight: int = Field(default=1, ge=1, le=100)


class Backup(Model):
    """An upstream that is asked when those before it failed. `headers` None: the route's."""

    url: Url
    headers: Headers | None = None


class RouteTimeouts(Model):
    """Bounds of an attempt; `total` bounds all attempts together (see `tidegate.api.Timeouts`)."""

    connect: Timeout = 5.0
    first_byte: Timeout = 60.0
    idle: Timeout = 60.0
    total: Timeout | None = None


class Route(Model):
    """One route: what it matches, where it goes, and how. See the README."""

    path: str
    host: str = "*"
    methods: tuple[Annotated[str, AfterValidator(str.upper)], ...] | None = None
    exact: bool = False
    name: str = ""

    upstream: Url | None = None
    upstreams: tuple[Annotated[Member, BeforeValidator(_table)], ...] = ()
    failover: tuple[Annotated[Backup, BeforeValidator(_table)], ...] = ()
    sticky: Annotated[str, AfterValidator(_sticky)] | None = None
    retries: int | None = Field(default=None, ge=0, le=10)
    safe_to_retry: bool = False

    strip: bool = False
    preserve_host: bool = False
    headers: Headers = Field(default_factory=dict)
    websocket: bool = False
    timeout: Timeout | None = None
    timeouts: RouteTimeouts | None = None
    max_connections: int = Field(default=256, ge=1)

    ca: str | None = None
    sni: str | None = None
    cert: str | None = None
    key: str | None = None

    def entry[T](self, value: T) -> RouteEntry[T]:
        """The row of the table that stands for this route."""
        methods = frozenset(self.methods) if self.methods is not None else None
        return RouteEntry(value, self.host, self.path, self.exact, methods)

    @property
    def members(self) -> tuple[Member, ...]:
        """The upstreams that share the route."""
        return (Member(url=self.upstream),) if self.upstream is not None else self.upstreams

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        RouteTable([self.entry(None)])
        if (self.upstream is None) == (not self.upstreams):
            raise ValueError(f"route {self.path}: give `upstream` or `upstreams`, one of them")
        if self.timeout is not None and self.timeouts is not None:
            raise ValueError(f"route {self.path}: give `timeout` or `timeouts`, not both")
        if self.strip and "{" in self.path:
            raise ValueError(f"route {self.path}: `strip` needs a path without {{…}}")
        if self.sticky is not None and len(self.upstreams) < 2:
            raise ValueError(f"route {self.path}: `sticky` needs several `upstreams`")
        if (self.cert is None) != (self.key is None):
            raise ValueError(f"route {self.path}: `cert` and `key` come together")
        urls = [member.url for member in self.members]
        urls += [backup.url for backup in self.failover]
        if (self.ca or self.sni or self.cert) and not any(u.startswith("https:") for u in urls):
            raise ValueError(f"route {self.path}: `ca`, `sni`, `cert` are for https upstreams")
        return self


class RouteStaticConfig(AddonConfig):
    """Options of `route-static`."""

    routes: tuple[Route, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _no_conflicts(self) -> Self:
        RouteTable([route.entry(None) for route in self.routes])
        return self
