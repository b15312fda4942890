"""A change of the store: one transaction, its audit entries, one step of the revision."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from tidegate.api.store import Actor, Entry

from . import audit
from .errors import StoreError
from .kinds import KINDS, PROVIDER, SERVICE, SUBSCRIPTION, TEAM, Kind, Scope
from .specs import origin
from .tables import provider_key, service, state, subscription
from .vault import Vault

type Row = dict[str, Any]

STAMPS: Final = frozenset({"id", "team_id", "revision", "created", "updated", "route", "last_used"})
PARENTS: Final = {child: kind for kind in KINDS.values() for child in kind.children}


class Change:
    """What a command does within its transaction. Made by `Store.change`.

    All changes of a store come one after the other: each holds the lock of its one row of state
    from beginning to end.
    """

    def __init__(self, connection: Connection, actor: Actor, vault: Vault) -> None:
        self.connection = connection
        self.actor = actor
        self.vault = vault
        locked = select(state.c.revision).where(state.c.id == 1).with_for_update()
        self.revision = connection.execute(locked).scalar_one() + 1
        vault.unlock(connection)  # a backup that was restored has secrets of its own
        self.at = round(time.time(), 3)
        self.entries: list[Entry] = []
        self._labels: dict[str, str] = {}
        self._routes: dict[str, Row] = {}
        self._origins: dict[str, Row] = {}

    # -- reading ------------------------------------------------------------------------------

    def fetch(self, kind: Kind, scope: Scope, id: str) -> Row:
        """A row that `scope` may change. Raises `not_found`."""
        query = select(kind.table).where(kind.table.c.id == id, scope.owns(kind))
        row = self.connection.execute(query).mappings().first()
        if row is None:
            raise StoreError("not_found", f"there is no such {kind.name}")
        return as_row(row)

    def children(self, kind: Kind, parent: Row | None) -> list[Row]:
        """The rows of `kind` that are part of `parent`; at the top, all."""
        query = select(kind.table)
        if parent is not None:
            query = query.where(kind.table.c[kind.parent] == parent["id"])
        return [as_row(row) for row in self.connection.execute(query).mappings()]

    def label(self, kind: Kind, row: Mapping[str, Any]) -> str:
        """`team/…/name`: how people call a row."""
        above = PARENTS.get(kind)
        own = str(row[kind.key])
        if kind is SUBSCRIPTION:
            own = f"-> {self._label_of(SERVICE, own)}"
        return own if above is None else f"{self._label_of(above, row[kind.parent])}/{own}"

    def _label_of(self, kind: Kind, id: str) -> str:
        if id not in self._labels:
            query = select(kind.table).where(kind.table.c.id == id)
            row = self.connection.execute(query).mappings().one()
            self._labels[id] = self.label(kind, as_row(row))
        return self._labels[id]

    # -- writing ------------------------------------------------------------------------------

    def create(self, kind: Kind, values: Mapping[str, Any], parent: Row | None = None) -> Row:
        """Add a row under `parent`, which the caller fetched within its scope."""
        id = secrets.token_hex(8)
        row: Row = {str(column.name): None for column in kind.table.c} | {**values, "id": id}
        row["created"] = self.at
        row |= {"updated": self.at, "revision": self.revision}
        if parent is not None:
            row[kind.parent] = parent["id"]
            row["team_id"] = parent.get("team_id", parent["id"])
        label = self.label(kind, row)
        try:
            self.connection.execute(insert(kind.table).values(row))
        except IntegrityError:
            raise StoreError("already_exists", f"there is a {kind.name} {label} already") from None
        self._touched(kind, row, None)
        self._note(f"create {kind.name}", kind, row, label, None, row)
        return row

    def update(
        self, kind: Kind, row: Row, values: Mapping[str, Any], expected: int | None = None
    ) -> Row:
        """Change columns of a fetched row; `expected` is the revision that its caller saw."""
        self._expect(kind, row, expected)
        changed = {name: value for name, value in values.items() if row.get(name) != value}
        if not changed:
            return row
        label = self.label(kind, row)
        stamps = {"updated": self.at, "revision": self.revision}
        try:
            self.connection.execute(
                update(kind.table).where(kind.table.c.id == row["id"]).values(changed | stamps)
            )
        except IntegrityError:
            raise StoreError("already_exists", f"{label}: that name is taken") from None
        new = row | changed | stamps
        self._labels.pop(row["id"], None)
        self._touched(kind, new, row)
        before = {name: row.get(name) for name in changed}
        self._note(f"update {kind.name}", kind, row, label, before, changed)
        return new

    def delete(self, kind: Kind, row: Row, expected: int | None = None) -> None:
        """Remove a fetched row and all that is part of it."""
        self._expect(kind, row, expected)
        if kind is TEAM:
            self._unsubscribe(subscription.c.service_team_id == row["id"])
        if kind is SERVICE:
            self._unsubscribe(subscription.c.service_id == row["id"])
        for child in kind.children:
            for part in self.children(child, row):
                self.delete(child, part)
        label = self.label(kind, row)
        self.connection.execute(delete(kind.table).where(kind.table.c.id == row["id"]))
        self._routes.pop(row["id"], None)
        self._origins.pop(row["id"], None)
        self._note(f"delete {kind.name}", kind, row, label, row, None)

    def _unsubscribe(self, condition: Any) -> None:
        rows = self.connection.execute(select(subscription).where(condition)).mappings().all()
        for row in rows:
            self.delete(SUBSCRIPTION, as_row(row))

    def _expect(self, kind: Kind, row: Row, expected: int | None) -> None:
        if expected is not None and row["revision"] != expected:
            raise StoreError(
                "revision_conflict",
                f"{self.label(kind, row)} was changed meanwhile: read it again",
            )

    def _touched(self, kind: Kind, row: Row, before: Row | None) -> None:
        if kind is SERVICE:
            self._routes[row["id"]] = row
        if kind is PROVIDER and before is not None and origin(row["url"]) != origin(before["url"]):
            self._origins[row["id"]] = row

    def _note(
        self,
        action: str,
        kind: Kind,
        row: Row,
        label: str,
        before: Mapping[str, Any] | None,
        after: Mapping[str, Any] | None,
    ) -> None:
        team = row["id"] if kind is TEAM else row.get("team_id", "")
        self.entries.append(
            Entry(action, label, team, _masked(kind, before, "old"), _masked(kind, after, "new"))
        )

    def moved(self, provider: str) -> bool:
        """Whether this change sends a provider's secrets (its id) to another host."""
        return provider in self._origins

    # -- the end ------------------------------------------------------------------------------

    def finish(self) -> bool:
        """Check what holds between rows, write the audit, step the revision.

        False: nothing had changed. Raises `route_taken`, `secret_origin_changed`.
        """
        for row in self._routes.values():
            self._check_route(row)
        for row in self._origins.values():
            self._check_origin(row)
        if not self.entries:
            return False
        audit.append(self.connection, self.vault.audit_key, self.at, self.actor, self.entries)
        self.connection.execute(update(state).values(revision=self.revision))
        return True

    def _check_route(self, row: Row) -> None:
        others = select(service).where(service.c.route == row["route"], service.c.id != row["id"])
        mine = _taken(row)
        for other in self.connection.execute(others).mappings():
            theirs = _taken(as_row(other))
            hosts = mine[0] & theirs[0]
            both_all = mine[1] is None or theirs[1] is None
            if hosts and (
                mine[1] == theirs[1]
                if both_all
                else (mine[1] or frozenset()) & (theirs[1] or frozenset())
            ):
                where = f"{sorted(hosts)[0]}{row['path']}"
                label = self.label(SERVICE, row)
                raise StoreError("route_taken", f"{label}: {where} is another service's already")

    def _check_origin(self, row: Row) -> None:
        stale = select(provider_key.c.name).where(
            provider_key.c.provider_id == row["id"],
            provider_key.c.sealed.is_not(None),
            provider_key.c.revision != self.revision,
        )
        name = self.connection.execute(stale).scalar()
        if name is not None:
            raise StoreError(
                "secret_origin_changed",
                f"{self.label(PROVIDER, row)} moves to another host: enter its key {name!r} anew,"
                " or take it away",
            )


def as_row(values: RowMapping) -> Row:
    """A row as a plain dictionary: SQLAlchemy's names of columns are more than texts."""
    return {str(name): value for name, value in values.items()}


def _taken(row: Mapping[str, Any]) -> tuple[frozenset[str], frozenset[str] | None]:
    """Hosts and methods that a service takes; the table of routes tells them apart likewise."""
    hosts = frozenset(h.lower() for h in row["hosts"]) or frozenset({"*"})
    return hosts, None if row["methods"] is None else frozenset(row["methods"])


def _masked(kind: Kind, values: Mapping[str, Any] | None, which: str) -> dict[str, Any] | None:
    if values is None:
        return None
    return {
        name: f"({which} secret)" if name in kind.hidden and value is not None else value
        for name, value in values.items()
        if name not in STAMPS and name not in {kind.parent, "application_id", "provider_id"}
    }
