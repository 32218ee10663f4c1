"""The connection that stores use, its timeouts, and which of the two databases it is."""

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

Connection = AsyncConnection
"""A connection inside `transaction()` or `reading()`. Actions pass it to stores and do not use it themselves."""

Engine = AsyncEngine
"""An application's own engine, to be shared."""

# A hung database must not hold a request, and with it a connection of the pool, without bound.
TIMEOUT_SECONDS = 5.0
"""How long one transaction may take, including the wait for a connection, before the response is 503."""

SQLITE_LOCK_SECONDS = TIMEOUT_SECONDS / 2
"""How long a write may wait for this process's other writers, and then again for those of other processes."""

READING = "latchstring_reading"
"""Our own execution option of SQLAlchemy: set on connections that only read."""


def is_postgresql(connection: Connection) -> bool:
    """Return whether the connection is to PostgreSQL; otherwise it is to SQLite."""
    return connection.dialect.name == "postgresql"
