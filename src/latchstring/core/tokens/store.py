"""Keys and the secret's mark, read and written."""

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from latchstring.core.tokens.settings import Algorithm
from latchstring.core.tokens.tables import keys, secrets
from latchstring.foundation.database import Connection


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key's row; the private half is sealed."""

    kid: str
    algorithm: Algorithm
    public_pem: str
    private_sealed: bytes
    secret_id: str
    published_at: datetime
    signs_from: datetime
    verifies_until: datetime | None
    retired_at: datetime | None


async def all_keys(connection: Connection) -> list[StoredKey]:
    """Read every key, the oldest first."""
    rows = await connection.execute(sa.select(keys).order_by(keys.c.published_at, keys.c.kid))
    return [StoredKey(**{**row, "algorithm": Algorithm(row["algorithm"])}) for row in rows.mappings()]


async def insert_key(connection: Connection, key: StoredKey) -> None:
    """Add a key."""
    await connection.execute(
        keys.insert().values(
            kid=key.kid,
            algorithm=key.algorithm.value,
            public_pem=key.public_pem,
            private_sealed=key.private_sealed,
            secret_id=key.secret_id,
            published_at=key.published_at,
            signs_from=key.signs_from,
            verifies_until=key.verifies_until,
            retired_at=key.retired_at,
        )
    )


async def secret_checks(connection: Connection) -> dict[str, bytes]:
    """Read the check value of each secret in use, by the secret's id."""
    rows = await connection.execute(sa.select(secrets.c.secret_id, secrets.c.check_sealed))
    return {row.secret_id: row.check_sealed for row in rows}


async def insert_secret_check(connection: Connection, *, secret_id: str, check_sealed: bytes, now: datetime) -> None:
    """Mark a secret as the one in use."""
    await connection.execute(secrets.insert().values(secret_id=secret_id, check_sealed=check_sealed, created_at=now))
