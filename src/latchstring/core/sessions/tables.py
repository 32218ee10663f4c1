"""The table of sessions."""

import sqlalchemy as sa

from latchstring.foundation.audit import USER_AGENT_MAX_LENGTH
from latchstring.foundation.database import UtcDateTime, bigint, metadata

sessions = sa.Table(
    "latchstring_sessions",
    metadata,
    sa.Column("id", sa.Uuid(), primary_key=True),
    # No foreign key, which would cascade: an ended session is evidence, and is kept when its user is deleted.
    sa.Column("user_id", sa.Uuid(), nullable=False),
    # Signing everyone out raises the epoch in force: one row in the feed, and no row here is touched (decision 9).
    sa.Column("epoch", bigint, nullable=False),
    sa.Column("created_at", UtcDateTime(), nullable=False),
    sa.Column("proven_at", UtcDateTime(), nullable=False),
    sa.Column("methods", sa.JSON(), nullable=False),
    sa.Column("generation", sa.Integer(), nullable=False),
    sa.Column("rotated_at", UtcDateTime(), nullable=False),
    sa.Column("expires_at", UtcDateTime(), nullable=False),
    sa.Column("ends_at", UtcDateTime(), nullable=False),
    sa.Column("generation_access_expires_at", UtcDateTime(), nullable=False),
    sa.Column("access_expires_at", UtcDateTime(), nullable=False),
    sa.Column("refreshes", sa.Integer(), nullable=False),
    sa.Column("refreshes_since", UtcDateTime(), nullable=False),
    # The client that rotated, to detect a repeat from elsewhere. A network and a hash are enough for that: no full IP
    # address and no User-Agent is kept of each refresh.
    sa.Column("rotated_network", sa.String(43)),
    sa.Column("rotated_agent", sa.String(16)),
    sa.Column("repeats", sa.Integer(), nullable=False),
    sa.Column("repeated_elsewhere_at", UtcDateTime()),
    # No column that a refresh changes is indexed, so that PostgreSQL writes no index for it (a HOT update). Pruning
    # therefore uses this day, which stays the same for all refreshes of one day (decision 12).
    sa.Column("expires_by", sa.Date(), nullable=False, index=True),
    sa.Column("revoked_at", UtcDateTime()),
    sa.Column("revoked_reason", sa.String(32)),
    sa.Column("user_agent", sa.String(USER_AGENT_MAX_LENGTH)),
    sa.Column("address", sa.String(64)),
)
# Partial: a user's revoked sessions may be thousands, and no list has them.
sa.Index(
    "ix_latchstring_sessions_living",
    sessions.c.user_id,
    sessions.c.expires_by,
    postgresql_where=sessions.c.revoked_at.is_(None),
    sqlite_where=sessions.c.revoked_at.is_(None),
)
