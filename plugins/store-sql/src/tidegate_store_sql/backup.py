"""Backups: one format for SQLite and PostgreSQL, so that one can be restored into the other.

Gzip of lines of JSON: a head that names the schemas, `["table", "store_sql_team"]` before the rows
of a table, each a line, and an end that counts them, without which the file is not whole. Secrets
are in it as in the database: sealed under the master key, which is not. The tables of every plugin
are in it, of those that are switched off as well.
"""

from __future__ import annotations

import gzip
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, cast

import orjson
from sqlalchemy import Connection, MetaData, Table, inspect, select, update

from . import schema
from .errors import StoreError
from .schema import OWN, Schema
from .tables import state

FORMAT: Final = "tidegate-store-sql"
KEPT: Final = 10
"""Automatic backups that are kept; the oldest go first."""
CHUNK: Final = 1000


def backup(connection: Connection, path: Path) -> int:
    """Write all rows to `path`, 0600, whole or not at all; how many there were."""
    if OWN.current(connection) is None:
        raise StoreError("schema_outdated", "there is nothing to back up yet")
    parts = _parts(connection)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    count = 0
    try:
        with os.fdopen(handle, "wb") as raw:
            with gzip.open(raw, "wb", compresslevel=3) as file:
                head = {"format": FORMAT, "schemas": _versions(connection, parts)}
                file.write(orjson.dumps(head | {"at": round(time.time(), 3)}) + b"\n")
                for table in (table for tables in parts.values() for table in tables):
                    file.write(orjson.dumps(["table", table.name]) + b"\n")
                    for row in connection.execute(select(table)).mappings():
                        values = {str(name): value for name, value in row.items()}
                        file.write(orjson.dumps(values) + b"\n")
                        count += 1
                file.write(orjson.dumps(["end", count]) + b"\n")
            raw.flush()
            os.fsync(raw.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return count


def backup_before(connection: Connection, folder: Path) -> Path:
    """The backup made before a migration; the oldest of them are removed."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    path = folder / f"{stamp}-schema-{OWN.current(connection)}.jsonl.gz"
    backup(connection, path)
    for old in sorted(folder.glob("*-schema-*.jsonl.gz"))[:-KEPT]:
        old.unlink()
    return path


def restore(connection: Connection, path: Path, schemas: Sequence[Schema]) -> int:
    """Put what `path` holds in the place of all rows; how many they are.

    The caller's transaction commits it, or does nothing. The schemas are then this program's, and
    the revision higher than any before, so that workers take it up.
    """
    lines = _read(path)
    head = next(lines)
    if not isinstance(head, dict) or head.get("format") != FORMAT:
        raise StoreError("backup_invalid", f"{path} is not a backup of a store")
    wanted = _wanted(head, path, schemas)
    schema.lock(connection)
    before = 0
    if OWN.current(connection) is not None:
        before = connection.execute(select(state.c.revision)).scalar_one()
    _drop(connection)
    for one, version in wanted.items():
        one.migrate(connection, version)
    count = _insert(connection, lines, path)
    schema.upgrade(connection, schemas)
    after = max(before, connection.execute(select(state.c.revision)).scalar_one()) + 1
    for table in _parts(connection)[OWN.prefix]:
        if "revision" in table.c:  # the one of the store, and of each row: all of it is new
            connection.execute(update(table).values(revision=after))
    return count


def _wanted(head: dict[str, Any], path: Path, schemas: Sequence[Schema]) -> dict[Schema, str]:
    """The schemas that a backup needs."""
    known = {one.prefix: one for one in schemas}
    wanted = {}
    for prefix, version in head["schemas"].items():
        if prefix not in known:
            raise StoreError(
                "backup_invalid",
                f"{path} holds tables of another addon ({prefix}…): switch it on first",
            )
        if version not in known[prefix].versions:
            raise StoreError(
                "schema_newer", f"{path} has schema {version}: a newer program wrote it"
            )
        wanted[known[prefix]] = version
    return wanted


def _drop(connection: Connection) -> None:
    for prefix, tables in _parts(connection).items():
        for table in reversed(tables):
            table.drop(connection)
        Table(f"{prefix}version", MetaData()).drop(connection)


def _parts(connection: Connection) -> dict[str, list[Table]]:
    """The tables that are in the database, by the prefix of whose they are.

    Those that others refer to come first. A plugin shows by its table of versions.
    """
    names = inspect(connection).get_table_names()
    prefixes = sorted(
        (name.removesuffix("version") for name in names if name.endswith("_version")),
        key=lambda prefix: (prefix != OWN.prefix, prefix),
    )
    found = MetaData()
    found.reflect(connection, only=[n for n in names if n.startswith(tuple(prefixes))])
    parts: dict[str, list[Table]] = {prefix: [] for prefix in prefixes}
    for table in found.sorted_tables:
        prefix = max((p for p in prefixes if table.name.startswith(p)), key=len)
        if table.name != f"{prefix}version":
            parts[prefix].append(table)
    return parts


def _versions(connection: Connection, parts: Iterable[str]) -> dict[str, str | None]:
    return {prefix: schema.version_in(connection, f"{prefix}version") for prefix in parts}


def _read(path: Path) -> Iterator[Any]:
    try:
        with gzip.open(path, "rb") as file:
            for line in file:
                yield orjson.loads(line)
    except FileNotFoundError:
        raise StoreError("backup_invalid", f"{path} is not there") from None
    except (EOFError, ValueError, OSError) as error:
        raise StoreError("backup_invalid", f"{path} can't be read: {error}") from None


def _insert(connection: Connection, lines: Iterator[Any], path: Path) -> int:
    tables = {table.name: table for part in _parts(connection).values() for table in part}
    for table in reversed(list(tables.values())):
        connection.execute(table.delete())
    into: Table | None = None
    rows: list[dict[str, Any]] = []
    count, promised = 0, -1

    def flush() -> None:
        if into is not None and rows:
            connection.execute(into.insert(), rows)
        rows.clear()

    for line in lines:
        if isinstance(line, dict):
            rows.append(line)
            count += 1
            if len(rows) >= CHUNK:
                flush()
            continue
        flush()
        if line[0] == "table" and line[1] in tables:
            into = tables[cast(str, line[1])]
        elif line[0] == "end":
            promised = line[1]
    if promised != count:
        raise StoreError("backup_invalid", f"{path} is not whole: {count} rows of {promised}")
    return count
