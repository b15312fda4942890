"""Compiling a snapshot: all of it at first, then what has changed since the one before.

Every row says at which revision it changed last; what is gone shows in the count. So a change of
one key among a hundred thousand is in force within milliseconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from ipaddress import ip_network
from typing import Any, Final

import orjson
from sqlalchemy import ColumnElement, Connection, Select, Text, func, or_, select, true, type_coerce

from tidegate.api import Principal, Secret
from tidegate.api.platform import (
    Application,
    Consumer,
    Grant,
    Network,
    Policy,
    Service,
    StoredKey,
    StoredProvider,
    Team,
)

from . import tables
from .errors import StoreError
from .queries import read_revision
from .snapshot import EMPTY, Compiled, Parts, TeamPolicy
from .vault import Vault, belonging
from .yielding import giving_way

CHUNK: Final = 2000
LARGE: Final = 10_000
"""Keys of a snapshot that the collector is kept from."""
PAUSE: Final = 0.0005
"""Seconds between two chunks in which a compile lets the worker's loop run."""

type Condition = ColumnElement[bool]

ALL: Final[Condition] = true()


def compile_snapshot(connection: Connection, vault: Vault, previous: Compiled = EMPTY) -> Compiled:
    """The snapshot of the store as it is, with as much of `previous` as holds. In a thread."""
    pepper = vault.pepper
    revision = read_revision(connection)
    team = tables.team.c
    teams = {
        row.id: Team(row.id, row.name, row.title)
        for row in _rows(connection, select(team.id, team.name, team.title))
    }
    before = previous.parts.teams
    if (
        previous.pepper != pepper
        or previous.revision > revision
        or any(teams.get(id) != known for id, known in before.items())
    ):
        previous = EMPTY  # what stands for a team, or everything, is another
    with giving_way(anew=previous is EMPTY and _is_large(connection)):
        parts = _Compile(connection, vault, teams, previous).parts()
        return Compiled(revision, pepper, parts, previous)


def _is_large(connection: Connection) -> bool:
    rows = select(func.count()).select_from(tables.credential)
    return int(connection.execute(rows).scalar_one()) > LARGE


