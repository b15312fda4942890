"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "console_api_user",
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("password", sa.Text(), nullable=False),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("updated", sa.Double(), nullable=False),
    )
    op.create_table(
        "console_api_session",
        sa.Column("hash", sa.String(64), primary_key=True),
        sa.Column("user", sa.Text(), sa.ForeignKey("console_api_user.name"), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("seen", sa.Double(), nullable=False),
        sa.Column("expires", sa.Double(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
    )
    op.create_index("ix_console_api_session_user", "console_api_session", ["user"])
    op.create_table(
        "console_api_token",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("user", sa.Text(), sa.ForeignKey("console_api_user.name"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("expires", sa.Double()),
    )
    op.create_index("ix_console_api_token_user", "console_api_token", ["user"])
    op.create_index("uq_console_api_token_hash", "console_api_token", ["hash"], unique=True)
