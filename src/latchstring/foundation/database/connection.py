"""What stores work with: a connection, and which of the two databases it leads to."""

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

Connection = AsyncConnection
"""A connection inside `transaction()` or `reading()`; actions hand it to stores and never look inside."""

Engine = AsyncEngine
"""An application's own engine, to be shared."""

TIMEOUT_SECONDS = 5.0
"""How long one transaction may take, waiting for a connection included, before the caller is told 503."""

SQLITE_LOCK_SECONDS = TIMEOUT_SECONDS / 2
"""How long of it a write waits for this process's other writers, and then again for another process's."""

READING = "latchstring_reading"
"""Our own execution option of SQLAlchemy: set on connections that only read."""


def is_postgresql(connection: Connection) -> bool:
    """Tell which of our two databases this is."""
    return connection.dialect.name == "postgresql"
