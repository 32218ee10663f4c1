"""Check connections to PostgreSQL out of a pool and back, without waiting for a server that hangs.

Cancelling the task that waits is not enough. psycopg then asks the server to cancel the statement and waits for the
server's word, asyncpg waits in the rollback, and closing the connection waits again: five seconds become twenty. So a
statement that runs out of time meets, one after the other,

    a cancel request   the server ends the statement, which would otherwise wait for a lock with nobody behind it
    the broken socket  on our side alone, where the server did not respond
    the time limit     of the caller
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from copy import copy
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool

from latchstring.foundation.database.connection import Connection
from latchstring.foundation.database.failures import Cause, NoConnectionError, cause_of

_CANCEL_BEFORE_SECONDS = 0.5
"""How long before the deadline psycopg's statement is cancelled. asyncpg cancels when the deadline cancels its task."""
_BREAK_BEFORE_SECONDS = 0.1
"""How long before the deadline psycopg's connection is broken, so that its error arrives before the cancellation."""
_BREAK_AFTER_SECONDS = 0.3
"""How long after the deadline asyncpg's connection is broken, if its cancel request brought nothing."""
_DISPOSE_SECONDS = 2.0
_CLOSE_SECONDS = 0.5
"""How long a caller waits for its connection to go back to the pool."""


class Connections:
    """Opens connections of an engine in tasks of their own, and closes them so."""

    def __init__(self, engine: AsyncEngine, *, is_lent: bool) -> None:
        self._engine = engine
        self._is_lent = is_lent
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def connected(self, engine: AsyncEngine, deadline: asyncio.Timeout) -> AsyncIterator[Connection]:
        """Open a connection, which breaks just before the deadline.

        Args:
            engine: this object's engine, perhaps with options of its own.
            deadline: the time limit that the caller is in.
        """
        self._drop_connections_of_closed_loop()
        # In a task of its own: a request that is cancelled while SQLAlchemy connects would leak the connection.
        connecting = asyncio.create_task(_connect(engine))
        try:
            connection = await asyncio.shield(connecting)
        except asyncio.CancelledError:
            self._remember(asyncio.create_task(_close_once_connected(connecting)))
            if deadline.expired():
                raise NoConnectionError from None
            raise
        limit = _Limit(deadline, connection)
        try:
            yield connection
        except exc.DBAPIError as error:
            # What the driver says of a connection that was broken here: that it is lost.
            if limit.has_broken:
                raise TimeoutError from error
            # The old primary, demoted: the next connection may lead to the new one.
            if cause_of(error) is Cause.READ_ONLY:
                await connection.invalidate()
            raise
        finally:
            closing = asyncio.create_task(_close(connection, limit))
            self._remember(closing)
            # Not `shield` alone: a server that hangs would hold the caller here, after its time.
            await asyncio.wait([closing], timeout=_CLOSE_SECONDS)

    async def close(self) -> None:
        """Close what is open, for two seconds at most; an application's engine stays open."""
        if not self._is_lent:
            self._remember(asyncio.create_task(self._engine.dispose()))
        if not self._closing:
            return
        _, hanging = await asyncio.wait(set(self._closing), timeout=_DISPOSE_SECONDS)
        for task in hanging:
            # asyncpg ends the connection then, without a word to the server.
            task.cancel()

    def _remember(self, closing: "asyncio.Task[None]") -> None:
        self._closing.add(closing)
        closing.add_done_callback(self._closed)

    def _closed(self, task: "asyncio.Task[None]") -> None:
        self._closing.discard(task)
        # A connection that can't be closed is lost already. asyncio would log its error as "never retrieved".
        if not task.cancelled():
            task.exception()

    def _drop_connections_of_closed_loop(self) -> None:
        # The pool's connections belong to the closed loop: they can neither be used nor closed in another one.
        loop = asyncio.get_running_loop()
        if self._loop is not None and self._loop is not loop and self._loop.is_closed() and not self._is_lent:
            self._engine.sync_engine.dispose(close=False)
        self._loop = loop


