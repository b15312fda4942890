"""The tables. Every row of a team's says whose it is: `team_id`.

Times are Unix seconds; lists are JSON in a text column, NULL where nothing is said. Both are the
same in SQLite and in PostgreSQL, so that a backup of one can be restored into the other.
"""

from __future__ import annotations

from typing import Any, Final

import orjson
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

PREFIX: Final = "store_sql_"

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class Json(TypeDecorator[Any]):
    """A JSON value in a text column; None is NULL."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else orjson.dumps(value).decode()

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        return None if value is None else orjson.loads(value)


def _id() -> Column[str]:
    return Column("id", String(16), primary_key=True)


def _ref(name: str, table: str) -> Column[str]:
    return Column(name, String(16), ForeignKey(f"{PREFIX}{table}.id"), nullable=False)


def _stamps() -> list[Column[Any]]:
    return [
        Column("revision", BigInteger, nullable=False),
        Column("created", Double, nullable=False),
        Column("updated", Double, nullable=False),
    ]


def _text(name: str, *, index: bool = False) -> Column[str]:
    return Column(name, Text, nullable=False, index=index)


def _table(name: str, *parts: Any) -> Table:
    return Table(PREFIX + name, metadata, *parts)


team = _table("team", _id(), _text("name"), _text("title"), *_stamps(), UniqueConstraint("name"))

admin = _table("admin", _id(), _text("user"), *_stamps(), UniqueConstraint("user"))

member = _table(
    "member",
    _id(),
    _ref("team_id", "team"),
    _text("user", index=True),
    _text("role"),
    *_stamps(),
    UniqueConstraint("team_id", "user"),
)

service = _table(
    "service",
    _id(),
    _ref("team_id", "team"),
    _text("name"),
    _text("title"),
    _text("kind"),
    Column("hosts", Json, nullable=False),
    _text("path"),
    _text("route", index=True),
    Column("methods", Json),
    _text("upstream"),
    Column("strip", Boolean, nullable=False),
    _text("visibility"),
    _text("approval"),
    Column("anonymous", Boolean, nullable=False),
    Column("models", Json),
    Column("operations", Json),
    _text("policy"),
    _text("docs"),
    *_stamps(),
    UniqueConstraint("team_id", "name"),
)

application = _table(
    "application",
    _id(),
    _ref("team_id", "team"),
    _text("name"),
    _text("title"),
    *_stamps(),
    UniqueConstraint("team_id", "name"),
)

credential = _table(
    "credential",
    _id(),
    _ref("team_id", "team"),
    _ref("application_id", "application"),
    _text("name"),
    _text("prefix"),
    Column("hash", String(64), nullable=False),
    Column("expires", Double),
    Column("revoked", Double),
    Column("services", Json),
    Column("models", Json),
    Column("networks", Json),
    Column("last_used", Double),
    *_stamps(),
    UniqueConstraint("application_id", "name"),
    UniqueConstraint("hash"),
    Index(None, "team_id"),
)

subscription = _table(
    "subscription",
    _id(),
    _ref("team_id", "team"),
    _ref("application_id", "application"),
    _ref("service_id", "service"),
    _ref("service_team_id", "team"),
    _text("status"),
    _text("reason"),
    _text("decision"),
    _text("decided_by"),
    Column("decided", Double),
    *_stamps(),
    UniqueConstraint("application_id", "service_id"),
    Index(None, "team_id"),
    Index(None, "service_team_id"),
    Index(None, "service_id"),
)

provider = _table(
    "provider",
    _id(),
    _ref("team_id", "team"),
    _text("name"),
    _text("kind"),
    _text("url"),
    Column("models", Json),
    *_stamps(),
    UniqueConstraint("team_id", "name"),
)

provider_key = _table(
    "provider_key",
    _id(),
    _ref("team_id", "team"),
    _ref("provider_id", "provider"),
    _text("name"),
    Column("sealed", Text),
    *_stamps(),
    UniqueConstraint("provider_id", "name"),
    Index(None, "team_id"),
)

policy = _table(
    "policy",
    _id(),
    _ref("team_id", "team"),
    _text("name"),
    _text("title"),
    _text("text"),
    Column("services", Json),
    *_stamps(),
    UniqueConstraint("team_id", "name"),
)

audit = _table(
    "audit",
    Column(
        "seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False
    ),
    Column("at", Double, nullable=False),
    _text("actor"),
    _text("source"),
    _text("request_id"),
    Column("team_id", String(16), nullable=False, index=True),
    _text("action"),
    _text("target"),
    Column("before", Text),
    Column("after", Text),
    Column("previous", String(64), nullable=False),
    Column("mac", String(64), nullable=False),
)
"""Not bound to its team by a foreign key: it outlives it."""

state = _table(
    "state",
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("revision", BigInteger, nullable=False),
)
"""One row: the number of the last change. Who changes anything locks it first."""

vault = _table("vault", Column("name", String(32), primary_key=True), _text("sealed"))
"""The pepper of keys and the key of the audit chain, sealed under the master key."""
