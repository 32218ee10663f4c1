"""The table of password hashes."""

import sqlalchemy as sa

from latchstring.foundation.database import UtcDateTime, metadata

passwords = sa.Table(
    "latchstring_passwords",
    metadata,
    # A table of its own, so that no query for users can return a hash by accident.
    sa.Column("user_id", sa.Uuid(), sa.ForeignKey("latchstring_users.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("password_hash", sa.String(255), nullable=False),
    sa.Column("changed_at", UtcDateTime(), nullable=False),
)
