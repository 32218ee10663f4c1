"""The table of feed tokens."""

import sqlalchemy as sa

from latchstring.foundation.database import UtcDateTime, metadata

feed_tokens = sa.Table(
    "latchstring_feed_tokens",
    metadata,
    sa.Column("id", sa.Uuid(), primary_key=True),
    sa.Column("name", sa.String(100), nullable=False, unique=True),
    # SHA-256: the token has 256 random bits and can't be guessed, so a slow hash would protect nothing.
    # Not the token itself: a reader of the database must not be able to follow who signs out, and why.
    sa.Column("token_hash", sa.LargeBinary(), nullable=False, unique=True),
    sa.Column("created_at", UtcDateTime(), nullable=False),
)
