"""The table of slots."""

import sqlalchemy as sa

from latchstring.foundation.database import UtcDateTime, metadata

slots = sa.Table(
    "latchstring_limits",
    metadata,
    sa.Column("id", sa.Uuid(), primary_key=True),
    # A hash of the account or address, so that all keys have one length. It keeps a mistyped email out of sight, but is
    # not a secret: emails and addresses can be guessed.
    sa.Column("key", sa.String(64), nullable=False),
    sa.Column("expires_at", UtcDateTime(), nullable=False, index=True),
    sa.Index("ix_latchstring_limits_key_expires_at", "key", "expires_at"),
)
