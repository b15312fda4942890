"""The schema: which one the database has, and how it becomes the one of this program."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, column, insert, inspect, select, table, text

from .errors import StoreError
from .tables import PREFIX, state

HEAD: Final = "0001"
"""The schema of this program: the newest file in `migrations/versions`."""
VERSIONS: Final = ("0001",)
"""All schemas, the oldest first."""
MIGRATIONS: Final = Path(__file__).with_name("migrations")
VERSION_TABLE: Final = f"{PREFIX}version"
_VERSIONS: Final = table(VERSION_TABLE, column("version_num"))
_LOCK: Final = 0x7469_6465  # any number: PostgreSQL's advisory locks have no names


def current(connection: Connection) -> str | None:
    """The schema of the database; None: it has none of ours. Raises `schema_newer`."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    version = connection.execute(select(column("version_num")).select_from(_VERSIONS)).scalar()
    if version is not None and version not in VERSIONS:
        raise StoreError(
            "schema_newer",
            f"the database has schema {version}, this program knows up to {HEAD}: a newer program"
            " wrote it. Run that one, or restore a backup made before",
        )
    return version


def require(connection: Connection) -> None:
    """Refuse a database whose schema is not this program's. Raises StoreError."""
    if current(connection) != HEAD:
        raise StoreError("schema_outdated", "the schema is not up to date: tidegate db upgrade")


def upgrade(
    connection: Connection,
    to: str | None = None,
    *,
    backup: Callable[[Connection], None] | None = None,
) -> bool:
    """Bring the database to schema `to`, within the caller's transaction; False: it was there.

    `backup` is called before a database that has something in it is migrated.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
    to = to or HEAD
    before = current(connection)
    if before == to:
        return False
    if before is not None and backup is not None:
        backup(connection)
    from alembic import command  # half a second of imports that a start does without
    from alembic.config import Config

    config = Config(stdout=io.StringIO())
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, to)
    if connection.execute(select(state.c.id)).first() is None:
        connection.execute(insert(state).values(id=1, revision=0))
    return True
