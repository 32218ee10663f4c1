"""The table of users."""

import sqlalchemy as sa

from latchstring.core.accounts.rules import EMAIL_MAX_LENGTH, NAME_MAX_LENGTH
from latchstring.foundation.database import UtcDateTime, metadata

users = sa.Table(
    "latchstring_users",
    metadata,
    sa.Column("id", sa.Uuid(), primary_key=True),
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
"""Users, to be joined with an application's own tables and referred to by their foreign keys. Never write to it."""
