"""Queries and writes of keys, and of the secret's check value."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from latchstring.core.keys.rotation import KeyDates
from latchstring.core.keys.settings import Algorithm
from latchstring.core.keys.tables import keys, secrets
from latchstring.foundation.database import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredKey(KeyDates):
    """A key's row, with its private half sealed."""

    public_pem: str
    private_sealed: bytes
    secret_id: str


async def all_keys(connection: Connection) -> list[StoredKey]:
    """Read every key, the oldest first."""
    rows = await connection.execute(sa.select(keys).order_by(keys.c.published_at, keys.c.kid))
    return [
        StoredKey(
            kid=row.kid,
            algorithm=Algorithm(row.algorithm),
            published_at=row.published_at,
            signs_from=row.signs_from,
            retired_at=row.retired_at,
            verifies_until=row.verifies_until,
            token_life=timedelta(seconds=row.token_seconds),
            cache_life=timedelta(seconds=row.cache_seconds),
            public_pem=row.public_pem,
            private_sealed=row.private_sealed,
            secret_id=row.secret_id,
        )
        for row in rows
    ]


REVISION = sa.select(sa.func.coalesce(sa.func.max(keys.c.revision), 0)).scalar_subquery()
"""The highest revision, which rises when any key changes; a subquery for the feed's own statement."""


async def revision(connection: Connection) -> int:
    """Read the highest revision."""
    number: int = (await connection.execute(sa.select(REVISION))).scalar_one()
    return number


# The callers of the functions below hold the lock of all keys; otherwise two changes could take the same revision,
# and a worker that has read the first would never read the second.
_NEXT_REVISION = sa.select(sa.func.coalesce(sa.func.max(keys.c.revision), 0) + 1).scalar_subquery()


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
            token_seconds=math.ceil(key.token_life.total_seconds()),
            cache_seconds=math.ceil(key.cache_life.total_seconds()),
            revision=_NEXT_REVISION,
        )
    )


async def update_dates(connection: Connection, changed: Sequence[KeyDates]) -> None:
    """Write when keys are retired, and the lifetimes of their tokens and cached responses."""
    for key in changed:
        await connection.execute(
            keys.update()
            .where(keys.c.kid == key.kid)
            .values(
                retired_at=key.retired_at,
                verifies_until=key.verifies_until,
                token_seconds=math.ceil(key.token_life.total_seconds()),
                cache_seconds=math.ceil(key.cache_life.total_seconds()),
                revision=_NEXT_REVISION,
            )
        )


async def raise_revision(connection: Connection, kid: str, *, at_least: int) -> None:
    """Give a key the highest revision, and one that is at least a number."""
    number = max(await revision(connection) + 1, at_least)
    await connection.execute(keys.update().where(keys.c.kid == kid).values(revision=number))


async def update_seal(connection: Connection, kid: str, *, private_sealed: bytes, secret_id: str) -> None:
    """Replace a key's sealed private half."""
    await connection.execute(
        keys.update()
        .where(keys.c.kid == kid)
        .values(private_sealed=private_sealed, secret_id=secret_id, revision=_NEXT_REVISION)
    )


async def prune_keys(connection: Connection, *, before: datetime, most: int) -> int:
    """Delete at most `most` keys that were gone before an instant; return how many."""
    gone = sa.select(keys.c.kid).where(keys.c.verifies_until < before).order_by(keys.c.verifies_until).limit(most)
    return (await connection.execute(keys.delete().where(keys.c.kid.in_(gone)))).rowcount


async def secret_checks(connection: Connection) -> dict[str, bytes]:
    """Read the check value of each secret in use, by the secret's id."""
    rows = await connection.execute(sa.select(secrets.c.secret_id, secrets.c.check_sealed))
    return {row.secret_id: row.check_sealed for row in rows}


async def replace_secret_check(connection: Connection, *, secret_id: str, check_sealed: bytes, now: datetime) -> None:
    """Make a secret's check value the only one."""
    await connection.execute(secrets.delete())
    await connection.execute(secrets.insert().values(secret_id=secret_id, check_sealed=check_sealed, created_at=now))