def engine_apart(engine: AsyncEngine) -> AsyncEngine:
    """Return an engine with a pool of its own, whose connections are made exactly as those of `engine` are.

    `recreate` keeps the creator and the listeners of the pool, and with them what an application does to each
    connection: passwords that are fetched anew, TLS, a `search_path`. The engine's own listeners and options, which may
    do the same, are copied.
    """
    given = engine.sync_engine
    pool = given.pool.recreate()
    if isinstance(pool, NullPool):
        # It would open a connection for each poll, four times a second.
        pool = AsyncAdaptedQueuePool(partial(_opened, pool), pool_size=1, max_overflow=0, dialect=given.dialect)
    if type(given) is sa.Engine:
        # A shallow copy has the listeners of the engine, those that are added later included.
        apart = copy(given)
        apart.pool, apart.hide_parameters = pool, True
    else:
        # An engine with options of its own passes its pool on to the engine below: a copy would change that one's.
        apart = sa.Engine(pool, given.dialect, given.url, hide_parameters=True)
        apart.update_execution_options(**given.get_execution_options())
    return AsyncEngine(apart)


def _opened(pool: NullPool) -> Any:  # noqa: ANN401 -- SQLAlchemy's adapter of the driver's connection
    opened = pool.connect()
    connection = opened.dbapi_connection
    opened.detach()
    return connection


async def _connect(engine: AsyncEngine) -> Connection:
    return await engine.connect()


async def _close_once_connected(connecting: "asyncio.Task[Connection]") -> None:
    with contextlib.suppress(Exception):
        await (await connecting).close()


async def _close(connection: Connection, limit: "_Limit") -> None:
    # A cancel request that is still on its way must not meet the next one's statement.
    await limit.end()
    await connection.close()


class _Limit:
    """Ends a statement that runs past the deadline: asks the server to, and breaks the connection if it does not."""

    def __init__(self, deadline: asyncio.Timeout, connection: Connection) -> None:
        self.has_broken = False
        self._connection = connection
        self._cancelling: asyncio.Task[None] | None = None
        self._timers: list[asyncio.TimerHandle] = []
        when = deadline.when()
        if when is None:
            return
        loop = asyncio.get_running_loop()
        if not hasattr(_driver_of(connection), "pgconn"):  # asyncpg
            self._timers = [loop.call_at(when + _BREAK_AFTER_SECONDS, self._break)]
            return
        # Halfway, where little time is left.
        left = max(0.0, when - loop.time())
        self._timers = [
            loop.call_at(when - min(_CANCEL_BEFORE_SECONDS, left / 2), self._cancel),
            loop.call_at(when - min(_BREAK_BEFORE_SECONDS, left / 4), self._break),
        ]

    def _cancel(self) -> None:
        driver = _driver_of(self._connection)
        if driver is not None:
            self._cancelling = asyncio.create_task(_cancelled(driver))

    def _break(self) -> None:
        driver = _driver_of(self._connection)
        if driver is None:
            return
        self.has_broken = True
        if not hasattr(driver, "pgconn"):
            driver.terminate()
        elif not driver.closed:
            # A duplicate, because psycopg closes its own. `shutdown` is of the connection, not of the descriptor.
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(driver.pgconn.socket)) as duplicate:
                duplicate.shutdown(socket.SHUT_RDWR)

    async def end(self) -> None:
        """Stop watching the clock. Breaks a connection whose cancel request is still on its way."""
        for timer in self._timers[:1]:
            timer.cancel()
        if self._cancelling is not None and not self._cancelling.done():
            await asyncio.wait([self._cancelling], timeout=_CANCEL_BEFORE_SECONDS)
            if not self._cancelling.done():
                self._break()
        for timer in self._timers:
            timer.cancel()


async def _cancelled(driver: Any) -> None:  # noqa: ANN401 -- psycopg need not be installed
    # Bounded: the request goes to the server over a connection of its own, and the server may hang.
    with contextlib.suppress(Exception):
        await driver.cancel_safe(timeout=_CANCEL_BEFORE_SECONDS)


def _driver_of(connection: Connection) -> Any:  # noqa: ANN401 -- of whichever driver
    """Return the driver's connection; None if it is closed."""
    if connection.closed or connection.sync_connection is None or connection.invalidated:
        return None
    return connection.sync_connection.connection.driver_connection
