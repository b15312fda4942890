"""The immutable view of the store that a worker serves from."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Final

from tidegate.api import Match, NotAllowed, RouteEntry, RouteTable
from tidegate.api.platform import (
    Application,
    Consumer,
    Grant,
    Policy,
    Service,
    StoredKey,
    StoredProvider,
    Team,
)

LONGEST: Final = 512
"""A credential of more characters is nobody's."""


@dataclass(frozen=True, slots=True)
class TeamPolicy:
    """A policy, of which team's services (its id) it is asked, and of which of them."""

    team: str
    policy: Policy
    services: tuple[str, ...] | None
    """Patterns of their names; None: all."""

    def covers(self, service: Service) -> bool:
        """Whether it is asked of exchanges of a service of the team's."""
        patterns = self.services
        return patterns is None or any(fnmatchcase(service.name, one) for one in patterns)


@dataclass(frozen=True, slots=True)
class Parts:
    """What a snapshot is made of, by ids. Shared between snapshots: none of it changes."""

    teams: Mapping[str, Team] = field(default_factory=dict)
    services: Mapping[str, Service] = field(default_factory=dict)
    applications: Mapping[str, Application] = field(default_factory=dict)
    keys: Mapping[str, tuple[str, Consumer]] = field(default_factory=dict)
    """By the id of the key: its hash, and what it stands for."""
    grants: Mapping[tuple[str, str], Grant] = field(default_factory=dict)
    """By application and service."""
    providers: Mapping[str, tuple[str, StoredProvider]] = field(default_factory=dict)
    """By id: the id of the team, and the provider without its keys."""
    provider_keys: Mapping[str, tuple[str, StoredKey]] = field(default_factory=dict)
    """By id: the id of the provider, and the key."""
    of_teams: Mapping[str, tuple[StoredProvider, ...]] = field(default_factory=dict)
    """By the name of the team: its providers, with their keys."""
    policies: Mapping[str, TeamPolicy] = field(default_factory=dict)


class Compiled:
    """A `tidegate.api.platform.Snapshot`.

    `used` collects the ids of the keys that were asked for, for whoever writes them down.
    `previous`: its table of routes is taken over where it has the same services.
    """

    __slots__ = (
        "_applications",
        "_consumers",
        "_grants",
        "_routes",
        "parts",
        "pepper",
        "revision",
        "used",
    )

    def __init__(
        self, revision: int, pepper: bytes, parts: Parts, previous: Compiled | None = None
    ) -> None:
        self.revision = revision
        self.pepper = pepper
        self.parts = parts
        self.used: set[str] = set()
        self._consumers = dict(parts.keys.values())
        self._grants = parts.grants
        self._applications = {(a.team.name, a.name): a for a in parts.applications.values()}
        if previous is not None and previous.parts.services is parts.services:
            self._routes: RouteTable[Service] = previous._routes
        else:
            self._routes = RouteTable(
                RouteEntry(service, host, service.path, methods=service.methods)
                for service in parts.services.values()
                for host in service.hosts or ("*",)
            )

    @property
    def providers(self) -> Mapping[str, tuple[StoredProvider, ...]]:
        """See `Snapshot.providers`."""
        return self.parts.of_teams

    def __repr__(self) -> str:
        return (
            f"<snapshot {self.revision}: {len(self.parts.services)} services,"
            f" {len(self.parts.keys)} keys, {len(self.parts.grants)} grants>"
        )

    def service(self, host: str, path: str, method: str) -> Service | None:
        """See `Snapshot.service`."""
        found = self._routes.match(host, path, method)
        return found.value if type(found) is Match else None

    def methods(self, host: str, path: str, method: str) -> tuple[str, ...]:
        """See `Snapshot.methods`."""
        found = self._routes.match(host, path, method)
        return found.methods if isinstance(found, NotAllowed) else ()

    def application(self, team: str, name: str) -> Application | None:
        """See `Snapshot.application`."""
        return self._applications.get((team, name))

    def consumer(self, credential: str) -> Consumer | None:
        """See `Snapshot.consumer`. What is looked up is a hash under a secret: how long it takes
        says nothing about how much of a guess was right."""
        if len(credential) > LONGEST:
            return None
        encoded = credential.encode("utf-8", "surrogateescape")
        found = self._consumers.get(hmac.digest(self.pepper, encoded, "sha256").hex())
        if found is not None:
            self.used.add(found.key)
        return found

    def grant(self, application: str, service: str) -> Grant | None:
        """See `Snapshot.grant`."""
        return self._grants.get((application, service))


EMPTY: Final = Compiled(-1, b"", Parts())
"""Nothing is known yet."""
