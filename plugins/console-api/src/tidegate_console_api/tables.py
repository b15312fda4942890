"""The tables of accounts. Times are Unix seconds; secrets are there as hashes only."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    MetaData,
    String,
    Table,
    Text,
)

PREFIX: Final = "console_api_"

metadata = MetaData()


def _text(name: str) -> Column[str]:
    return Column(name, Text, nullable=False)


def _of_user() -> Column[Any]:
    return Column("user", Text, ForeignKey(f"{PREFIX}user.name"), nullable=False)


user = Table(
    f"{PREFIX}user",
    metadata,
    Column("name", Text, primary_key=True),
    _text("title"),
    _text("password"),
    Column("disabled", Boolean, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("created", Double, nullable=False),
    Column("updated", Double, nullable=False),
)

session = Table(
    f"{PREFIX}session",
    metadata,
    Column("hash", String(64), primary_key=True),
    _of_user(),
    Column("created", Double, nullable=False),
    Column("seen", Double, nullable=False),
    Column("expires", Double, nullable=False),
    _text("source"),
    Index(f"ix_{PREFIX}session_user", "user"),
)

token = Table(
    f"{PREFIX}token",
    metadata,
    Column("id", String(16), primary_key=True),
    _of_user(),
    _text("name"),
    _text("prefix"),
    Column("hash", String(64), nullable=False),
    _text("scopes"),
    Column("created", Double, nullable=False),
    Column("expires", Double),
    Index(f"ix_{PREFIX}token_user", "user"),
    Index(f"uq_{PREFIX}token_hash", "hash", unique=True),
)
"""`scopes`: with spaces between them."""
