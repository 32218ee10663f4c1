"""The settings of each connection to SQLite, and how its transactions begin."""

import asyncio
import sqlite3
from typing import TYPE_CHECKING, Any, cast

import sqlalchemy as sa

from latchstring.foundation.database.connection import READING, SQLITE_LOCK_SECONDS

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import DBAPIConnection

_WAL_ATTEMPTS = 25


def prepare_sqlite(dbapi_connection: "DBAPIConnection", _record: object) -> None:
    """Set up a new connection: busy timeout, write-ahead log, foreign keys, and commits that reach the disk."""
    connection = cast("Any", dbapi_connection)
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={int(SQLITE_LOCK_SECONDS * 1000)}")
    _switch_to_wal(connection)
    # Off by default in SQLite: without it a deleted user's password row would remain.
    cursor.execute("PRAGMA foreign_keys=ON")
    # A sign-out that was confirmed must survive a power cut: every commit reaches the disk (decision 5).
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


def _switch_to_wal(connection: Any) -> None:  # noqa: ANN401 -- the driver's connection, as SQLAlchemy adapts it
    cursor = connection.cursor()
    # If several instances open a new file at once, SQLite refuses all but one without waiting: the busy timeout does
    # not apply to this pragma.
    for _ in range(_WAL_ATTEMPTS):
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            connection.run_async(lambda _: asyncio.sleep(SQLITE_LOCK_SECONDS / _WAL_ATTEMPTS))
        else:
            return
    cursor.execute("PRAGMA journal_mode=WAL")


def begin_sqlite(connection: sa.Connection) -> None:
    """Begin a write transaction with BEGIN IMMEDIATE."""
    # A deferred one takes the write lock at its first write, and fails there if another one wrote since its first read.
    if not connection.get_execution_options().get(READING):
        connection.exec_driver_sql("BEGIN IMMEDIATE")
