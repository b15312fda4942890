"""Policies are asked of exchanges: of which services, and an expression as their text."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from tidegate.api.expression import Expression, ExpressionError

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Until now a policy was a note: it stays in force nowhere until someone says where."""
    op.add_column("store_sql_policy", sa.Column("services", sa.Text(), nullable=True))
    policy = sa.table("store_sql_policy", sa.column("id"), sa.column("text"), sa.column("services"))
    connection = op.get_bind()
    connection.execute(sa.update(policy).values(services="[]"))
    for id, text in connection.execute(sa.select(policy.c.id, policy.c.text)).all():
        row = sa.update(policy).where(policy.c.id == id)
        connection.execute(row.values(text=_expression(text)))


def _expression(text: str) -> str:
    """The text where it is an expression, else one that denies, with the text as its comment."""
    try:
        Expression(text)
    except ExpressionError:
        return f"false // {' '.join(text.split())}"[:2000]
    return text
