"""The platform's store, for plugins that keep something in it.

A plugin may have tables of its own beside the store's: in the same database, changed in one
transaction with an entry of the audit, in the same backups. `AddonContext.platform_store()` gives
the store wherever a plugin runs: in `bootstrap`, in commands, in the console, in a worker. What is
here blocks: call it in a thread where there is a loop.

>>> store = self.context.platform_store()
>>> with store.write() as connection:
...     connection.execute(insert(tables.token).values(user="ada", name="ci"))
...     store.audit(connection, Actor("ada", "192.0.2.7"), Entry("create token", "ada/ci"))

The tables are made by Alembic revisions, in the folder that `Plugin.migrations` names:

>>> class ConsoleApi(Plugin):
...     migrations = Migrations("console_api_", Path(__file__).with_name("migrations"))

It has a file for each revision, in a line: `v0001_first.py`, `v0002_….py`, with
`revision = "0002"`, `down_revision = "0001"` (None in the first) and `def upgrade()`. A node
upgrades at its start, after a backup, and refuses a schema that is newer than the program.
Columns hold what JSON can: backups are lines of JSON, the same for SQLite and PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from .platform import Snapshot

type Role = Literal["viewer", "developer", "admin", "owner"]
"""What a member may do in his team. Each may do all that those before it may."""


class StoreError(Exception):
    """What the store says no with, or why it can't be used. Nothing was stored.

    Attributes:
        code: stable, such as "storage_unavailable" or "already_exists".
        status: what it is in an HTTP API.
    """

    def __init__(self, code: str, message: str, status: int) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


@dataclass(frozen=True, slots=True)
class Migrations:
    """How a plugin's own tables are made.

    Attributes:
        prefix: of the names of all its tables, `<kind>_<what>_` after the plugin;
            `<prefix>version` is the table in which Alembic notes the revision.
        folder: of the revisions.
    """

    prefix: str
    folder: Path


@dataclass(frozen=True, slots=True)
class Actor:
    """Who changes something, and from where.

    Attributes:
        name: a user, or what acts for one (`cli:root`).
        source: an address, or the host of a command.
        request_id: of the request to the admin API; "" elsewhere.
    """

    name: str
    source: str = ""
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One change, for the audit. No secret may stand in it.

    Attributes:
        action: create, update or delete and a kind (`create token`), or another verb.
        target: what was changed, as people call it.
        team_id: of the team that may read of it; "": platform administrators only.
        before: the values that were changed, as they were; None where there was nothing.
        after: the same values as they are; None where there is nothing.
    """

    action: str
    target: str
    team_id: str = ""
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Roles:
    """What a user is.

    Attributes:
        admin: whether he administers the platform.
        teams: his role by the id of the team.
    """

    admin: bool = False
    teams: Mapping[str, Role] = field(default_factory=dict)


class PlatformStore(Protocol):
    """The store. Every method raises StoreError: `storage_unavailable` where it can't be had.

    It is opened, and its schema upgraded, when it is first used.
    """

    def read(self) -> AbstractContextManager[Connection]:
        """A transaction that sees one state of the database throughout."""

    def write(self) -> AbstractContextManager[Connection]:
        """A transaction that commits at the end of the block; none of it is stored if that raises.

        On SQLite all that write come one after the other: keep it short.
        """

    def audit(self, connection: Connection, actor: Actor, *entries: Entry) -> None:
        """Add to the audit within a transaction of `write`: both are stored, or neither."""

    def roles(self, user: str) -> Roles:
        """What a user is now."""

    def snapshot(self) -> Snapshot:
        """The platform as it is stored now: for verbs. Exchanges have theirs (`SNAPSHOT`)."""

    def make_admin(self, connection: Connection, actor: Actor, user: str) -> None:
        """Make a user a platform administrator, if he is none, within a transaction of `write`."""
