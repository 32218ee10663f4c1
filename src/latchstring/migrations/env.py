"""Alembic's environment: our tables only, on the connection that `upgrade` passes."""

from alembic import context

from latchstring.foundation.database import metadata
from latchstring.migrations import VERSION_TABLE

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    # A host's own Alembic keeps `alembic_version` in the same database.
    version_table=VERSION_TABLE,
    # SQLite can't alter most of a column: Alembic copies the table instead.
    render_as_batch=connection.dialect.name == "sqlite",
    # All or nothing, under one lock: a process that dies half-way leaves the schema as it was.
    transaction_per_migration=False,
)
with context.begin_transaction():
    context.run_migrations()
