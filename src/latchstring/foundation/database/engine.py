"""Database: short transactions, bounded waits, one exception for every outage.

    async with database.transaction() as connection:   a write: commits at the end, or rolls back
    async with database.reading() as connection:       single statements, each sees what is committed

The listener is notified of the events that a transaction recorded, before it commits and after it.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, cast

import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.util import greenlet_spawn

from latchstring.errors import ConfigurationError
from latchstring.foundation.condition import Condition
from latchstring.foundation.database.checkout import Connections, engine_apart
from latchstring.foundation.database.connection import READING, SQLITE_LOCK_SECONDS, TIMEOUT_SECONDS, Connection, Engine
from latchstring.foundation.database.failures import failures_translated, transaction_watched
from latchstring.foundation.database.postgresql import prepare_postgresql
from latchstring.foundation.database.pragmas import begin_sqlite, prepare_sqlite
from latchstring.foundation.database.settings import PreparedStatements
from latchstring.foundation.database.sqlite import OneTripConnection, connect
from latchstring.foundation.database.urls import checked_url, connect_arguments
from latchstring.foundation.events import Event
from latchstring.foundation.loop_lock import LoopLock
from latchstring.foundation.measurements import UNMETERED, Meter, Metric

_POOL_SIZE = 8
_POOL_MARGIN_SECONDS = 0.2

DATABASE_LOGGER = "latchstring.foundation.database"
"""The logger of outages."""

_log = logging.getLogger(DATABASE_LOGGER)


class Listener(Protocol):
    """Is notified of the events of each transaction."""

    async def notify_inside(self, events: Sequence[Event], connection: Connection) -> None:
        """Notify of events before the transaction commits; an exception rolls it back."""
        ...

    def notify_after(self, events: Sequence[Event]) -> None:
        """Notify of events once the transaction has committed."""
        ...


class Database:
    """Short transactions and bounded waits, on an engine of its own or on an application's.

    An application's PostgreSQL engine is shared with its pool, and is not changed. Of its SQLite engine only the URL is
    used: the settings that we need on a connection would apply to the application's own statements, too.
    """

    def __init__(
        self,
        database: str | Engine,
        *,
        listener: Listener | None = None,
        prepared_statements: PreparedStatements = "auto",
        meter: Meter = UNMETERED,
    ) -> None:
        self.url = checked_url(database)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._is_lent = isinstance(database, AsyncEngine) and not self.is_sqlite
        self.engine = database if isinstance(database, AsyncEngine) and self._is_lent else self._own_engine()
        self._writing = self.engine.execution_options(**_POSTGRESQL_OPTIONS) if self._is_lent else self.engine
        self._reading = self.engine.execution_options(**({READING: True} if self.is_sqlite else _AUTOCOMMIT))
        self._listener = listener
        self._meter = meter
        self._writer = LoopLock()
        self._connections = Connections(self.engine, is_lent=self._is_lent)
        self._apart: _Apart | None = None
        self._apart_lock = LoopLock()
        count = partial(meter.count, Metric.DATABASE_ERRORS)
        self.writes = Condition("database.writes", subject="writes to the database", log=_log, count=count)
        self.reads = Condition("database.reads", subject="reads of the database", log=_log, count=count)
        if self.is_sqlite:
            event.listen(self.engine.sync_engine, "connect", prepare_sqlite)
            event.listen(self.engine.sync_engine, "begin", begin_sqlite)
        elif not self._is_lent:
            prepare_postgresql(self.engine.sync_engine, prepared_statements=prepared_statements)

    def _own_engine(self) -> AsyncEngine:
        try:
            return create_async_engine(
                self.url,
                # No overflow: it would open and close further connections at every busy moment.
                pool_size=_POOL_SIZE,
                max_overflow=0,
                # SQLAlchemy otherwise quotes them in its errors, and errors end up in logs.
                hide_parameters=True,
                # Before the caller's own time is over, so that the log tells a full pool from a silent database.
                pool_timeout=TIMEOUT_SECONDS - _POOL_MARGIN_SECONDS,
                connect_args=connect_arguments(self.url),
                **({"async_creator": self._connect_sqlite} if self.is_sqlite else _POSTGRESQL_OPTIONS),
            )
        except exc.ArgumentError:
            # `from None`: whatever the error quotes of the URL may hold the password.
            raise ConfigurationError(
                "LATCHSTRING_DATABASE_URL names its hosts in a form that can't be read: with several, write "
                "postgresql://user:password@one:5432,two:5432/name"
            ) from None
        except ModuleNotFoundError as error:
            raise ConfigurationError(
                f"the database driver {error.name} is not installed: pip install 'latchstring[postgres]'"
            ) from None

    @contextlib.asynccontextmanager
    async def transaction(self, *, timeout_seconds: float | None = None) -> AsyncIterator[Connection]:
        """Open a write transaction; it commits when the block ends and rolls back when the block raises.

        Raises:
            DatabaseUnavailableError: the database is unavailable or did not respond within `timeout_seconds`, by
                default five.
        """
        limit = TIMEOUT_SECONDS if timeout_seconds is None else timeout_seconds
        events: list[Event] = []
        with transaction_watched(self.writes, self._meter):
            async with (
                asyncio.timeout(limit) as deadline,
                self._write_lock(),
                self._connected(self._writing, deadline) as connection,
                connection.begin(),
            ):
                _sync(connection).execution_options(**{_EVENTS: events})
                yield connection
                if self._listener is not None and events:
                    await self._listener.notify_inside(events, connection)
        if self._listener is not None and events:
            self._listener.notify_after(events)

    @contextlib.asynccontextmanager
    async def reading(self) -> AsyncIterator[Connection]:
        """Open a connection for single statements, without a transaction around them.

        Raises:
            DatabaseUnavailableError: the database is unavailable or did not respond within five seconds.
        """
        with failures_translated(self.reads):
            async with (
                asyncio.timeout(TIMEOUT_SECONDS) as deadline,
                self._connected(self._reading, deadline) as connection,
            ):
                yield connection

    @contextlib.asynccontextmanager
    async def reading_apart(self, *, timeout_seconds: float | None = None) -> AsyncIterator[Connection]:
        """Open the one connection that no request uses, for single statements; callers queue for it.

        Requests may hold every connection of the pool: an application's slow handlers, or writers that wait for a lock.
        What every request depends on must not queue behind them. SQLite needs no such connection: it has one writer at
        a time, and the others wait without one.

        Raises:
            DatabaseUnavailableError: the database is unavailable or did not respond within `timeout_seconds`, by
                default five.
        """
        limit = TIMEOUT_SECONDS if timeout_seconds is None else timeout_seconds
        with failures_translated(self.reads):
            async with asyncio.timeout(limit) as deadline, self._apart_lock:
                if self.is_sqlite:
                    async with self._reading.connect() as connection:
                        yield connection
                    return
                if self._apart is None:
                    self._apart = _Apart.of(self.engine)
                async with self._apart.connections.connected(self._apart.reading, deadline) as connection:
                    yield connection

    async def read_one(self, statement: sa.Select[Any], parameters: Mapping[str, object]) -> sa.Row[Any] | None:
        """Run one statement and return its only row, or None: a faster `reading()` for the hottest query.

        On SQLite all of it, from the pool and back, runs in one greenlet, at two thirds of the cost.

        Raises:
            DatabaseUnavailableError: the database is unavailable or did not respond within five seconds.
        """
        if not self.is_sqlite:
            async with self.reading() as connection:
                result = await connection.execute(statement, parameters)
                return cast("sa.Row[Any] | None", result.one_or_none())

        def read() -> sa.Row[Any] | None:
            with self._reading.sync_engine.connect() as connection:
                row: sa.Row[Any] | None = connection.execute(statement, parameters).one_or_none()
                return row

        with failures_translated(self.reads):
            async with asyncio.timeout(TIMEOUT_SECONDS):
                row: sa.Row[Any] | None = await greenlet_spawn(read)
                return row

    async def close(self) -> None:
        """Close the connections of our own engines; an application's engine stays open."""
        await self._connections.close()
        if self._apart is not None:
            apart, self._apart = self._apart, None
            await apart.connections.close()

    @contextlib.asynccontextmanager
    async def _write_lock(self) -> AsyncIterator[None]:
        if not self.is_sqlite:
            yield
            return
        # A queue, and not SQLite's own waiting, which polls with growing pauses and is unfair under load. Half of the
        # time is for the writers of this process, half for SQLite to wait for those of another one.
        async with asyncio.timeout(SQLITE_LOCK_SECONDS):
            await self._writer.acquire()
        try:
            yield
        finally:
            self._writer.release()

    def _connected(
        self, engine: AsyncEngine, deadline: asyncio.Timeout
    ) -> contextlib.AbstractAsyncContextManager[Connection]:
        return engine.connect() if self.is_sqlite else self._connections.connected(engine, deadline)

    async def _connect_sqlite(self) -> OneTripConnection:
        (location,), options = self.engine.dialect.create_connect_args(self.url)
        # Also if the URL sets it: the driver must not begin transactions of its own, which would not be IMMEDIATE.
        return await connect(location, **{**options, "isolation_level": None})


