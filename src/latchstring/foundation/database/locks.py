"""Locks between instances, on PostgreSQL. On SQLite a write transaction is alone already."""

from collections.abc import Sequence

import sqlalchemy as sa

from latchstring.foundation.database.connection import Connection, is_postgresql


async def lock_exclusively(connection: Connection, purpose: str) -> None:
    """Let no other instance past this line for the same purpose until the transaction ends."""
    if is_postgresql(connection):
        # SQLite needs nothing: there, a write transaction is alone already.
        await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext(purpose))))


async def lock_if_free(connection: Connection, purpose: str) -> bool:
    """Take the lock of `lock_exclusively` where nobody has it; tell whether it was taken."""
    if not is_postgresql(connection):
        return True
    taken = await connection.scalar(sa.select(sa.func.pg_try_advisory_xact_lock(sa.func.hashtext(purpose))))
    return bool(taken)


async def lock_each(connection: Connection, purposes: Sequence[str]) -> None:
    """Take several such locks, in the order given; numbers of 64 bits, so that two purposes hardly ever share one."""
    if is_postgresql(connection):
        locks = [sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(purpose, 0)) for purpose in purposes]
        await connection.execute(sa.select(*locks))
