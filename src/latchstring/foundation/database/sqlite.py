"""A SQLite connection for SQLAlchemy's aiosqlite dialect: one thread, one queue, one trip there for each statement.

    event loop  ── (future, work) ──>  queue  ──>  thread: sqlite3
        └────────── result or error, by call_soon_threadsafe ──┘

The dialect makes a cursor, executes, fetches, closes it, and rolls back when a connection returns to the pool, even if
no transaction was begun. With aiosqlite's own connection each of the five is a trip to the thread and back, which costs
more than SQLite's own work for the statements of this package. Here one trip returns rows and description together.
"""

import asyncio
import sqlite3
import threading
import warnings
from collections.abc import Callable, Generator, Iterable, Sequence
from functools import partial
from queue import SimpleQueue
from typing import Any, Self, TypeVar

_T = TypeVar("_T")
_Job = tuple[asyncio.Future[Any] | None, Callable[[], Any]]
_Outcome = tuple[Any, Sequence[Any], int, int | None]
"""A cursor's description, rows, rowcount and lastrowid."""


async def connect(location: str, **options: Any) -> "OneTripConnection":  # noqa: ANN401 -- sqlite3's own options
    """Open a connection; `location` and `options` are those of `sqlite3.connect`."""
    connection = OneTripConnection()
    try:
        await connection.open(location, options)
    except BaseException:
        # Also if cancelled: the thread may open the file a moment later, and then closes it at once.
        connection.stop()
        raise
    return connection


class OneTripConnection:
    """A connection whose cursors fetch as they execute.

    `_connection`, `_conn` and `_tx` are private names of aiosqlite that SQLAlchemy's adapter reads.
    """

    def __init__(self) -> None:
        self._is_closed = False
        self._was_left = False
        self._connection: sqlite3.Connection | None = None
        self._tx: SimpleQueue[_Job | None] = SimpleQueue()
        # A daemon thread, so that a connection that was not closed does not block the exit of the process.
        threading.Thread(target=_work, args=(self._tx,), name="latchstring sqlite", daemon=True).start()

    def __del__(self) -> None:
        if not self._is_closed:
            # First: where warnings are errors, the next line raises.
            self.stop()
            warnings.warn("a SQLite connection was not closed", ResourceWarning, stacklevel=1, source=self)

    @property
    def _conn(self) -> sqlite3.Connection:
        if self._connection is None:
            raise _closed()
        return self._connection

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open after the statements that have been executed so far."""
        return self._conn.in_transaction

    @property
    def isolation_level(self) -> str | None:
        """The `isolation_level` of sqlite3: None if it begins no transaction by itself."""
        return self._conn.isolation_level

    async def open(self, location: str, options: dict[str, Any]) -> None:
        """Open the file on the connection's own thread."""
        # On that thread, because sqlite3 refuses a connection that another thread has made.
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tx.put((future, partial(self._open, location, options)))
        await future

    def cursor(self) -> "_Cursor":
        """Return a cursor. No trip to the thread."""
        return _Cursor(self)

    async def run(self, work: Callable[..., _T], *arguments: object) -> _T:
        """Call `work` with sqlite3's connection and `arguments` on the thread, after all earlier calls.

        Raises:
            OperationalError: the connection is closed. An exception of `work` is raised unchanged.
        """
        connection = self._connection
        if connection is None or self._is_closed:
            raise _closed()
        future: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        self._tx.put((future, partial(work, connection, *arguments)))
        try:
            return await future
        except asyncio.CancelledError:
            # The thread finishes the statement: only then is it certain whether it began a transaction.
            self._was_left = True
            raise

    async def create_function(self, name: str, arity: int, function: Callable[..., Any], **options: bool) -> None:
        """Register a Python function for SQL, as `sqlite3.Connection.create_function` does."""
        await self.run(lambda connection: connection.create_function(name, arity, function, **options))

    async def commit(self) -> None:
        """Commit the open transaction, if there is one."""
        await self.run(sqlite3.Connection.commit)

    async def rollback(self) -> None:
        """Roll back the open transaction, if there is one."""
        # The pool asks for this each time a connection returns: after a read there is nothing to do, and no trip.
        if self._was_left or self.in_transaction:
            await self.run(sqlite3.Connection.rollback)

    async def close(self) -> None:
        """Close the file after all earlier calls, and end the thread, even if this is cancelled."""
        if not self._is_closed:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._end(future)
            await future

    def stop(self) -> None:
        """Close without waiting, for code that has no running event loop."""
        if not self._is_closed:
            self._end(None)

    def _end(self, future: asyncio.Future[None] | None) -> None:
        self._is_closed = True
        self._tx.put((future, self._close))
        self._tx.put(None)

    def _open(self, location: str, options: dict[str, Any]) -> None:
        self._connection = sqlite3.connect(location, **options)

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class _Cursor:
    """The part of a cursor's interface that SQLAlchemy's adapter uses."""

    arraysize = 1

    def __init__(self, connection: OneTripConnection) -> None:
        self._connection = connection
        self._rows: Sequence[Any] = ()
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None

    def __await__(self) -> Generator[None, None, Self]:
        # SQLAlchemy 2.0 awaits a new cursor, and 2.1 enters it.
        yield from ()
        return self

    async def __aenter__(self) -> Self:
        return self

    async def execute(self, statement: str, parameters: Sequence[Any] = ()) -> Self:
        self._take(await self._connection.run(_execute, statement, parameters))
        return self

    async def executemany(self, statement: str, parameters: Iterable[Sequence[Any]]) -> Self:
        self._take(await self._connection.run(_execute_many, statement, parameters))
        return self

    async def fetchall(self) -> Sequence[Any]:
        rows, self._rows = self._rows, ()
        return rows

    async def close(self) -> None:
        self._rows = ()

    def _take(self, outcome: _Outcome) -> None:
        # Set here and not by the thread: the result of a cancelled statement must not appear in this cursor.
        self.description, self._rows, self.rowcount, self.lastrowid = outcome


