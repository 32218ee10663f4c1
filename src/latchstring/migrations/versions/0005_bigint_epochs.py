"""Epochs and the revision of keys follow the clock, and need 64 bits.

On PostgreSQL this writes the table of sessions anew, under a lock that stops its readers too: docs/operations.md says
for how long.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_COLUMNS = (
    ("latchstring_revocations", "below_version"),
    ("latchstring_sessions", "epoch"),
    ("latchstring_keys", "revision"),
)


def upgrade() -> None:
    """Widen the columns. SQLite's INTEGER has 64 bits already."""
    if op.get_bind().dialect.name == "sqlite":
        return
    for table, column in _COLUMNS:
        op.alter_column(table, column, existing_type=sa.Integer(), type_=sa.BigInteger())
