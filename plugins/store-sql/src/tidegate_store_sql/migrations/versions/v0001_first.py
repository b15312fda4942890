"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    _people()
    _services()
    _consumers()
    _subscriptions()
    _subscription_indexes()
    _providers()
    _records()


def _people() -> None:
    op.create_table(
        "store_sql_admin",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("user", sa.Text(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("updated", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_store_sql_admin")),
        sa.UniqueConstraint("user", name=op.f("uq_store_sql_admin_user")),
    )
    op.create_table(
        "store_sql_team",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("updated", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_store_sql_team")),
        sa.UniqueConstraint("name", name=op.f("uq_store_sql_team_name")),
    )
    op.create_table(
        "store_sql_member",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("team_id", sa.String(length=16), nullable=False),
        sa.Column("user", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("updated", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["team_id"], ["store_sql_team.id"], name=op.f("fk_store_sql_member_team_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_store_sql_member")),
        sa.UniqueConstraint("team_id", "user", name=op.f("uq_store_sql_member_team_id_user")),
    )
    op.create_index(op.f("ix_store_sql_member_user"), "store_sql_member", ["user"], unique=False)


def _services() -> None:
    op.create_table(
        "store_sql_policy",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("team_id", sa.String(length=16), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("updated", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["team_id"], ["store_sql_team.id"], name=op.f("fk_store_sql_policy_team_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_store_sql_policy")),
        sa.UniqueConstraint("team_id", "name", name=op.f("uq_store_sql_policy_team_id_name")),
    )
    op.create_table(
        "store_sql_service",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("team_id", sa.String(length=16), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("hosts", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("methods", sa.Text(), nullable=True),
        sa.Column("upstream", sa.Text(), nullable=False),
        sa.Column("strip", sa.Boolean(), nullable=False),
        sa.Column("visibility", sa.Text(), nullable=False),
        sa.Column("approval", sa.Text(), nullable=False),
        sa.Column("anonymous", sa.Boolean(), nullable=False),
        sa.Column("models", sa.Text(), nullable=True),
        sa.Column("operations", sa.Text(), nullable=True),
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("docs", sa.Text(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("updated", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["team_id"], ["store_sql_team.id"], name=op.f("fk_store_sql_service_team_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_store_sql_service")),
        sa.UniqueConstraint("team_id", "name", name=op.f("uq_store_sql_service_team_id_name")),
    )
    op.create_index(
        op.f("ix_store_sql_service_route"), "store_sql_service", ["route"], unique=False
    )


def _consumers() -> None:
    op.create_table(
        "store_sql_application",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("team_id", sa.String(length=16), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("updated", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["team_id"], ["store_sql_team.id"], name=op.f("fk_store_sql_application_team_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_store_sql_application")),
        sa.UniqueConstraint("team_id", "name", name=op.f("uq_store_sql_application_team_id_name")),
    )
    op.create_table(
        "store_sql_credential",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("team_id", sa.String(length=16), nullable=False),
        sa.Column("application_id", sa.String(length=16), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("expires", sa.Double(), nullable=True),
        sa.Column("revoked", sa.Double(), nullable=True),
        sa.Column("services", sa.Text(), nullable=True),
        sa.Column("models", sa.Text(), nullable=True),
        sa.Column("networks", sa.Text(), nullable=True),
        sa.Column("last_used", sa.Double(), nullable=True),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("updated", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["application_id"],
            ["store_sql_application.id"],
            name=op.f("fk_store_sql_credential_application_id"),
        ),
        sa.ForeignKeyConstraint(
            ["team_id"], ["store_sql_team.id"], name=op.f("fk_store_sql_credential_team_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_store_sql_credential")),
        sa.UniqueConstraint(
            "application_id", "name", name=op.f("uq_store_sql_credential_application_id_name")
        ),
        sa.UniqueConstraint("hash", name=op.f("uq_store_sql_credential_hash")),
    )
    op.create_index(
        op.f("ix_store_sql_credential_team_id"), "store_sql_credential", ["team_id"], unique=False
    )


def _subscriptions() -> None:
    op.create_table(
        "store_sql_subscription",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("team_id", sa.String(length=16), nullable=False),
        sa.Column("application_id", sa.String(length=16), nullable=False),
        sa.Column("service_id", sa.String(length=16), nullable=False),
        sa.Column("service_team_id", sa.String(length=16), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("decision", sa.Text(), nullable=False),
        sa.Column("decided_by", sa.Text(), nullable=False),
        sa.Column("decided", sa.Double(), nullable=True),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("updated", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["application_id"],
            ["store_sql_application.id"],
            name=op.f("fk_store_sql_subscription_application_id"),
        ),
        sa.ForeignKeyConstraint(
            ["service_id"],
            ["store_sql_service.id"],
            name=op.f("fk_store_sql_subscription_service_id"),
        ),
        sa.ForeignKeyConstraint(
            ["service_team_id"],
            ["store_sql_team.id"],
            name=op.f("fk_store_sql_subscription_service_team_id"),
        ),
        sa.ForeignKeyConstraint(
            ["team_id"], ["store_sql_team.id"], name=op.f("fk_store_sql_subscription_team_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_store_sql_subscription")),
        sa.UniqueConstraint(
            "application_id",
            "service_id",
            name=op.f("uq_store_sql_subscription_application_id_service_id"),
        ),
    )


def _subscription_indexes() -> None:
    op.create_index(
        op.f("ix_store_sql_subscription_service_id"),
        "store_sql_subscription",
        ["service_id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_store_sql_subscription_service_team_id"),
        "store_sql_subscription",
        ["service_team_id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_store_sql_subscription_team_id"),
        "store_sql_subscription",
        ["team_id"],
        unique=False,
    )


def _providers() -> None:
    op.create_table(
        "store_sql_provider",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("team_id", sa.String(length=16), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("models", sa.Text(), nullable=True),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("updated", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["team_id"], ["store_sql_team.id"], name=op.f("fk_store_sql_provider_team_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_store_sql_provider")),
        sa.UniqueConstraint("team_id", "name", name=op.f("uq_store_sql_provider_team_id_name")),
    )
    op.create_table(
        "store_sql_provider_key",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("team_id", sa.String(length=16), nullable=False),
        sa.Column("provider_id", sa.String(length=16), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("sealed", sa.Text(), nullable=True),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("updated", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["provider_id"],
            ["store_sql_provider.id"],
            name=op.f("fk_store_sql_provider_key_provider_id"),
        ),
        sa.ForeignKeyConstraint(
            ["team_id"], ["store_sql_team.id"], name=op.f("fk_store_sql_provider_key_team_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_store_sql_provider_key")),
        sa.UniqueConstraint(
            "provider_id", "name", name=op.f("uq_store_sql_provider_key_provider_id_name")
        ),
    )
    op.create_index(
        op.f("ix_store_sql_provider_key_team_id"),
        "store_sql_provider_key",
        ["team_id"],
        unique=False,
    )


def _records() -> None:
    op.create_table(
        "store_sql_audit",
        sa.Column(
            "seq",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=False,
            nullable=False,
        ),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("team_id", sa.String(length=16), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("before", sa.Text(), nullable=True),
        sa.Column("after", sa.Text(), nullable=True),
        sa.Column("previous", sa.String(length=64), nullable=False),
        sa.Column("mac", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_store_sql_audit")),
    )
    op.create_index(
        op.f("ix_store_sql_audit_team_id"), "store_sql_audit", ["team_id"], unique=False
    )
    op.create_table(
        "store_sql_state",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_store_sql_state")),
    )
    op.create_table(
        "store_sql_vault",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("sealed", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_store_sql_vault")),
    )