def _closed() -> sqlite3.OperationalError:
    # SQLAlchemy recognises a lost connection by this text, and replaces it. It is aiosqlite's.
    return sqlite3.OperationalError("no active connection")


def _execute(connection: sqlite3.Connection, statement: str, parameters: Sequence[Any]) -> _Outcome:
    cursor = connection.execute(statement, parameters)
    rows = cursor.fetchall() if cursor.description else ()
    outcome = cursor.description, rows, cursor.rowcount, cursor.lastrowid
    cursor.close()
    return outcome


def _execute_many(connection: sqlite3.Connection, statement: str, parameters: Iterable[Sequence[Any]]) -> _Outcome:
    cursor = connection.executemany(statement, parameters)
    outcome = None, (), cursor.rowcount, cursor.lastrowid
    cursor.close()
    return outcome


def _work(jobs: "SimpleQueue[_Job | None]") -> None:
    while (job := jobs.get()) is not None:
        _do(*job)
        # Otherwise the last rows, or a dropped connection, would be kept in memory until the next statement.
        del job


def _do(future: asyncio.Future[Any] | None, work: Callable[[], Any]) -> None:
    result = failure = None
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001 -- it is raised in the task that waits
        # Without this frame, which refers to the future: future and error would refer to each other, a cycle that only
        # the garbage collector frees.
        failure = error.with_traceback(error.__traceback__ and error.__traceback__.tb_next)
    if future is not None:
        try:
            future.get_loop().call_soon_threadsafe(_settle, future, result, failure)
        except RuntimeError:
            # The loop of the waiting task is closed. Statements of the next loop are executed in their turn.
            return


def _settle(future: asyncio.Future[Any], result: object, failure: BaseException | None) -> None:
    if future.done():
        return  # the waiting task was cancelled
    if failure is not None:
        future.set_exception(failure)
    else:
        future.set_result(result)
