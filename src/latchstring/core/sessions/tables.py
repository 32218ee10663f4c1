"""The table of sessions."""

import sqlalchemy as sa

from latchstring.foundation.audit import USER_AGENT_MAX_LENGTH
from latchstring.foundation.database import UtcDateTime, metadata

sessions = sa.Table(
    "latchstring_sessions",
    metadata,
    sa.Column("id", sa.Uuid(), primary_key=True),
    # No cascading key: an ended session is evidence, and outlives its user.
    sa.Column("user_id", sa.Uuid(), nullable=False),
    sa.Column("epoch", sa.Integer(), nullable=False),
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
    # Who rotated, so that a repeat from elsewhere can be told: a network and a hash, no address and no User-Agent.
    sa.Column("rotated_network", sa.String(43)),
    sa.Column("rotated_agent", sa.String(16)),
    sa.Column("repeats", sa.Integer(), nullable=False),
    sa.Column("repeated_elsewhere_at", UtcDateTime()),
    # What a refresh changes is in no index, so that PostgreSQL writes none for it (a HOT update). Pruning looks for
    # this day, which is the same for all refreshes of one day.
    sa.Column("expires_by", sa.Date(), nullable=False, index=True),
    sa.Column("revoked_at", UtcDateTime()),
    sa.Column("revoked_reason", sa.String(32)),
    sa.Column("user_agent", sa.String(USER_AGENT_MAX_LENGTH)),
    sa.Column("address", sa.String(64)),
)
sa.Index(
    "ix_latchstring_sessions_living",
    sessions.c.user_id,
    sessions.c.expires_by,
    postgresql_where=sessions.c.revoked_at.is_(None),
    sqlite_where=sessions.c.revoked_at.is_(None),
)
