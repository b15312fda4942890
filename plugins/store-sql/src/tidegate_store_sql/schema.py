"""The schemas: of the store itself and of each plugin with tables beside it.

Which one the database has, and how it becomes the one of this program.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, column, insert, inspect, select, table, text

from tidegate.api.store import Migrations

from .errors import StoreError
from .tables import PREFIX, state

ENVIRONMENT: Final = Path(__file__).with_name("migrations")
"""Alembic's environment, in which the revisions of every plugin run."""
_FILE: Final = re.compile(r"v(\w+?)_\w+\.py")
_LOCK: Final = 0x7469_6465  # any number: PostgreSQL's advisory locks have no names


class Schema:
    """The tables of one plugin."""

    def __init__(self, migrations: Migrations) -> None:
        self.prefix = migrations.prefix
        self.folder = migrations.folder
        self.version_table = f"{self.prefix}version"

    @cached_property
    def versions(self) -> tuple[str, ...]:
        """All schemas, the oldest first. From the names of files: Alembic takes half a second."""
        found = (_FILE.fullmatch(path.name) for path in self.folder.glob("v*.py"))
        return tuple(sorted(match[1] for match in found if match))

    @property
    def head(self) -> str:
        """The schema of this program."""
        return self.versions[-1]

    @property
    def name(self) -> str:
        """The plugin's name."""
        return self.prefix.removesuffix("_").replace("_", "-")

    def current(self, connection: Connection) -> str | None:
        """The schema of the database; None: it has none. Raises `schema_newer`."""
        if not inspect(connection).has_table(self.version_table):
            return None
        version = version_in(connection, self.version_table)
        if version is not None and version not in self.versions:
            raise StoreError(
                "schema_newer",
                f"the database has schema {version} of {self.name}, this program knows up to"
                f" {self.head}: a newer program wrote it. Run that one, or restore a backup made"
                " before",
            )
        return version

    def require(self, connection: Connection) -> None:
        """Refuse a database whose schema is not this program's. Raises StoreError."""
        if self.current(connection) != self.head:
            raise StoreError("schema_outdated", "the schema is not up to date: tidegate db upgrade")

    def migrate(self, connection: Connection, to: str) -> None:
        """Bring the tables to schema `to`, within the caller's transaction."""
        from alembic import command  # half a second of imports that a start does without
        from alembic.config import Config

        config = Config(stdout=io.StringIO())
        config.set_main_option("script_location", _option(ENVIRONMENT))
        config.set_main_option("version_locations", _option(self.folder))
        config.set_main_option("path_separator", "newline")
        config.attributes["connection"] = connection
        config.attributes["version_table"] = self.version_table
        command.upgrade(config, to)


OWN: Final = Schema(Migrations(PREFIX, ENVIRONMENT / "versions"))
"""The store's own."""


def upgrade(
    connection: Connection,
    schemas: Sequence[Schema],
    *,
    backup: Callable[[Connection], None] | None = None,
) -> None:
    """Bring the database to the schemas of this program, within the caller's transaction.

    `backup` is called before a database that has something in it is migrated.
    """
    lock(connection)
    versions = {schema: schema.current(connection) for schema in schemas}
    behind = [schema for schema, version in versions.items() if version != schema.head]
    if behind and backup is not None and OWN.current(connection) is not None:
        backup(connection)
    for schema in behind:
        schema.migrate(connection, schema.head)
    if connection.execute(select(state.c.id)).first() is None:
        connection.execute(insert(state).values(id=1, revision=0))


def lock(connection: Connection) -> None:
    """Wait for whoever migrates; SQLite lets one write at a time anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))


def version_in(connection: Connection, version_table: str) -> str | None:
    """The revision that a table of Alembic's notes."""
    noted = table(version_table, column("version_num"))
    version: str | None = connection.execute(select(noted.c.version_num)).scalar()
    return version


def _option(path: Path) -> str:
    return str(path).replace("%", "%%")
