"""Making the store as a document says, in one change; and the document of what the store holds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sqlalchemy import Connection, select

from tidegate.api.store import Actor, Entry

from . import tables
from .change import Change, Row, as_row
from .crypto import Keyring
from .document import (
    ApplicationTable,
    Document,
    KeyTable,
    ProviderKeyTable,
    ProviderTable,
    TeamTable,
)
from .errors import StoreError
from .kinds import (
    ADMIN,
    APPLICATION,
    KEY,
    MEMBER,
    POLICY,
    PROVIDER,
    PROVIDER_KEY,
    SERVICE,
    SUBSCRIPTION,
    TEAM,
    Kind,
)
from .specs import AdminSpec, MemberSpec, PolicySpec, ServiceSpec, Spec, SubscriptionSpec
from .store import Store, plain_of
from .vault import Vault, belonging


@dataclass(frozen=True, slots=True)
class Options:
    """How a document is applied.

    Attributes:
        prune: remove teams that it doesn't name, and read a section that is left out as empty.
        dry_run: find out what would change, and change nothing.
        keyring: opens what an export sealed.
    """

    prune: bool = False
    dry_run: bool = False
    keyring: Keyring | None = None


def apply(
    store: Store, actor: Actor, document: Document, options: Options | None = None
) -> list[Entry]:
    """Make the store as `document` says; what was changed. All of it, or nothing: StoreError.

    A dry run does the same and then takes it back: what it tells is what would happen.
    """
    options = options or Options()
    with store.change(actor, dry_run=options.dry_run) as change:
        _Apply(change, options).document(document)
    return change.entries


class _Apply:
    def __init__(self, change: Change, options: Options) -> None:
        self.change = change
        self.options = options
        self._parts: dict[Kind, dict[str, dict[str, Row]]] = {}

    def document(self, document: Document) -> None:
        admins = document.admins
        self.section(ADMIN, None, None if admins is None else [AdminSpec(user=u) for u in admins])
        teams = self.rows(TEAM, None)
        for table in document.team or ():
            self.team(table, teams.get(table.name))
        for table in document.team or ():
            for application in table.application or ():
                self.subscriptions(f"{table.name}/{application.name}", application.subscription)
        if self.options.prune:
            named = {table.name for table in document.team or ()}
            for name, row in teams.items():
                if name not in named:
                    self.change.delete(TEAM, row)

    def team(self, table: TeamTable, row: Row | None) -> None:
        row = self.put(TEAM, None, row, table)
        self.section(MEMBER, row, table.member)
        self.section(SERVICE, row, table.service)
        self.section(POLICY, row, table.policy)
        for application in self.section(APPLICATION, row, table.application):
            self.section(KEY, application[0], application[1].key)
        for provider in self.section(PROVIDER, row, table.provider):
            self.section(PROVIDER_KEY, provider[0], provider[1].key)

    def section[S: Spec](
        self, kind: Kind, parent: Row | None, wanted: Sequence[S] | None
    ) -> list[tuple[Row, S]]:
        """Make the rows of `kind` below `parent` as `wanted` says; the rows, with their specs."""
        if wanted is None:
            if not self.options.prune:
                return []
            wanted = ()
        have = dict(self.rows(kind, parent))
        named = {getattr(spec, kind.key) for spec in wanted}
        for name, row in have.items():
            if name not in named:
                self.change.delete(kind, row)
        return [
            (self.put(kind, parent, have.get(getattr(spec, kind.key)), spec), spec)
            for spec in wanted
        ]

    def put(self, kind: Kind, parent: Row | None, row: Row | None, spec: Spec) -> Row:
        values = self.values(kind, parent, row, spec)
        if row is None:
            return self.change.create(kind, values, parent)
        return self.change.update(kind, row, values)

    def values(self, kind: Kind, parent: Row | None, row: Row | None, spec: Spec) -> Row:
        if isinstance(spec, KeyTable):
            return self._key(spec)
        if isinstance(spec, ProviderKeyTable) and parent is not None:
            return self._provider_key(parent, row, spec)
        return plain_of(kind, spec)

    def _key(self, spec: KeyTable) -> Row:
        values = plain_of(KEY, spec)
        if spec.key is not None:
            key = spec.key.get_secret_value()
            values |= {"hash": self.change.vault.hash(key), "prefix": key[:8]}
        return values

    def _provider_key(self, provider: Row, row: Row | None, spec: ProviderKeyTable) -> Row:
        secret = None if spec.secret is None else spec.secret.get_secret_value().encode()
        name = f"{self.change.label(PROVIDER, provider)}/{spec.name}"
        if secret is None and spec.sealed is not None:
            if self.options.keyring is None:
                raise StoreError("invalid", f"{name} is sealed: give the key of the export")
            secret = self.options.keyring.open(spec.sealed, f"export/{name}")
        old = None if row is None else row["sealed"]
        belongs = belonging(provider["team_id"], provider["id"])
        if secret is None:
            return {"name": spec.name, "sealed": old}
        if (
            old is not None
            and not self.change.moved(provider["id"])
            and self.change.vault.open(old, belongs) == secret
        ):
            return {"name": spec.name, "sealed": old}
        return {"name": spec.name, "sealed": self.change.vault.seal(secret, belongs)}

    def subscriptions(self, label: str, wanted: Sequence[SubscriptionSpec] | None) -> None:
        """After all services are there: an application may subscribe to any team's."""
        if wanted is None and not self.options.prune:
            return
        application = self._application(label)
        have = {row["service_id"]: row for row in self.change.children(SUBSCRIPTION, application)}
        for spec in wanted or ():
            if spec.service not in self._services:
                raise StoreError("invalid", f"{label}: there is no service {spec.service}")
            service, team = self._services[spec.service]
            values = plain_of(SUBSCRIPTION, spec) | {"service_id": service, "service_team_id": team}
            del values["service"]
            row = have.pop(service, None)
            if row is None:
                self.change.create(SUBSCRIPTION, values, application)
            else:
                self.change.update(SUBSCRIPTION, row, values)
        for row in have.values():
            self.change.delete(SUBSCRIPTION, row)

    @cached_property
    def _services(self) -> dict[str, tuple[str, str]]:
        """Ids of all services and of their teams, by `team/name`."""
        service, team = tables.service.c, tables.team.c
        query = select(team.name, service.name, service.id, service.team_id).select_from(
            tables.service.join(tables.team)
        )
        rows = self.change.connection.execute(query)
        return {f"{owner}/{name}": (id, team_id) for owner, name, id, team_id in rows}

    def _application(self, label: str) -> Row:
        team, _, name = label.partition("/")
        query = (
            select(tables.application)
            .join(tables.team)
            .where(tables.team.c.name == team, tables.application.c.name == name)
        )
        return as_row(self.change.connection.execute(query).mappings().one())

    def rows(self, kind: Kind, parent: Row | None) -> dict[str, Row]:
        """The rows below `parent`, by name. All of a kind are read at once, the first time."""
        if kind not in self._parts:
            self._parts[kind] = grouped(self.change.connection, kind)
        return self._parts[kind].get("" if parent is None else parent["id"], {})