class _Compile:
    def __init__(
        self, connection: Connection, vault: Vault, teams: Mapping[str, Team], previous: Compiled
    ) -> None:
        self.connection = connection
        self.vault = vault
        self.teams = teams
        self.old = previous.parts
        self.since = previous.revision

    def parts(self) -> Parts:
        policies = self._merged(tables.policy, self.old.policies, self._policies)
        bare = self._merged(tables.service, self.old.services, self._services)
        services = self._guarded(bare, policies)
        applications = self._merged(tables.application, self.old.applications, self._applications)
        refs = {service.ref: service.id for service in services.values()}
        keys = self._merged(
            tables.credential,
            self.old.keys,
            lambda condition: self._keys(condition, applications, refs),
            self._stale_keys(refs),
        )
        grants = self._merged(
            tables.subscription,
            self.old.grants,
            self._grants,
            counted=tables.subscription.c.status == "approved",
            key=("application_id", "service_id"),
        )
        providers = self._merged(tables.provider, self.old.providers, self._providers)
        secrets = self._merged(tables.provider_key, self.old.provider_keys, self._provider_keys)
        of_teams = self._of_teams(providers, secrets)
        return Parts(
            self.teams, services, applications, keys, grants, providers, secrets, of_teams, policies
        )

    def _merged[K, V](
        self,
        table: Any,
        old: Mapping[K, V],
        read: Callable[[Condition], dict[K, V | None]],
        stale: Condition | None = None,
        counted: Condition = ALL,
        key: tuple[str, ...] = ("id",),
    ) -> Mapping[K, V]:
        """`old` with what has changed since (and what is `stale`); None takes an entry out.

        Where that does not come to the number of rows in the table (those `counted`), something
        was removed: `key` is what entries go by, and tells which.
        """
        changed = table.c.revision > self.since
        fresh = read(changed if stale is None else or_(changed, stale))
        merged = {k: v for k, v in {**old, **fresh}.items() if v is not None} if fresh else old
        count = select(func.count()).select_from(table).where(counted)
        if len(merged) == self.connection.execute(count).scalar_one():
            return merged
        columns = [table.c[name] for name in key]
        rows = _rows(self.connection, select(*columns).where(counted))
        there = {row[0] if len(key) == 1 else tuple(row) for row in rows}
        return {k: v for k, v in merged.items() if k in there}

    def _stale_keys(self, refs: Mapping[str, str]) -> Condition | None:
        """Keys that did not change, but what they stand for did."""
        key, application = tables.credential.c, tables.application.c
        renamed = select(application.id).where(application.revision > self.since)
        stale = key.application_id.in_(renamed)
        known = {service.ref: service.id for service in self.old.services.values()}
        return stale if refs == known else or_(stale, key.services.is_not(None))

    def _services(self, condition: Condition) -> dict[str, Service | None]:
        c = tables.service.c
        lists = (_raw(c.hosts), _raw(c.methods), _raw(c.models), _raw(c.operations))
        plain = (c.id, c.name, c.team_id, c.kind, c.path, c.upstream, c.strip)
        query = select(*plain, c.visibility, c.approval, c.anonymous, c.policy, *lists)
        return {
            row.id: _service(row, self.teams[row.team_id])
            for row in _rows(self.connection, query.where(condition))
        }

    def _policies(self, condition: Condition) -> dict[str, TeamPolicy | None]:
        c = tables.policy.c
        query = select(c.id, c.team_id, c.name, c.text, c.title, _raw(c.services)).where(condition)
        return {
            row.id: TeamPolicy(
                row.team_id, Policy(row.name, row.text, row.title), _tuple(row.services)
            )
            for row in _rows(self.connection, query)
        }

    def _guarded(
        self, services: Mapping[str, Service], policies: Mapping[str, TeamPolicy]
    ) -> Mapping[str, Service]:
        """Services with the policies of their team; the very objects that have them already."""
        if services is self.old.services and policies is self.old.policies:
            return services
        of_teams: dict[str, list[TeamPolicy]] = {}
        for known in sorted(policies.values(), key=lambda known: known.policy.name):
            of_teams.setdefault(known.team, []).append(known)
        guarded = {}
        for id, service in services.items():
            its = of_teams.get(service.team.id, ())
            asked = tuple(known.policy for known in its if known.covers(service))
            same = service.policies == asked
            guarded[id] = service if same else replace(service, policies=asked)
        return guarded

    def _applications(self, condition: Condition) -> dict[str, Application | None]:
        c = tables.application.c
        query = select(c.id, c.name, c.team_id).where(condition)
        return {
            row.id: Application(row.id, row.name, self.teams[row.team_id])
            for row in _rows(self.connection, query)
        }

    def _keys(
        self,
        condition: Condition,
        applications: Mapping[str, Application],
        refs: Mapping[str, str],
    ) -> dict[str, tuple[str, Consumer] | None]:
        c = tables.credential.c
        query = select(
            *(c.hash, c.id, c.prefix, c.application_id, c.expires, c.revoked),
            *(_raw(c.services), _raw(c.models), _raw(c.networks)),
        ).where(condition)
        found: dict[str, tuple[str, Consumer] | None] = {}
        for hashed, key, prefix, application_id, expires, revoked, only, models, networks in _rows(
            self.connection, query
        ):
            application = applications[application_id]
            limits = _tuple(only)
            found[key] = (
                hashed,
                Consumer(
                    Principal(application.name, application.team.name, {"key": prefix}),
                    application,
                    key,
                    prefix,
                    None if limits is None else frozenset(refs[r] for r in limits if r in refs),
                    _tuple(models),
                    _networks(networks),
                    expires,
                    revoked,
                ),
            )
        return found

    def _grants(self, condition: Condition) -> dict[tuple[str, str], Grant | None]:
        c = tables.subscription.c
        query = select(
            *(c.id, c.application_id, c.service_id, c.status, c.decided, c.created)
        ).where(condition)
        return {
            (row.application_id, row.service_id): Grant(
                row.id,
                row.application_id,
                row.service_id,
                row.created if row.decided is None else row.decided,
            )
            if row.status == "approved"
            else None
            for row in _rows(self.connection, query)
        }

    def _providers(self, condition: Condition) -> dict[str, tuple[str, StoredProvider] | None]:
        c = tables.provider.c
        query = select(c.id, c.team_id, c.name, c.kind, c.url, _raw(c.models)).where(condition)
        return {
            row.id: (
                row.team_id,
                StoredProvider(row.id, row.name, row.kind, row.url, _tuple(row.models)),
            )
            for row in _rows(self.connection, query)
        }

    def _provider_keys(self, condition: Condition) -> dict[str, tuple[str, StoredKey] | None]:
        c = tables.provider_key.c
        query = select(c.id, c.team_id, c.provider_id, c.name, c.sealed).where(condition)
        return {
            row.id: (row.provider_id, StoredKey(row.id, row.name, self._opened(row)))
            for row in _rows(self.connection, query)
        }

    def _opened(self, row: Any) -> Secret | None:
        """The secret of a key. One that is damaged must not keep other changes from workers."""
        if row.sealed is None:
            return None
        try:
            secret = self.vault.open(row.sealed, belonging(row.team_id, row.provider_id))
        except StoreError:
            return None
        return Secret(secret.decode())

    def _of_teams(
        self,
        providers: Mapping[str, tuple[str, StoredProvider]],
        secrets: Mapping[str, tuple[str, StoredKey]],
    ) -> Mapping[str, tuple[StoredProvider, ...]]:
        """Providers with their keys, by team; the very objects of before where they are equal."""
        old = self.old
        if providers is old.providers and secrets is old.provider_keys:
            return old.of_teams
        keys: dict[str, list[StoredKey]] = {}
        for provider, key in secrets.values():
            keys.setdefault(provider, []).append(key)
        teams: dict[str, list[StoredProvider]] = {}
        for id, (team, bare) in providers.items():
            its = tuple(sorted(keys.get(id, ()), key=lambda key: key.name))
            teams.setdefault(self.teams[team].name, []).append(replace(bare, keys=its))
        made = {
            team: tuple(sorted(its, key=lambda provider: provider.name))
            for team, its in teams.items()
        }
        return {team: old.of_teams[team] if old.of_teams.get(team) == its else its
                for team, its in made.items()}  # fmt: skip


def _service(row: Any, team: Team) -> Service:
    methods = _tuple(row.methods)
    return Service(
        id=row.id,
        name=row.name,
        team=team,
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


def _rows(connection: Connection, query: Select[Any]) -> Iterator[Any]:
    for chunk in connection.execute(query).partitions(CHUNK):
        yield from chunk
        time.sleep(PAUSE)


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
