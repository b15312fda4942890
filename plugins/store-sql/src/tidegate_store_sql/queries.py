"""Queries of the store: each sees what its `Scope` may, and nothing else."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import orjson
from sqlalchemy import Connection, Select, func, or_, select, tuple_

from tidegate.api.store import Role, Roles

from . import tables
from .change import Row, as_row
from .database import Database
from .errors import StoreError
from .kinds import PROVIDER_KEY, SERVICE, Kind, Scope

PAGE: Final = 50
LONGEST_PAGE: Final = 1000


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a list. `next` is the `after` of the part that follows; "": this was the last."""

    items: list[Row]
    next: str = ""


class Queries:
    """What can be asked. Every method is blocking, and raises StoreError."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def revision(self) -> int:
        """Number of the last change."""
        with self.database.read() as connection:
            return read_revision(connection)

    def get(self, scope: Scope, kind: Kind, id: str) -> Row:
        """One row that `scope` may see. Raises `not_found`: for another team's as well."""
        with self.database.read() as connection:
            query = select(kind.table).where(kind.table.c.id == id, scope.sees(kind))
            row = connection.execute(query).mappings().first()
        if row is None:
            raise StoreError("not_found", f"there is no such {kind.name}")
        return shown(kind, as_row(row))

    def find(self, scope: Scope, kind: Kind, **equal: Any) -> Row:
        """The row with these column values. Raises `not_found`."""
        page = self.page(scope, kind, limit=1, **equal)
        if not page.items:
            raise StoreError("not_found", f"there is no such {kind.name}")
        return page.items[0]

    def page(
        self,
        scope: Scope,
        kind: Kind,
        *,
        after: str = "",
        limit: int = PAGE,
        search: str = "",
        **equal: Any,
    ) -> Page:
        """Rows that `scope` may see, by name. `search` is a part of the name."""
        query = _filtered(select(kind.table).where(scope.sees(kind)), kind, search, equal)
        return self._page(query, kind, after, limit)

    def catalogue(
        self, scope: Scope, *, after: str = "", limit: int = PAGE, search: str = ""
    ) -> Page:
        """The services that a member of a team finds: its own, internal and public ones."""
        visible = or_(scope.sees(SERVICE), tables.service.c.visibility != "private")
        query = _filtered(select(tables.service).where(visible), SERVICE, search, {})
        return self._page(query, SERVICE, after, limit)

    def _page(self, query: Select[Any], kind: Kind, after: str, limit: int) -> Page:
        if not 1 <= limit <= LONGEST_PAGE:
            raise StoreError("invalid", f"`limit` is 1 to {LONGEST_PAGE}")
        key, id = kind.table.c[kind.key], kind.table.c.id
        if after:
            query = query.where(tuple_(key, id) > tuple_(*_cursor(after)))
        with self.database.read() as connection:
            rows = connection.execute(query.order_by(key, id).limit(limit + 1)).mappings().all()
        items = [shown(kind, as_row(row)) for row in rows[:limit]]
        if len(rows) <= limit:
            return Page(items)
        last = [items[-1][kind.key], items[-1]["id"]]
        return Page(items, base64.urlsafe_b64encode(orjson.dumps(last)).decode())

    def roles(self, user: str) -> Roles:
        """What a user is."""
        with self.database.read() as connection:
            member, admin = tables.member.c, tables.admin.c
            rows = connection.execute(
                select(member.team_id, member.role).where(member.user == user)
            )
            teams = {str(team): cast(Role, role) for team, role in rows}
            is_admin = connection.execute(select(admin.id).where(admin.user == user)).first()
        return Roles(is_admin is not None, teams)

    def audit(self, scope: Scope, *, before: int | None = None, limit: int = PAGE) -> list[Row]:
        """Entries that `scope` may see, the newest first; `before` a sequence number."""
        entry = tables.audit.c
        query = select(tables.audit).order_by(entry.seq.desc()).limit(min(limit, LONGEST_PAGE))
        if scope.team is not None:
            query = query.where(entry.team_id == scope.team)
        if before is not None:
            query = query.where(entry.seq < before)
        with self.database.read() as connection:
            return [as_row(row) for row in connection.execute(query).mappings()]


def shown(kind: Kind, row: Mapping[str, Any]) -> Row:
    """A row without what is never told; for a provider's key, whether it has a secret."""
    values = {name: value for name, value in row.items() if name not in kind.hidden}
    if kind is PROVIDER_KEY:
        values["has_secret"] = row["sealed"] is not None
    return values


def read_revision(connection: Connection) -> int:
    """Number of the last change."""
    return int(connection.execute(select(tables.state.c.revision)).scalar_one())


def _filtered(
    query: Select[Any], kind: Kind, search: str, equal: Mapping[str, object]
) -> Select[Any]:
    for name, value in equal.items():
        if name not in kind.table.c or name in kind.hidden:
            raise StoreError("invalid", f"a {kind.name} can't be filtered by {name!r}")
        query = query.where(kind.table.c[name] == value)
    if search:
        key = func.lower(kind.table.c[kind.key])
        query = query.where(key.contains(search.lower(), autoescape=True))
    return query


def _cursor(after: str) -> tuple[str, str]:
    try:
        key, id = orjson.loads(base64.urlsafe_b64decode(after))
        if isinstance(key, str) and isinstance(id, str):
            return key, id
    except (ValueError, TypeError):
        pass
    raise StoreError("invalid", "`after` is not what a page gave as `next`")
