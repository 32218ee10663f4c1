"""The table of sessions, and the rows of the revocation feed."""

import sqlalchemy as sa

from latchstring.foundation.audit import USER_AGENT_MAX_LENGTH
from latchstring.foundation.database import UtcDateTime, metadata, xid8

sessions = sa.Table(
    "latchstring_sessions",
    metadata,
    sa.Column("id", sa.Uuid(), primary_key=True),
    # No cascading key: an ended session is evidence, and outlives its user.
    sa.Column("user_id", sa.Uuid(), nullable=False, index=True),
    sa.Column("created_at", UtcDateTime(), nullable=False),
    sa.Column("proven_at", UtcDateTime(), nullable=False),
    sa.Column("methods", sa.JSON(), nullable=False),
    sa.Column("generation", sa.Integer(), nullable=False),
    sa.Column("rotated_at", UtcDateTime(), nullable=False),
    sa.Column("expires_at", UtcDateTime(), nullable=False),
    sa.Column("ends_at", UtcDateTime(), nullable=False),
    sa.Column("access_expires_at", UtcDateTime(), nullable=False),
    sa.Column("revoked_at", UtcDateTime()),
    sa.Column("revoked_reason", sa.String(32)),
    sa.Column("user_agent", sa.String(USER_AGENT_MAX_LENGTH)),
    sa.Column("address", sa.String(64)),
)

revocations = sa.Table(
    "latchstring_revocations",
    metadata,
    # SQLite has one writer, so this order is the order of commits, and the feed's cursor.
    sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True),
    # On PostgreSQL commits overtake one another: there the cursor is the transaction's id. Empty on SQLite.
    sa.Column("transaction_id", xid8, index=True),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("session_id", sa.Uuid()),
    sa.Column("user_id", sa.Uuid()),
    sa.Column("below_version", sa.Integer()),
    sa.Column("issued_before", UtcDateTime()),
    sa.Column("reason", sa.String(32), nullable=False),
    sa.Column("created_at", UtcDateTime(), nullable=False),
    sa.Column("expires_at", UtcDateTime(), nullable=False),
    sqlite_autoincrement=True,
)
