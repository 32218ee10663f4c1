"""Key rotation: lifetimes of tokens and caches, and a revision that rises with each change. Tokens for the feed."""

import sqlalchemy as sa
from alembic import op

from latchstring.foundation.database import UtcDateTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_KEYS = "latchstring_keys"


def upgrade() -> None:
    """Add the columns of keys, and the table of feed tokens."""
    # The defaults are for existing keys only: the first worker to start records the longer lifetimes of its settings.
    with op.batch_alter_table(_KEYS) as batch:
        batch.add_column(sa.Column("token_seconds", sa.Integer(), nullable=False, server_default="0"))
        batch.add_column(sa.Column("cache_seconds", sa.Integer(), nullable=False, server_default="300"))
        batch.add_column(sa.Column("revision", sa.Integer(), nullable=False, server_default="1"))
    with op.batch_alter_table(_KEYS) as batch:
        batch.alter_column("token_seconds", existing_type=sa.Integer(), server_default=None)
        batch.alter_column("cache_seconds", existing_type=sa.Integer(), server_default=None)
        batch.alter_column("revision", existing_type=sa.Integer(), server_default=None)
    op.create_table(
        "latchstring_feed_tokens",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        # A hash alone: a reader of the database must not be able to follow the feed.
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_latchstring_feed_tokens"),
        sa.UniqueConstraint("name", name="uq_latchstring_feed_tokens_name"),
        sa.UniqueConstraint("token_hash", name="uq_latchstring_feed_tokens_token_hash"),
    )