@dataclass(frozen=True, slots=True)
class _Apart:
    """The engine of the connection that no request uses."""

    connections: Connections
    reading: AsyncEngine

    @classmethod
    def of(cls, engine: AsyncEngine) -> "_Apart":
        # Made at the first use: until then an application may add listeners to its engine.
        apart = engine_apart(engine)
        return cls(Connections(apart, is_lent=False), apart.execution_options(**_AUTOCOMMIT))


def recorded_events(connection: Connection) -> list[Event]:
    """Return the list of the events that this transaction has recorded; append to it to record another."""
    events: list[Event] = _sync(connection).get_execution_options()[_EVENTS]
    return events


def _sync(connection: Connection) -> sa.Connection:
    if connection.sync_connection is None:
        raise RuntimeError("the connection is not open")
    return connection.sync_connection


# The execution option of SQLAlchemy that holds the events of a transaction.
_EVENTS = "latchstring_events"

_AUTOCOMMIT: dict[str, Any] = {"isolation_level": "AUTOCOMMIT"}
# Not the server's default, which may be stricter: a refresh that waited for a sign-out in another transaction must see
# it, and not an older snapshot (the race of Keycloak 51312).
_POSTGRESQL_OPTIONS: dict[str, Any] = {"isolation_level": "READ COMMITTED"}
