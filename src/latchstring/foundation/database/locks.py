"""Locks between instances, on PostgreSQL. SQLite needs none: it has one write transaction at a time."""

from collections.abc import Sequence

import sqlalchemy as sa

from latchstring.foundation.database.connection import Connection, is_postgresql


async def lock_exclusively(connection: Connection, purpose: str) -> None:
    """Wait for the lock of `purpose`, and hold it until the transaction ends."""
    if is_postgresql(connection):
        # Of the transaction and not of the session: behind a pooler such as PgBouncer, a session's lock would stay
        # with a connection that another client gets next.
        await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext(purpose))))


async def lock_if_free(connection: Connection, purpose: str) -> bool:
    """Take the lock of `lock_exclusively` if it is free; return whether it was taken."""
    if not is_postgresql(connection):
        return True
    taken = await connection.scalar(sa.select(sa.func.pg_try_advisory_xact_lock(sa.func.hashtext(purpose))))
    return bool(taken)


async def lock_each(connection: Connection, purposes: Sequence[str]) -> None:
    """Take the locks of several purposes, in the order given, in one statement."""
    if is_postgresql(connection):
        # 64 bits: with thousands of accounts, the 32 bits of `hashtext` would often give two of them one lock.
        locks = [sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(purpose, 0)) for purpose in purposes]
        await connection.execute(sa.select(*locks))
