"""The connection to SQLite or PostgreSQL: how it is opened, and transactions to read and write."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    ProgrammingError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout

from .errors import StoreError

BUSY: Final = 5.0
"""Seconds that a command waits for another's to end before it is `storage_unavailable`."""


class Database:
    """One database. Threads may share it; a worker's loop must not wait for it."""

    def __init__(self, url: str) -> None:
        try:
            parsed = make_url(url)
        except ArgumentError:
            raise StoreError("invalid", "`url` is not a database URL") from None
        self.sqlite = parsed.get_backend_name() == "sqlite"
        self.file = Path(parsed.database) if self.sqlite and parsed.database else None
        if not self.sqlite and parsed.drivername != "postgresql+psycopg":
            raise StoreError("invalid", '`url` starts with "sqlite:///" or "postgresql+psycopg://"')
        if self.sqlite and self.file is None:
            raise StoreError("invalid", "a database in memory is no memory: name a file")
        arguments: dict[str, Any] = (
            {"timeout": BUSY, "check_same_thread": False}
            if self.sqlite
            else {
                "connect_timeout": int(BUSY),
                "options": f"{parsed.query.get('options', '')} -c lock_timeout={int(BUSY * 1000)}",
                "application_name": "tidegate",
                "keepalives_idle": 5,  # one that is gone without a word is noticed in 20 s
                "keepalives_interval": 5,
                "keepalives_count": 3,
                "tcp_user_timeout": 20_000,
            }
        )
        try:
            self.engine = create_engine(
                parsed,
                connect_args=arguments,
                pool_size=2,
                max_overflow=8,
                pool_timeout=BUSY,
                pool_pre_ping=not self.sqlite,
                hide_parameters=True,
            )
        except ModuleNotFoundError:
            raise StoreError(
                "invalid", 'PostgreSQL needs psycopg: install "tidegate-store-sql[postgresql]"'
            ) from None
        if self.sqlite:
            _prepare_sqlite(self.engine)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees one state of the database throughout."""
        level = "SERIALIZABLE" if self.sqlite else "REPEATABLE READ"
        with told(), self.engine.connect() as connection:
            if not self.sqlite:
                connection = connection.execution_options(isolation_level=level)
            with connection.begin():
                yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that commits at the end of the block, or does nothing at all."""
        with told(), self.engine.connect() as connection:
            connection = connection.execution_options(write=True)
            with connection.begin():
                yield connection

    def make_private(self) -> None:
        """SQLite: make the file, 0600, and its folder; nothing elsewhere."""
        if self.file is None:
            return
        with told():
            self.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(self.file, os.O_RDWR | os.O_CREAT, 0o600))
            self.file.chmod(0o600)

    def close(self) -> None:
        """Give the connections back."""
        self.engine.dispose()


@contextmanager
def told() -> Iterator[None]:
    """A database that can't be had becomes `storage_unavailable`; its own text holds no values."""
    try:
        yield
    except DataError as error:
        raise StoreError("invalid", "a value is not one that the database holds") from error
    except (IntegrityError, ProgrammingError):
        raise
    except (DBAPIError, PoolTimeout) as error:
        origin = error.orig if isinstance(error, DBAPIError) else error
        text = str(origin).strip().partition("\n")[0]
        raise StoreError("storage_unavailable", f"the store can't be used: {text}") from error
    except OSError as error:
        raise StoreError(
            "storage_unavailable", f"the store can't be used: {error.filename}: {error.strerror}"
        ) from error


def _prepare_sqlite(engine: Engine) -> None:
    """WAL, foreign keys, and transactions that are ours to begin.

    The driver would begin one at the first write only, and then fail at once where another
    writes: one that means to write says so at its beginning, and waits its turn.
    """

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        write = connection.get_execution_options().get("write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