def grouped(connection: Connection, kind: Kind) -> dict[str, dict[str, Row]]:
    """All rows of a kind: by the id of their parent ("" at the top), then by name, in order."""
    found: dict[str, dict[str, Row]] = defaultdict(dict)
    for values in connection.execute(select(kind.table)).mappings():
        row = as_row(values)
        found[row[kind.parent] if kind.parent else ""][row[kind.key]] = row
    return {parent: {name: rows[name] for name in sorted(rows)} for parent, rows in found.items()}


def export(store: Store, keyring: Keyring | None = None) -> Document:
    """The document of what the store holds. With a `keyring` secrets are in it, sealed by it."""
    with store.database.read() as connection:
        return _Export(connection, store.vault, keyring).document()


class _Export:
    def __init__(self, connection: Connection, vault: Vault, keyring: Keyring | None) -> None:
        self.vault = vault
        self.keyring = keyring
        kinds = (ADMIN, TEAM, MEMBER, SERVICE, APPLICATION, KEY, SUBSCRIPTION, PROVIDER)
        self._rows = {k: grouped(connection, k) for k in (*kinds, PROVIDER_KEY, POLICY)}
        teams = {row["id"]: row["name"] for row in self._of(TEAM, "")}
        self._refs = {
            row["id"]: f"{teams[team]}/{row['name']}"
            for team in self._rows[SERVICE]
            for row in self._of(SERVICE, team)
        }

    def _of(self, kind: Kind, parent: str) -> Iterator[Row]:
        yield from self._rows[kind].get(parent, {}).values()

    def document(self) -> Document:
        admins = tuple(row["user"] for row in self._of(ADMIN, ""))
        return Document(
            admins=admins or None,
            team=tuple(self._team(row) for row in self._of(TEAM, "")) or None,
        )

    def _team(self, row: Row) -> TeamTable:
        id = row["id"]
        return TeamTable(
            **_fields(TEAM, row),
            member=tuple(MemberSpec(**_fields(MEMBER, r)) for r in self._of(MEMBER, id)) or None,
            service=tuple(ServiceSpec(**_fields(SERVICE, r)) for r in self._of(SERVICE, id))
            or None,
            application=tuple(self._application(r) for r in self._of(APPLICATION, id)) or None,
            provider=tuple(self._provider(row["name"], r) for r in self._of(PROVIDER, id)) or None,
            policy=tuple(PolicySpec(**_fields(POLICY, r)) for r in self._of(POLICY, id)) or None,
        )

    def _application(self, row: Row) -> ApplicationTable:
        wishes = {self._refs[r["service_id"]]: r for r in self._of(SUBSCRIPTION, row["id"])}
        return ApplicationTable(
            **_fields(APPLICATION, row),
            key=tuple(KeyTable(**_fields(KEY, r)) for r in self._of(KEY, row["id"])) or None,
            subscription=tuple(
                SubscriptionSpec(service=ref, **_fields(SUBSCRIPTION, wishes[ref]))
                for ref in sorted(wishes)
            )
            or None,
        )

    def _provider(self, team: str, row: Row) -> ProviderTable:
        keys = []
        for key in self._of(PROVIDER_KEY, row["id"]):
            sealed = None
            if self.keyring is not None and key["sealed"] is not None:
                secret = self.vault.open(key["sealed"], belonging(row["team_id"], row["id"]))
                sealed = self.keyring.seal(secret, f"export/{team}/{row['name']}/{key['name']}")
            keys.append(ProviderKeyTable(name=key["name"], sealed=sealed))
        return ProviderTable(**_fields(PROVIDER, row), key=tuple(keys) or None)


def _fields(kind: Kind, row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in kind.spec.model_fields if name in row}
