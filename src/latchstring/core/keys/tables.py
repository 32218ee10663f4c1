"""Keys at rest, and the mark of the secret that sealed them."""

import sqlalchemy as sa

from latchstring.foundation.database import UtcDateTime, metadata

keys = sa.Table(
    "latchstring_keys",
    metadata,
    sa.Column("kid", sa.String(64), primary_key=True),
    sa.Column("algorithm", sa.String(16), nullable=False),
    sa.Column("public_pem", sa.Text(), nullable=False),
    sa.Column("private_sealed", sa.LargeBinary(), nullable=False),
    sa.Column("secret_id", sa.String(16), nullable=False),
    sa.Column("published_at", UtcDateTime(), nullable=False),
    sa.Column("signs_from", UtcDateTime(), nullable=False),
    sa.Column("verifies_until", UtcDateTime()),
    sa.Column("retired_at", UtcDateTime()),
    # The longest life of a token it may have signed: when its last one expires follows from here.
    sa.Column("token_seconds", sa.Integer(), nullable=False),
    # How long an answer may be cached that shows it: the next key is published for longer before it signs.
    sa.Column("cache_seconds", sa.Integer(), nullable=False),
    # Rises with every change of any key. A worker asks for the highest at each poll, and reads all when it is another.
    sa.Column("revision", sa.Integer(), nullable=False),
)

secrets = sa.Table(
    "latchstring_secrets",
    metadata,
    sa.Column("secret_id", sa.String(16), primary_key=True),
    # A known text sealed under the secret: an instance with another one can't open it, and refuses to start.
    sa.Column("check_sealed", sa.LargeBinary(), nullable=False),
    sa.Column("created_at", UtcDateTime(), nullable=False),
)
