"""Sessions and tokens: what stands for a user after he has logged in. Kept as hashes only.

Both are 256 random bits, so a plain SHA-256 hides them, and looking one up by it leaks nothing.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from sqlalchemy import RowMapping, and_, delete, insert, or_, select, update

from tidegate.api.console import ConsoleError
from tidegate.api.keys import new_key, well_formed
from tidegate.api.store import Actor, Entry, PlatformStore, StoreError

from . import tables

TOKEN_PREFIX: Final = "tg_pat_"  # noqa: S105, it is on every token
SHOWN: Final = len(TOKEN_PREFIX) + 5
"""Characters of a token that are kept in the clear."""
SEEN_EVERY: Final = 60.0
"""Seconds between two times at which the use of a session is written down."""
_TOKEN_SHOWN: Final = [column for column in tables.token.c if column.name != "hash"]


def hashed(secret: str) -> str:
    """What is kept of a session's or token's secret."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


@dataclass(frozen=True, slots=True)
class Opened:
    """A session that has begun: its secret, and when it ends at the latest."""

    secret: str
    expires: float


class Sessions:
    """The sessions. Every method blocks, and raises StoreError.

    `idle` and `longest`: seconds without a request, and in all, after which one has ended.
    """

    def __init__(
        self,
        store: PlatformStore,
        *,
        idle: float,
        longest: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.store = store
        self.idle, self.longest = idle, longest
        self.clock = clock

    def open(self, actor: Actor) -> Opened:
        """Begin one. Those that have ended are forgotten."""
        now, session = self.clock(), tables.session.c
        secret = secrets.token_urlsafe(32)
        opened = Opened(secret, now + self.longest)
        row = {"hash": hashed(secret), "user": actor.name, "created": now, "seen": now}
        row |= {"expires": opened.expires, "source": actor.source}
        with self.store.write() as connection:
            ended = or_(session.expires <= now, session.seen <= now - self.idle)
            connection.execute(delete(tables.session).where(ended))
            connection.execute(insert(tables.session), row)
            self.store.audit(connection, actor, Entry("log in", actor.name))
        return opened

    def user(self, secret: str) -> str | None:
        """Whose session this is; None: nobody's, or it has ended."""
        now, session, kept = self.clock(), tables.session.c, hashed(secret)
        alive = and_(session.expires > now, session.seen > now - self.idle)
        query = (
            select(session.user, session.seen)
            .join(tables.user, tables.user.c.name == session.user)
            .where(session.hash == kept, alive, tables.user.c.disabled.is_(False))
        )
        with self.store.read() as connection:
            row = connection.execute(query).first()
        if row is None:
            return None
        if now - row.seen > SEEN_EVERY:
            with suppress(StoreError), self.store.write() as connection:  # he may read all the same
                connection.execute(
                    update(tables.session).where(session.hash == kept), {"seen": now}
                )
        return str(row.user)

    def close(self, actor: Actor, secret: str) -> None:
        """End one."""
        with self.store.write() as connection:
            connection.execute(
                delete(tables.session).where(tables.session.c.hash == hashed(secret))
            )
            self.store.audit(connection, actor, Entry("log out", actor.name))


class Tokens:
    """The tokens. Every method blocks, and raises StoreError or ConsoleError."""

    def __init__(self, store: PlatformStore, clock: Callable[[], float] = time.time) -> None:
        self.store = store
        self.clock = clock

    def create(
        self, actor: Actor, user: str, name: str, scopes: Sequence[str], expires: float | None
    ) -> tuple[RowMapping, str]:
        """A new token of a user: its row, and the token itself, which is stored nowhere."""
        token, id = new_key(TOKEN_PREFIX), secrets.token_hex(8)
        row = {"id": id, "user": user, "name": name, "prefix": token[:SHOWN]}
        row |= {"hash": hashed(token), "scopes": " ".join(scopes)}
        told = {"name": name, "scopes": list(scopes), "expires": expires}
        with self.store.write() as connection:
            known = select(tables.user.c.name).where(tables.user.c.name == user)
            if connection.execute(known).first() is None:
                raise ConsoleError(404, "not_found", "There is no such user.")
            connection.execute(
                insert(tables.token), {**row, "created": round(self.clock(), 3), "expires": expires}
            )
            entry = Entry("create token", f"{user}/{token[:SHOWN]}", "", None, told)
            self.store.audit(connection, actor, entry)
            query = select(*_TOKEN_SHOWN).where(tables.token.c.id == id)
            return connection.execute(query).mappings().one(), token

    def find(self, token: str) -> tuple[str, tuple[str, ...]] | None:
        """Whose token this is, and its scopes; None: nobody's, or it has expired."""
        if not well_formed(token, TOKEN_PREFIX):
            return None
        column = tables.token.c
        alive = or_(column.expires.is_(None), column.expires > self.clock())
        query = (
            select(column.user, column.scopes)
            .join(tables.user, tables.user.c.name == column.user)
            .where(column.hash == hashed(token), alive, tables.user.c.disabled.is_(False))
        )
        with self.store.read() as connection:
            row = connection.execute(query).first()
        return (str(row.user), tuple(row.scopes.split())) if row is not None else None

    def page(
        self, user: str | None, limit: int, cursor: str, search: str
    ) -> tuple[list[RowMapping], str | None]:
        """Tokens of a user, or all, by id; and the cursor of those that follow."""
        column = tables.token.c
        query = select(*_TOKEN_SHOWN).order_by(column.id).limit(limit + 1)
        query = query.where(column.id > cursor)
        if user is not None:
            query = query.where(column.user == user)
        if search:
            query = query.where(column.name.contains(search, autoescape=True))
        with self.store.read() as connection:
            rows = list(connection.execute(query).mappings())
        return rows[:limit], rows[limit - 1]["id"] if len(rows) > limit else None

    def delete(self, actor: Actor, id: str, *, of: str | None) -> None:
        """Revoke a token, of this user where `of` names one."""
        column = tables.token.c
        with self.store.write() as connection:
            query = select(*_TOKEN_SHOWN).where(column.id == id)
            row = connection.execute(query).mappings().first()
            if row is None or (of is not None and row["user"] != of):
                raise ConsoleError(404, "not_found", "There is no such token.")
            connection.execute(delete(tables.token).where(column.id == id))
            before = {"name": row["name"], "scopes": row["scopes"].split()}
            target = f"{row['user']}/{row['prefix']}"
            self.store.audit(connection, actor, Entry("delete token", target, "", before))
