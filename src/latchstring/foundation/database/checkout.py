"""Check connections to PostgreSQL out of a pool and back, without waiting for a server that hangs.

Cancelling a statement is not enough. psycopg then asks the server to cancel it and waits for the server's word, and
closing the connection waits again: five seconds become twenty. So the connection is broken, on our side alone, just
before the caller's time is over.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.ext.asyncio import AsyncEngine

from latchstring.foundation.database.connection import Connection
from latchstring.foundation.database.failures import Cause, NoConnectionError, cause_of

_BREAK_BEFORE_SECONDS = 0.1
"""How long before the deadline a connection is broken, so that its error arrives before the cancellation."""
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
        broken = asyncio.Event()
        breaking = _break_before(deadline, connection, broken)
        try:
            yield connection
        except exc.DBAPIError as error:
            # What the driver says of a connection that was broken here: that it is lost.
            if broken.is_set():
                raise TimeoutError from error
            # The old primary, demoted: the next connection may lead to the new one.
            if cause_of(error) is Cause.READ_ONLY:
                await connection.invalidate()
            raise
        finally:
            closing = asyncio.create_task(connection.close())
            self._remember(closing)
            # Not `shield` alone: a server that hangs would hold the caller here, after its time.
            await asyncio.wait([closing], timeout=_CLOSE_SECONDS)
            if breaking is not None:
                breaking.cancel()

    async def close(self) -> None:
        """Wait for what is being closed; an application's engine stays open."""
        await asyncio.gather(*self._closing, return_exceptions=True)
        if not self._is_lent:
            await self._engine.dispose()

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
    connection: passwords that are fetched anew, TLS, a `search_path`.
    """
    given = engine.sync_engine
    return AsyncEngine(
        sa.Engine(given.pool.recreate(), given.dialect, given.url, hide_parameters=given.hide_parameters)
    )


async def _connect(engine: AsyncEngine) -> Connection:
    return await engine.connect()


async def _close_once_connected(connecting: "asyncio.Task[Connection]") -> None:
    with contextlib.suppress(Exception):
        await (await connecting).close()


def _break_before(
    deadline: asyncio.Timeout, connection: Connection, broken: asyncio.Event
) -> asyncio.TimerHandle | None:
    when = deadline.when()
    if when is None:
        return None
    loop = asyncio.get_running_loop()
    # Halfway, where little time is left.
    when -= min(_BREAK_BEFORE_SECONDS, max(0.0, when - loop.time()) / 2)
    return loop.call_at(when, _break, connection, broken)


def _break(connection: Connection, broken: asyncio.Event) -> None:
    """Break a connection without a word to the server: what waits for it fails at once, as after a lost connection."""
    if connection.closed or connection.sync_connection is None or connection.invalidated:
        return
    broken.set()
    driver: Any = connection.sync_connection.connection.driver_connection
    if hasattr(driver, "terminate"):  # asyncpg
        driver.terminate()
    elif not driver.closed:
        # A duplicate, because psycopg closes its own. `shutdown` is of the connection, and not of the descriptor.
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(driver.pgconn.socket)) as duplicate:
            duplicate.shutdown(socket.SHUT_RDWR)
