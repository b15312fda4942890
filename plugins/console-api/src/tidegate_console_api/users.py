"""Users: who can log in. What one may do is in the store, under his name: members and admins."""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Callable
from typing import Annotated, Any, Final

from pydantic import StringConstraints
from sqlalchemy import Connection, RowMapping, delete, func, insert, select, update

from tidegate.api.console import ConsoleError
from tidegate.api.store import Actor, Entry, PlatformStore

from . import tables
from .passwords import LONGEST, SHORTEST, hash_password, new_password, verify

UserName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._+@-]{1,254}$")]
Password = Annotated[str, StringConstraints(min_length=SHORTEST, max_length=LONGEST)]
Given = Annotated[str, StringConstraints(max_length=LONGEST)]
"""A password that someone claims to be his."""

_USER: Final = tables.user
_SHOWN: Final = [column for column in _USER.c if column.name != "password"]


class Users:
    """The accounts. Every method blocks, and raises StoreError or ConsoleError."""

    def __init__(self, store: PlatformStore, clock: Callable[[], float] = time.time) -> None:
        self.store = store
        self.clock = clock

    def first(self, name: str, password: str | None) -> str | None:
        """Where there is no user yet: make one who administers the platform.

        Returns his password; None where there are users.
        """
        with self.store.read() as connection:
            if connection.execute(select(_USER.c.name)).first() is not None:
                return None
        password = password or new_password()
        kept, actor = hash_password(password), Actor("bootstrap")
        with self.store.write() as connection:
            if connection.execute(select(_USER.c.name)).first() is not None:
                return None
            self._insert(connection, actor, name, "", kept)
            self.store.make_admin(connection, actor, name)
        return password

    def page(self, limit: int, cursor: str, search: str) -> tuple[list[RowMapping], str | None]:
        """Users by name, and the cursor of those that follow."""
        query = select(*_SHOWN).order_by(_USER.c.name).limit(limit + 1)
        if cursor:
            query = query.where(_USER.c.name > _decoded(cursor))
        if search:
            lower = func.lower(_USER.c.name)
            query = query.where(lower.contains(search.lower(), autoescape=True))
        with self.store.read() as connection:
            rows = list(connection.execute(query).mappings())
        more = len(rows) > limit
        return rows[:limit], _encoded(rows[limit - 1]["name"]) if more else None

    def get(self, name: str) -> RowMapping:
        """A user, without his password."""
        with self.store.read() as connection:
            return self._fetch(connection, name, lock=False)

    def create(
        self, actor: Actor, name: str, title: str, password: str | None
    ) -> tuple[RowMapping, str | None]:
        """A new user, and his password if it was made here."""
        made = None if password else new_password()
        kept = hash_password(password or made or "")
        with self.store.write() as connection:
            if connection.execute(select(_USER.c.name).where(_USER.c.name == name)).first():
                raise ConsoleError(409, "already_exists", "There is a user of this name.")
            self._insert(connection, actor, name, title, kept)
            return self._fetch(connection, name), made

    def update(
        self, actor: Actor, name: str, title: str, disabled: bool, seen: int | None
    ) -> RowMapping:
        """Change a user. One who is disabled has no session any more."""
        with self.store.write() as connection:
            row = self._fetch(connection, name, seen)
            if disabled and actor.name == name:
                raise ConsoleError(409, "is_yourself", "Nobody disables himself.")
            before = {"title": row["title"], "disabled": row["disabled"]}
            after = {"title": title, "disabled": disabled}
            if before == after:
                return row
            self._change(connection, name, row, after)
            if disabled:
                _end_sessions(connection, name)
            self.store.audit(connection, actor, Entry("update user", name, "", before, after))
            return self._fetch(connection, name)

    def delete(self, actor: Actor, name: str, seen: int | None) -> None:
        """Remove a user, his sessions and his tokens."""
        with self.store.write() as connection:
            row = self._fetch(connection, name, seen)
            if actor.name == name:
                raise ConsoleError(409, "is_yourself", "Nobody removes himself.")
            _end_sessions(connection, name)
            connection.execute(delete(tables.token).where(tables.token.c.user == name))
            connection.execute(delete(_USER).where(_USER.c.name == name))
            before = {"title": row["title"], "disabled": row["disabled"]}
            self.store.audit(connection, actor, Entry("delete user", name, "", before))

    def reset_password(self, actor: Actor, name: str, password: str | None = None) -> str:
        """Give a user a new password, which is returned, and end his sessions."""
        password = password or new_password()
        self._set_password(actor, name, hash_password(password), "")
        return password

    def rescue(self, actor: Actor, name: str) -> str:
        """Make sure that this user is there, enabled, and administers the platform; his new
        password."""
        password = new_password()
        kept = hash_password(password)
        with self.store.write() as connection:
            if connection.execute(select(_USER.c.name).where(_USER.c.name == name)).first() is None:
                self._insert(connection, actor, name, "", kept)
            else:
                row = self._fetch(connection, name)
                self._change(connection, name, row, {"password": kept, "disabled": False})
                _end_sessions(connection, name)
                self.store.audit(connection, actor, Entry("change password", name))
            self.store.make_admin(connection, actor, name)
        return password

    def change_password(self, actor: Actor, current: str, new: str, session: str) -> bool:
        """Change the actor's own, and end all his sessions but the one with this hash.

        False: `current` is wrong.
        """
        if not verify(self.password_of(actor.name), current):
            return False
        self._set_password(actor, actor.name, hash_password(new), session)
        return True

    def password_of(self, name: str) -> str | None:
        """What is kept of the password of a user who may log in; None: there is none."""
        query = select(_USER.c.password).where(_USER.c.name == name, _USER.c.disabled.is_(False))
        with self.store.read() as connection:
            found: str | None = connection.execute(query).scalar()
            return found

    # -- within a transaction -----------------------------------------------------------------

    def _set_password(self, actor: Actor, name: str, kept: str, session: str) -> None:
        with self.store.write() as connection:
            row = self._fetch(connection, name)
            self._change(connection, name, row, {"password": kept})
            _end_sessions(connection, name, besides=session)
            self.store.audit(connection, actor, Entry("change password", name))

    def _insert(
        self, connection: Connection, actor: Actor, name: str, title: str, kept: str
    ) -> None:
        now = round(self.clock(), 3)
        row = {"name": name, "title": title, "password": kept, "disabled": False}
        connection.execute(insert(_USER), row | {"revision": 1, "created": now, "updated": now})
        self.store.audit(connection, actor, Entry("create user", name, "", None, {"title": title}))

    def _change(
        self, connection: Connection, name: str, row: RowMapping, values: dict[str, Any]
    ) -> None:
        stamps = {"revision": row["revision"] + 1, "updated": round(self.clock(), 3)}
        connection.execute(update(_USER).where(_USER.c.name == name), values | stamps)

    def _fetch(
        self, connection: Connection, name: str, seen: int | None = None, *, lock: bool = True
    ) -> RowMapping:
        query = select(*_SHOWN).where(_USER.c.name == name)
        if lock:  # nobody changes it until this transaction ends
            query = query.with_for_update()
        row = connection.execute(query).mappings().first()
        if row is None:
            raise ConsoleError(404, "not_found", "There is no such user.")
        if seen is not None and row["revision"] != seen:
            raise ConsoleError(412, "revision_conflict", "The user was changed since.")
        return row


def _end_sessions(connection: Connection, name: str, besides: str = "") -> None:
    session = tables.session.c
    connection.execute(delete(tables.session).where(session.user == name, session.hash != besides))


def _encoded(name: str) -> str:
    return base64.urlsafe_b64encode(name.encode()).decode()


def _decoded(cursor: str) -> str:
    try:
        return base64.urlsafe_b64decode(cursor).decode().replace("\0", "")
    except (binascii.Error, UnicodeDecodeError):
        raise ConsoleError(422, "invalid", "`cursor` is not what a page gave as `next`.") from None
