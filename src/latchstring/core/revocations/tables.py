"""The rows of the revocation feed."""

import sqlalchemy as sa

from latchstring.core.revocations.rules import EVERYONE
from latchstring.foundation.database import UtcDateTime, bigint, metadata, xid8

revocations = sa.Table(
    "latchstring_revocations",
    metadata,
    # SQLite has one writer, so this order is the order of commits, and the feed's cursor. AUTOINCREMENT (below):
    # SQLite otherwise gives the number of a deleted last row again, and a poll would skip the new one.
    sa.Column("sequence", bigint, primary_key=True, autoincrement=True),
    # On PostgreSQL a lower number may be committed later, so the cursor is the transaction's id. Empty on SQLite.
    sa.Column("transaction_id", xid8, index=True),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("session_id", sa.Uuid()),
    sa.Column("user_id", sa.Uuid()),
    sa.Column("below_version", bigint),
    sa.Column("reason", sa.String(32), nullable=False),
    sa.Column("created_at", UtcDateTime(), nullable=False),
    sa.Column("expires_at", UtcDateTime(), nullable=False, index=True),
    sqlite_autoincrement=True,
)
# Of the few epochs alone: creating and refreshing a session read the newest one, among up to 100,000 entries.
sa.Index(
    "ix_latchstring_revocations_epoch",
    revocations.c.below_version,
    postgresql_where=revocations.c.kind == EVERYONE,
    sqlite_where=revocations.c.kind == EVERYONE,
)
