"""Sessions: the network and browser that began a generation, and how often a refresh was repeated."""

import sqlalchemy as sa
from alembic import op

from latchstring.foundation.database import UtcDateTime

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_SESSIONS = "latchstring_sessions"


def upgrade() -> None:
    """Add the columns."""
    # NULL in existing sessions, which counts as the same network and browser: the update must end none of them.
    with op.batch_alter_table(_SESSIONS) as batch:
        batch.add_column(sa.Column("rotated_network", sa.String(43)))
        batch.add_column(sa.Column("rotated_agent", sa.String(16)))
        batch.add_column(sa.Column("repeats", sa.Integer(), nullable=False, server_default="0"))
        batch.add_column(sa.Column("repeated_elsewhere_at", UtcDateTime()))
    with op.batch_alter_table(_SESSIONS) as batch:
        batch.alter_column("repeats", existing_type=sa.Integer(), server_default=None)
