"""The platform on the data plane: teams, services, consumers and their rights, as workers see them.

A plugin that keeps the platform's store puts a `Snapshot` on every exchange, in `authenticate`
(it is listed before the others), and the `Service` that the request is for. A plugin that
authenticates puts the `Consumer` there. Others judge, limit and route by these. Nothing here
changes: a change of the platform makes a new snapshot, and an exchange keeps the one it began with.

>>> service = exchange.stash.get(SERVICE)
>>> consumer = exchange.stash.get(CONSUMER)
>>> if service and consumer and not exchange.stash[SNAPSHOT].grant(
...     consumer.application.id, service.id
... ):
...     return Denial(403, "not_subscribed", "This application is not subscribed to the API.")
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Final, Literal, Protocol

from .config import Secret
from .exchange import StashKey
from .types import Principal

type Network = IPv4Network | IPv6Network
type Visibility = Literal["private", "internal", "public"]
"""Who finds a service in the catalogue: its team, every member of the platform, everyone."""
type Approval = Literal["auto", "manual"]


@dataclass(frozen=True, slots=True)
class Team:
    """A tenant."""

    id: str
    name: str
    """Unique on the platform."""
    title: str = ""


@dataclass(frozen=True, slots=True)
class Application:
    """A consumer of services; its keys are its credentials, its grants its rights."""

    id: str
    name: str
    """Unique in its team."""
    team: Team


@dataclass(frozen=True, slots=True)
class Policy:
    """What a team asks of every exchange of its services, or of some of them."""

    name: str
    """Unique in its team."""
    text: str
    """An expression that must hold."""
    title: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Service:
    """A published API. Equal only to itself: use `id`.

    Attributes:
        hosts: exact or `*.example.com`; empty: all.
        path: a prefix, as in `RouteEntry`.
        methods: what it takes; None: all.
        upstream: URL that it is served from; "" where another plugin routes it.
        strip: whether `path` is left out of the upstream's path.
        anonymous: whether callers without a credential may use it.
        models: patterns (`openai/*`) of the models that it offers; None: all.
        operations: `GET /users/{id}` each, the path below `path`; None: all.
        policy: an expression that must hold; "" where there is none.
        policies: those of its team that must hold as well, by name.
    """

    id: str
    name: str
    """Unique in its team."""
    team: Team
    kind: Literal["rest", "ai"] = "rest"
    hosts: tuple[str, ...] = ()
    path: str = "/"
    methods: frozenset[str] | None = None
    upstream: str = ""
    strip: bool = False
    visibility: Visibility = "private"
    approval: Approval = "manual"
    anonymous: bool = False
    models: tuple[str, ...] | None = None
    operations: tuple[str, ...] | None = None
    policy: str = ""
    policies: tuple[Policy, ...] = ()

    @property
    def ref(self) -> str:
        """`team/name`, as people write it."""
        return f"{self.team.name}/{self.name}"


@dataclass(frozen=True, slots=True, eq=False)
class Consumer:
    """What a credential stands for. Equal only to itself: use `key`.

    Whether it may be used now is for the plugin that authenticates to judge: an expired or
    revoked one is known here as well, so that its caller can be told which it is.

    Attributes:
        principal: the application as a `Principal`, with `attributes["key"]` its prefix.
        key: id of the credential.
        prefix: its first characters, by which a person recognises it.
        services: ids of the services that it is limited to; None: all that are granted.
        models: patterns of the models that it is limited to; None: all.
        networks: where it may be used from; None: everywhere.
        expires: Unix seconds; None: never.
        revoked: Unix seconds at which it was revoked; None: it was not.
    """

    principal: Principal
    application: Application
    key: str
    prefix: str = ""
    services: frozenset[str] | None = None
    models: tuple[str, ...] | None = None
    networks: tuple[Network, ...] | None = None
    expires: float | None = None
    revoked: float | None = None


@dataclass(frozen=True, slots=True)
class Grant:
    """An approved subscription: the right of an application to use a service."""

    id: str
    application: str
    """Its id, as `service` is one."""
    service: str
    since: float
    """Unix seconds of the approval."""


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key of a team's provider. `name` is for people, never a part of the key."""

    id: str
    name: str
    """Unique in its provider."""
    secret: Secret | None
    """None: none was given yet, or what is stored does not open."""


@dataclass(frozen=True, slots=True)
class StoredProvider:
    """Where models come from, for one team: its keys are used for this team's calls alone."""

    id: str
    name: str
    """Unique in its team."""
    kind: str
    """A provider's usual name, such as `openai`, or the kind of its API."""
    url: str
    models: tuple[str, ...] | None = None
    """The only ones that it has here; None: any."""
    keys: tuple[StoredKey, ...] = ()


class Snapshot(Protocol):
    """The compiled platform at one revision. Look-ups do no I/O and cost microseconds."""

    @property
    def revision(self) -> int:
        """Number of the change it was made after; it only grows."""

    @property
    def providers(self) -> Mapping[str, tuple[StoredProvider, ...]]:
        """By the name of the team whose they are; a team that has none is not there.

        As long as nothing of them changes, a team's are the same object.
        """

    def service(self, host: str, path: str, method: str) -> Service | None:
        """The service for a request head, as `exchange.host` and `exchange.path` give it."""

    def methods(self, host: str, path: str, method: str) -> tuple[str, ...]:
        """What services take at a path where none takes `method`; `service` says which."""

    def application(self, team: str, name: str) -> Application | None:
        """An application by its name and its team's, as a principal has them."""

    def consumer(self, credential: str) -> Consumer | None:
        """Whom a key was given to, expired and revoked ones included; None: nobody."""

    def grant(self, application: str, service: str) -> Grant | None:
        """The right of an application (id) to use a service (id), or None."""


SNAPSHOT: Final = StashKey[Snapshot]("platform.snapshot")
SERVICE: Final = StashKey[Service]("platform.service")
"""Not there where the request is for none."""
CONSUMER: Final = StashKey[Consumer]("platform.consumer")
"""Put there by the plugin that authenticated; not there for anonymous callers."""
