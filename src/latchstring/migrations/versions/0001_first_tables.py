"""The first tables."""

import sqlalchemy as sa
from alembic import op

from latchstring.foundation.database import UtcDateTime, xid8

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create users, passwords, sessions, revocations, keys, secrets and the audit trail."""
    _create_users()
    _create_passwords()
    _create_sessions()
    _create_revocations()
    _create_keys()
    _create_secrets()
    _create_audit()


def _create_users() -> None:
    op.create_table(
        "latchstring_users",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("email", sa.String(254), nullable=False),
        sa.Column("first_name", sa.String(100), nullable=False),
        sa.Column("last_name", sa.String(100), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("email_verified_at", UtcDateTime()),
        sa.Column("disabled_at", UtcDateTime()),
        sa.Column("security_version", sa.Integer(), nullable=False),
        sa.Column("claims_version", sa.Integer(), nullable=False),
        sa.Column("roles", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_latchstring_users"),
        # Of the canonical form, so that no two accounts differ by case or spelling alone (CVE-2019-19844).
        sa.UniqueConstraint("email", name="uq_latchstring_users_email"),
    )


def _create_passwords() -> None:
    op.create_table(
        "latchstring_passwords",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("password_hash", sa.String(255), nullable=False),
        sa.Column("changed_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", name="pk_latchstring_passwords"),
        sa.ForeignKeyConstraint(
            ["user_id"], ["latchstring_users.id"], name="fk_latchstring_passwords_user_id", ondelete="CASCADE"
        ),
    )


def _create_sessions() -> None:
    op.create_table(
        "latchstring_sessions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
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
        sa.Column("user_agent", sa.String(512)),
        sa.Column("address", sa.String(64)),
        # No foreign key: a session's row outlives its user, as evidence.
        sa.PrimaryKeyConstraint("id", name="pk_latchstring_sessions"),
    )
    op.create_index("ix_latchstring_sessions_user_id", "latchstring_sessions", ["user_id"])


def _create_revocations() -> None:
    op.create_table(
        "latchstring_revocations",
        sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("transaction_id", xid8),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("session_id", sa.Uuid()),
        sa.Column("user_id", sa.Uuid()),
        sa.Column("below_version", sa.Integer()),
        sa.Column("issued_before", UtcDateTime()),
        sa.Column("reason", sa.String(32), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("expires_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name="pk_latchstring_revocations"),
        # The number is the feed's cursor on SQLite: that of a deleted row must not be given again.
        sqlite_autoincrement=True,
    )
    op.create_index("ix_latchstring_revocations_transaction_id", "latchstring_revocations", ["transaction_id"])


def _create_keys() -> None:
    op.create_table(
        "latchstring_keys",
        sa.Column("kid", sa.String(64), nullable=False),
        sa.Column("algorithm", sa.String(16), nullable=False),
        sa.Column("public_pem", sa.Text(), nullable=False),
        sa.Column("private_sealed", sa.LargeBinary(), nullable=False),
        sa.Column("secret_id", sa.String(16), nullable=False),
        sa.Column("published_at", UtcDateTime(), nullable=False),
        sa.Column("signs_from", UtcDateTime(), nullable=False),
        sa.Column("verifies_until", UtcDateTime()),
        sa.Column("retired_at", UtcDateTime()),
        sa.PrimaryKeyConstraint("kid", name="pk_latchstring_keys"),
    )


def _create_secrets() -> None:
    op.create_table(
        "latchstring_secrets",
        sa.Column("secret_id", sa.String(16), nullable=False),
        sa.Column("check_sealed", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("secret_id", name="pk_latchstring_secrets"),
    )


def _create_audit() -> None:
    op.create_table(
        "latchstring_audit",
        # No foreign keys: the trail outlives the users and sessions that it records.
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("fact", sa.String(64), nullable=False),
        sa.Column("reason", sa.String(64)),
        sa.Column("user_id", sa.Uuid()),
        sa.Column("session_id", sa.Uuid()),
        sa.Column("actor", sa.String(16), nullable=False),
        sa.Column("address", sa.String(64)),
        sa.Column("user_agent", sa.String(512)),
        sa.Column("request_id", sa.String(64)),
        sa.PrimaryKeyConstraint("id", name="pk_latchstring_audit"),
    )
    op.create_index("ix_latchstring_audit_user_id", "latchstring_audit", ["user_id"])
