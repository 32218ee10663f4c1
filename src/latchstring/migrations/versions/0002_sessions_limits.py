"""Sessions: epochs, an expiry for each generation, counted refreshes, pruning. The slots of the limits."""

import sqlalchemy as sa
from alembic import op

from latchstring.foundation.database import UtcDateTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_SESSIONS = "latchstring_sessions"
_REVOCATIONS = "latchstring_revocations"


def upgrade() -> None:
    """Add the columns, fill them for existing sessions, and replace the indexes."""
    _add_columns()
    _index_sessions()
    _index_revocations()
    _create_limits()


def _add_columns() -> None:
    with op.batch_alter_table(_SESSIONS) as batch:
        batch.add_column(sa.Column("epoch", sa.Integer(), nullable=False, server_default="0"))
        batch.add_column(sa.Column("generation_access_expires_at", UtcDateTime()))
        batch.add_column(sa.Column("refreshes", sa.Integer(), nullable=False, server_default="0"))
        batch.add_column(sa.Column("refreshes_since", UtcDateTime()))
        batch.add_column(sa.Column("expires_by", sa.Date()))
    is_postgresql = op.get_bind().dialect.name == "postgresql"
    if is_postgresql:
        # Room on each page for the next version of its rows: in a full page a refresh would write every index
        # (decision 12).
        op.execute("ALTER TABLE latchstring_sessions SET (fillfactor = 90)")
    op.execute(
        "UPDATE latchstring_sessions SET generation_access_expires_at = access_expires_at, refreshes_since = rotated_at"
    )
    # The day in UTC, whatever the time zone of the server.
    op.execute(
        "UPDATE latchstring_sessions SET expires_by = (expires_at AT TIME ZONE 'UTC')::date"
        if is_postgresql
        else "UPDATE latchstring_sessions SET expires_by = DATE(expires_at)"
    )
    with op.batch_alter_table(_SESSIONS) as batch:
        batch.alter_column("epoch", existing_type=sa.Integer(), server_default=None)
        batch.alter_column("refreshes", existing_type=sa.Integer(), server_default=None)
        batch.alter_column("generation_access_expires_at", existing_type=UtcDateTime(), nullable=False)
        batch.alter_column("refreshes_since", existing_type=UtcDateTime(), nullable=False)
        batch.alter_column("expires_by", existing_type=sa.Date(), nullable=False)


def _index_sessions() -> None:
    # By the day of expiry and not the time: a refresh changes the time, and an indexed column that changes prevents
    # PostgreSQL's HOT updates (decision 12).
    op.drop_index("ix_latchstring_sessions_user_id", _SESSIONS)
    living = sa.text("revoked_at IS NULL")
    op.create_index(
        "ix_latchstring_sessions_living",
        _SESSIONS,
        ["user_id", "expires_by"],
        postgresql_where=living,
        sqlite_where=living,
    )
    op.create_index("ix_latchstring_sessions_expires_by", _SESSIONS, ["expires_by"])


def _index_revocations() -> None:
    # No version ever wrote it: everyone is signed out by an epoch, not by a time, because clocks differ (decision 9).
    with op.batch_alter_table(_REVOCATIONS, table_kwargs={"sqlite_autoincrement": True}) as batch:
        batch.drop_column("issued_before")
    everyone = sa.text("kind = 'everyone'")
    op.create_index(
        "ix_latchstring_revocations_epoch",
        _REVOCATIONS,
        ["below_version"],
        postgresql_where=everyone,
        sqlite_where=everyone,
    )
    op.create_index("ix_latchstring_revocations_expires_at", _REVOCATIONS, ["expires_at"])


def _create_limits() -> None:
    op.create_table(
        "latchstring_limits",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("expires_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_latchstring_limits"),
    )
    op.create_index("ix_latchstring_limits_expires_at", "latchstring_limits", ["expires_at"])
    op.create_index("ix_latchstring_limits_key_expires_at", "latchstring_limits", ["key", "expires_at"])
