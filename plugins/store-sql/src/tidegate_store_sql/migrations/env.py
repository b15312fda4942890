"""Alembic's entry: migrations run on the connection, and in the transaction, of their caller."""

from __future__ import annotations

from alembic import context
from tidegate_store_sql.schema import VERSION_TABLE
from tidegate_store_sql.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,
)
context.run_migrations()
