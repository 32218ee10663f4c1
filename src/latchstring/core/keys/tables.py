"""Tables of the sealed keys, and of the check value of the secret that sealed them."""

import sqlalchemy as sa

from latchstring.foundation.database import UtcDateTime, bigint, metadata

keys = sa.Table(
    "latchstring_keys",
    metadata,
    sa.Column("kid", sa.String(64), primary_key=True),
    sa.Column("algorithm", sa.String(16), nullable=False),
    sa.Column("public_pem", sa.Text(), nullable=False),
    # Sealed with the kid bound in: access to the database alone is not enough to use a key or to swap two.
    sa.Column("private_sealed", sa.LargeBinary(), nullable=False),
    sa.Column("secret_id", sa.String(16), nullable=False),
    sa.Column("published_at", UtcDateTime(), nullable=False),
    sa.Column("signs_from", UtcDateTime(), nullable=False),
    sa.Column("verifies_until", UtcDateTime()),
    sa.Column("retired_at", UtcDateTime()),
    # The longest lifetime of a token it may have signed. Stored: the shell that rotates may have other settings.
    sa.Column("token_seconds", sa.Integer(), nullable=False),
    # How long a response with this key may be cached: the next key is published for longer before it signs.
    sa.Column("cache_seconds", sa.Integer(), nullable=False),
    # Rises with every change of any key. Each poll reads the highest, and a worker re-reads all keys when it differs.
    sa.Column("revision", bigint, nullable=False),
)

secrets = sa.Table(
    "latchstring_secrets",
    metadata,
    sa.Column("secret_id", sa.String(16), primary_key=True),
    # A known text sealed under the secret: an instance with another secret can't unseal it, and refuses to start.
    sa.Column("check_sealed", sa.LargeBinary(), nullable=False),
    sa.Column("created_at", UtcDateTime(), nullable=False),
)
