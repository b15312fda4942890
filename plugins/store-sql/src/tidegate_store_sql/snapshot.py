"""The immutable view of the store that a worker serves from."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from ipaddress import ip_network
from typing import Any, Final

import orjson
from sqlalchemy import Connection, Select, Text, select, type_coerce

from tidegate.api import Match, Principal, RouteEntry, RouteTable
from tidegate.api.platform import Application, Consumer, Grant, Network, Service, Team

from . import tables
from .queries import read_revision

CHUNK: Final = 2000
PAUSE: Final = 0.0005
"""Seconds between two chunks in which a compile lets the worker's loop run."""
LONGEST: Final = 512
"""A credential of more characters is nobody's."""


class Compiled:
    """A `tidegate.api.platform.Snapshot`.

    `used` collects the ids of the keys that were asked for, for whoever writes them down.
    """

    __slots__ = ("_consumers", "_grants", "_pepper", "_routes", "_services", "revision", "used")

    def __init__(
        self,
        revision: int,
        pepper: bytes,
        services: Sequence[Service],
        consumers: dict[str, Consumer],
        grants: dict[tuple[str, str], Grant],
    ) -> None:
        self.revision = revision
        self.used: set[str] = set()
        self._pepper = pepper
        self._services = services
        self._consumers = consumers
        self._grants = grants
        self._routes = RouteTable(
            RouteEntry(service, host, service.path, methods=service.methods)
            for service in services
            for host in service.hosts or ("*",)
        )

    def __repr__(self) -> str:
        return (
            f"<snapshot {self.revision}: {len(self._services)} services,"
            f" {len(self._consumers)} keys, {len(self._grants)} grants>"
        )

    def service(self, host: str, path: str, method: str) -> Service | None:
        """See `Snapshot.service`."""
        found = self._routes.match(host, path, method)
        return found.value if type(found) is Match else None

    def consumer(self, credential: str) -> Consumer | None:
        """See `Snapshot.consumer`. What is looked up is a hash under a secret: how long it takes
        says nothing about how much of a guess was right."""
        if len(credential) > LONGEST:
            return None
        encoded = credential.encode("utf-8", "surrogateescape")
        found = self._consumers.get(hmac.digest(self._pepper, encoded, "sha256").hex())
        if found is not None:
            self.used.add(found.key)
        return found

    def grant(self, application: str, service: str) -> Grant | None:
        """See `Snapshot.grant`."""
        return self._grants.get((application, service))


EMPTY: Final = Compiled(-1, b"", (), {}, {})
"""Nothing is known yet."""


def compile_snapshot(
    connection: Connection, pepper: bytes, pause: Callable[[], None] | None = None
) -> Compiled:
    """Read everything that traffic needs, at one revision. In a thread: it takes a while."""
    pause = pause or _pause
    revision = read_revision(connection)
    team = tables.team.c
    teams = {
        row.id: Team(row.id, row.name, row.title)
        for row in _rows(connection, select(team.id, team.name, team.title), pause)
    }
    services = _services(connection, teams, pause)
    consumers = _consumers(connection, teams, services, pause)
    grants = _grants(connection, pause)
    return Compiled(revision, pepper, services, consumers, grants)


def _pause() -> None:
    time.sleep(PAUSE)


def _rows(connection: Connection, query: Select[Any], pause: Callable[[], None]) -> Iterator[Any]:
    for chunk in connection.execute(query).partitions(CHUNK):
        yield from chunk
        pause()


@lru_cache(maxsize=4096)
def _tuple(text: str | None) -> tuple[str, ...] | None:
    """A JSON list in a column. The same few come again and again."""
    return None if text is None else tuple(orjson.loads(text))


@lru_cache(maxsize=4096)
def _networks(text: str | None) -> tuple[Network, ...] | None:
    return None if text is None else tuple(ip_network(one) for one in orjson.loads(text))


def _raw(column: Any) -> Any:
    """A JSON column as the text that it is."""
    return type_coerce(column, Text).label(column.name)


def _services(
    connection: Connection, teams: dict[str, Team], pause: Callable[[], None]
) -> list[Service]:
    c = tables.service.c
    lists = (_raw(c.hosts), _raw(c.methods), _raw(c.models), _raw(c.operations))
    plain = (c.id, c.name, c.team_id, c.kind, c.path, c.upstream, c.strip)
    query = select(*plain, c.visibility, c.approval, c.anonymous, c.policy, *lists)
    found = []
    for row in _rows(connection, query, pause):
        methods = _tuple(row.methods)
        found.append(
            Service(
                id=row.id,
                name=row.name,
                team=teams[row.team_id],
                kind=row.kind,
                hosts=_tuple(row.hosts) or (),
                path=row.path,
                methods=None if methods is None else frozenset(methods),
                upstream=row.upstream,
                strip=row.strip,
                visibility=row.visibility,
                approval=row.approval,
                anonymous=row.anonymous,
                models=_tuple(row.models),
                operations=_tuple(row.operations),
                policy=row.policy,
            )
        )
    return found


def _consumers(
    connection: Connection,
    teams: dict[str, Team],
    services: Sequence[Service],
    pause: Callable[[], None],
) -> dict[str, Consumer]:
    a = tables.application.c
    applications = {
        row.id: Application(row.id, row.name, teams[row.team_id])
        for row in _rows(connection, select(a.id, a.name, a.team_id), pause)
    }
    ids = {service.ref: service.id for service in services}
    c = tables.credential.c
    query = select(
        *(c.hash, c.id, c.prefix, c.application_id, c.expires, c.revoked),
        *(_raw(c.services), _raw(c.models), _raw(c.networks)),
    )
    found = {}
    for hashed, key, prefix, application_id, expires, revoked, only, models, networks in _rows(
        connection, query, pause
    ):
        application = applications[application_id]
        refs = _tuple(only)
        found[hashed] = Consumer(
            Principal(application.name, application.team.name, {"key": prefix}),
            application,
            key,
            prefix,
            None if refs is None else frozenset(ids[ref] for ref in refs if ref in ids),
            _tuple(models),
            _networks(networks),
            expires,
            revoked,
        )
    return found


def _grants(connection: Connection, pause: Callable[[], None]) -> dict[tuple[str, str], Grant]:
    c = tables.subscription.c
    query = select(c.id, c.application_id, c.service_id, c.decided, c.created).where(
        c.status == "approved"
    )
    return {
        (row.application_id, row.service_id): Grant(
            row.id,
            row.application_id,
            row.service_id,
            row.created if row.decided is None else row.decided,
        )
        for row in _rows(connection, query, pause)
    }
