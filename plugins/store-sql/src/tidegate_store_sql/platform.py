"""The store as other plugins have it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property

from sqlalchemy import Connection, select

from tidegate.api.store import Actor, Entry, Roles

from . import audit
from .change import Change
from .compiling import compile_snapshot
from .kinds import ADMIN
from .snapshot import Compiled
from .store import Store


class Platform:
    """A `tidegate.api.store.PlatformStore`. `open` gives the store; it is called until it does."""

    def __init__(self, open: Callable[[], Store]) -> None:
        self._open = open

    @cached_property
    def store(self) -> Store:
        """The store, opened."""
        return self._open()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """See `PlatformStore.read`."""
        with self.store.database.read() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """See `PlatformStore.write`."""
        with self.store.database.write() as connection:
            yield connection

    def audit(self, connection: Connection, actor: Actor, *entries: Entry) -> None:
        """See `PlatformStore.audit`."""
        vault = self.store.vault
        change = Change(connection, actor, vault)  # it holds the lock of the chain
        audit.append(connection, vault.audit_key, change.at, actor, entries)

    def roles(self, user: str) -> Roles:
        """See `PlatformStore.roles`."""
        return self.store.roles(user)

    def snapshot(self) -> Compiled:
        """See `PlatformStore.snapshot`."""
        with self.store.database.read() as connection:
            return compile_snapshot(connection, self.store.vault)

    def make_admin(self, connection: Connection, actor: Actor, user: str) -> None:
        """See `PlatformStore.make_admin`."""
        change = Change(connection, actor, self.store.vault)
        column = ADMIN.table.c.user
        if connection.execute(select(column).where(column == user)).first() is None:
            change.create(ADMIN, {"user": user})
            change.finish()
