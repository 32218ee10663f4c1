"""What each connection to SQLite is told before it is used, and how its transactions begin."""

import asyncio
import sqlite3
from typing import TYPE_CHECKING, Any, cast

import sqlalchemy as sa

from latchstring.foundation.database.connection import READING, SQLITE_LOCK_SECONDS

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import DBAPIConnection

_WAL_ATTEMPTS = 25


def prepare_sqlite(dbapi_connection: "DBAPIConnection", _record: object) -> None:
    """Set up a new connection: who waits how long, and that a commit reaches the disk."""
    connection = cast("Any", dbapi_connection)
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={int(SQLITE_LOCK_SECONDS * 1000)}")
    _switch_to_wal(connection)
    cursor.execute("PRAGMA foreign_keys=ON")
    # A sign-out that was answered must survive a power cut: every commit reaches the disk.
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


def _switch_to_wal(connection: Any) -> None:  # noqa: ANN401 -- the driver's connection, as SQLAlchemy adapts it
    cursor = connection.cursor()
    # Of several instances that open a new file at once, SQLite refuses all but one, and does not wait as elsewhere.
    for _ in range(_WAL_ATTEMPTS):
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            connection.run_async(lambda _: asyncio.sleep(SQLITE_LOCK_SECONDS / _WAL_ATTEMPTS))
        else:
            return
    cursor.execute("PRAGMA journal_mode=WAL")


def begin_sqlite(connection: sa.Connection) -> None:
    """Begin a write transaction as one, so that it never finds, after it has read, that it may not write."""
    if not connection.get_execution_options().get(READING):
        connection.exec_driver_sql("BEGIN IMMEDIATE")
