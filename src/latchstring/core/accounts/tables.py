"""The table of users."""

import sqlalchemy as sa

from latchstring.core.accounts.rules import EMAIL_MAX_LENGTH, NAME_MAX_LENGTH
from latchstring.foundation.database import UtcDateTime, metadata

users = sa.Table(
    "latchstring_users",
    metadata,
    sa.Column("id", sa.Uuid(), primary_key=True),
    # Always in canonical form, so that this constraint alone makes every spelling one account.
    sa.Column("email", sa.String(EMAIL_MAX_LENGTH), nullable=False, unique=True),
    sa.Column("first_name", sa.String(NAME_MAX_LENGTH), nullable=False),
    sa.Column("last_name", sa.String(NAME_MAX_LENGTH), nullable=False),
    sa.Column("created_at", UtcDateTime(), nullable=False),
    sa.Column("email_verified_at", UtcDateTime()),
    sa.Column("disabled_at", UtcDateTime()),
    sa.Column("security_version", sa.Integer(), nullable=False),
    sa.Column("claims_version", sa.Integer(), nullable=False),
    sa.Column("roles", sa.JSON(), nullable=False),
)
"""Users. Applications may join this table and refer to it by foreign keys, but must never write to it."""
