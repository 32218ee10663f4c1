"""The database: short transactions on SQLite or PostgreSQL, with bounded waits and one exception for every outage.

    engine.py      Database: `transaction()` for writes, `reading()` for single statements
    connection.py  the connection that stores use, and its timeouts
    checkout.py    connections to PostgreSQL, opened and closed without waiting for a server that hangs
    columns.py     types of columns, the metadata of all tables
    locks.py       locks between instances
    urls.py        which database URLs are accepted
    postgresql.py  new connections: poolers, standbys, several hosts
    settings.py    whether statements are prepared
    failures.py    one exception for every error of an unavailable database
    sqlite.py      a connection to SQLite: one thread, one trip to it for each statement
    pragmas.py     the settings of such a connection, and how its transactions begin

SQLite has one writer. Writers of one process queue on a lock instead of polling the file, and each write transaction
begins with BEGIN IMMEDIATE, so that none fails after its first reads because it can't get the write lock.
"""

from latchstring.foundation.database.columns import UtcDateTime, bigint, insert_or_ignore, metadata, xid8
from latchstring.foundation.database.connection import Connection, Engine, is_postgresql
from latchstring.foundation.database.engine import Database, Listener, recorded_events
from latchstring.foundation.database.failures import OWN_CAUSES, OWN_DISK_CAUSES, is_disconnection
from latchstring.foundation.database.locks import lock_each, lock_exclusively, lock_if_free
from latchstring.foundation.database.postgresql import STATEMENTS_ARE_LOST, StandbyError, statements_lost_by_pooler
from latchstring.foundation.database.urls import postgresql_url

__all__ = [
    "OWN_CAUSES",
    "OWN_DISK_CAUSES",
    "STATEMENTS_ARE_LOST",
    "Connection",
    "Database",
    "Engine",
    "Listener",
    "StandbyError",
    "UtcDateTime",
    "bigint",
    "insert_or_ignore",
    "is_disconnection",
    "is_postgresql",
    "lock_each",
    "lock_exclusively",
    "lock_if_free",
    "metadata",
    "postgresql_url",
    "recorded_events",
    "statements_lost_by_pooler",
    "xid8",
]
