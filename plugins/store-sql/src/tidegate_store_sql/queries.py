"""Queries of the store: each sees what its `Scope` may, and nothing else."""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import orjson
from sqlalchemy import Column, Connection, Select, func, or_, select, tuple_

from tidegate.api.store import Role, Roles

from . import tables
from .change import Row, as_row
from .database import Database
from .errors import StoreError
from .kinds import PROVIDER_KEY, SERVICE, TEAM, Kind, Scope
from .specs import storable

PAGE: Final = 50
LONGEST_PAGE: Final = 1000
LONGEST_NUMBER: Final = 19
"""Digits of a number that no column holds."""


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

    def find(self, scope: Scope, kind: Kind, /, **equal: Any) -> Row:
        """The row with these column values. Raises `not_found`."""
        page = self.page(scope, kind, limit=1, **equal)
        if not page.items:
            raise StoreError("not_found", f"there is no such {kind.name}")
        return page.items[0]

    def page(
        self,
        scope: Scope,
        kind: Kind,
        /,
        *,
        after: str = "",
        limit: int = PAGE,
        search: str = "",
        **equal: Any,
    ) -> Page:
        """Rows that `scope` may see, by name. `search` is a part of the name."""
        query = _filtered(select(kind.table).where(scope.sees(kind)), kind, search, equal)
        return self._page(query, kind, after, limit)

    def teams(
        self,
        ids: Collection[str] | None,
        *,
        after: str = "",
        limit: int = PAGE,
        search: str = "",
    ) -> Page:
        """Teams by name: those with these ids; None: all."""
        query = _filtered(select(tables.team), TEAM, search, {})
        if ids is not None:
            query = query.where(tables.team.c.id.in_(ids))
        return self._page(query, TEAM, after, limit)

    def catalogue(
        self,
        teams: Collection[str] | None,
        *,
        after: str = "",
        limit: int = PAGE,
        search: str = "",
    ) -> Page:
        """The services that a member of `teams` (ids) finds; None: all. Without their `docs`."""
        columns = [c for c in tables.service.c if c.name != "docs"]
        query = _filtered(_offers(teams, columns), SERVICE, search, {})
        return self._page(query, SERVICE, after, limit)

    def offer(self, id: str, teams: Collection[str] | None) -> Row:
        """One of them, with its `docs`. Raises `not_found`."""
        query = _offers(teams, list(tables.service.c)).where(tables.service.c.id == id)
        with self.database.read() as connection:
            row = connection.execute(query).mappings().first()
        if row is None:
            raise StoreError("not_found", "there is no such service")
        return as_row(row)

    def refs(self, kind: Kind, ids: Collection[str]) -> dict[str, str]:
        """`team/name` of things of a team's, by their ids."""
        column = kind.table.c
        query = select(column.id, tables.team.c.name, column[kind.key]).where(
            column.id.in_(ids), tables.team.c.id == column.team_id
        )
        with self.database.read() as connection:
            return {id: f"{team}/{name}" for id, team, name in connection.execute(query)}

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

    def audit(
        self,
        scope: Scope,
        *,
        after: str = "",
        limit: int = PAGE,
        search: str = "",
        **equal: str,
    ) -> Page:
        """Entries of the audit that `scope` may see, the newest first.

        `search` is a part of what was changed; `actor` and `action` may be given as well.
        """
        entry = tables.audit.c
        query = select(tables.audit).order_by(entry.seq.desc()).limit(limit + 1)
        if scope.team is not None:
            query = query.where(entry.team_id == scope.team)
        for name, value in equal.items():
            query = query.where(entry[name] == value)
        if search:
            query = query.where(entry.target.contains(search, autoescape=True))
        if after:
            if not (after.isascii() and after.isdigit() and len(after) < LONGEST_NUMBER):
                raise _bad_cursor()
            query = query.where(entry.seq < int(after))
        with self.database.read() as connection:
            rows = [as_row(row) for row in connection.execute(query).mappings()]
        for row in rows:
            row |= {name: _object(row[name]) for name in ("before", "after")}
        return Page(rows[:limit], str(rows[limit - 1]["seq"]) if len(rows) > limit else "")


def _offers(teams: Collection[str] | None, columns: Sequence[Column[Any]]) -> Select[Any]:
    """Services that a member of `teams` finds: public ones, internal ones if he is a member of any
    team, and those of his teams."""
    service = tables.service.c
    query = select(*columns, tables.team.c.name.label("team")).where(
        tables.team.c.id == service.team_id
    )
    if teams is None:
        return query
    open_to_him = ["public", "internal"] if teams else ["public"]
    return query.where(or_(service.visibility.in_(open_to_him), service.team_id.in_(teams)))


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


def _object(text: str | None) -> dict[str, Any] | None:
    """Values in the audit; who tampered with them may have written anything."""
    if text is None:
        return None
    try:
        found = orjson.loads(text)
    except ValueError:
        found = text
    return found if isinstance(found, dict) else {"unreadable": found}


def _cursor(after: str) -> tuple[str, str]:
    try:
        key, id = orjson.loads(base64.urlsafe_b64decode(after))
        if isinstance(key, str) and isinstance(id, str):
            return storable(key), storable(id)
    except (ValueError, TypeError):
        pass
    raise _bad_cursor()


def _bad_cursor() -> StoreError:
    return StoreError("invalid", "the cursor is not one that a page gave as `next`")
