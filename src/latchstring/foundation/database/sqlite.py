"""A SQLite connection for SQLAlchemy's aiosqlite dialect: one thread, one queue, one trip there for each statement.

    event loop  ── (future, work) ──>  queue  ──>  thread: sqlite3
        └────────── result or error, by call_soon_threadsafe ──┘

The dialect makes a cursor, executes, fetches and closes it, and rolls back what never began when a connection returns
to the pool. With aiosqlite's own connection each of the five is a trip to the thread and back, which costs more than
SQLite's own work for the statements this package runs. Here the one trip brings back rows and description together.
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
        # Cancelled, too: what the thread opens a moment later, it closes at once.
        connection.stop()
        raise
    return connection


class OneTripConnection:
    """A connection whose cursors fetch as they execute.

    `_connection`, `_conn` and `_tx` are aiosqlite's names, and private there: SQLAlchemy's adapter asks for them.
    """

    def __init__(self) -> None:
        self._is_closed = False
        self._was_left = False
        self._connection: sqlite3.Connection | None = None
        self._tx: SimpleQueue[_Job | None] = SimpleQueue()
        # A daemon, so that a connection that nobody closed does not hang the exit.
        threading.Thread(target=_work, args=(self._tx,), name="latchstring sqlite", daemon=True).start()

    def __del__(self) -> None:
        if not self._is_closed:
            warnings.warn("a SQLite connection was not closed", ResourceWarning, stacklevel=1, source=self)
            self.stop()

    @property
    def _conn(self) -> sqlite3.Connection:
        if self._connection is None:
            raise _closed()
        return self._connection

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open, as far as the statements that are through know."""
        return self._conn.in_transaction

    @property
    def isolation_level(self) -> str | None:
        """What sqlite3 calls so: None, where it begins no transaction by itself."""
        return self._conn.isolation_level

    async def open(self, location: str, options: dict[str, Any]) -> None:
        """Open the file, on the connection's own thread."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tx.put((future, partial(self._open, location, options)))
        await future

    def cursor(self) -> "_Cursor":
        """Return a cursor, made on this side."""
        return _Cursor(self)

    async def run(self, work: Callable[..., _T], *arguments: object) -> _T:
        """Do `work` with sqlite3's own connection, and `arguments`, on its thread, after all that was asked before.

        Raises:
            OperationalError: the connection is closed. Whatever `work` raises comes through as it is.
        """
        connection = self._connection
        if connection is None or self._is_closed:
            raise _closed()
        future: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        self._tx.put((future, partial(work, connection, *arguments)))
        try:
            return await future
        except asyncio.CancelledError:
            # The thread goes on with it, and what it does is seen only after that.
            self._was_left = True
            raise

    async def create_function(self, name: str, arity: int, function: Callable[..., Any], **options: bool) -> None:
        """Let SQL call a function of Python's; the arguments are those of `sqlite3.Connection.create_function`."""
        await self.run(lambda connection: connection.create_function(name, arity, function, **options))

    async def commit(self) -> None:
        """Commit the open transaction, if there is one."""
        await self.run(sqlite3.Connection.commit)

    async def rollback(self) -> None:
        """Roll back, where there is something to."""
        if self._was_left or self.in_transaction:
            await self.run(sqlite3.Connection.rollback)

    async def close(self) -> None:
        """Close the file once all that was asked before is done, and end the thread; also if this is cancelled."""
        if not self._is_closed:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._end(future)
            await future

    def stop(self) -> None:
        """Do the same without waiting for it: wherever there is no event loop any more."""
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
    """What SQLAlchemy's adapter asks of a cursor."""

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
        # On this side: a statement that nobody waits for any more changes nothing here.
        self.description, self._rows, self.rowcount, self.lastrowid = outcome


def _closed() -> sqlite3.OperationalError:
    # aiosqlite's words, by which SQLAlchemy knows that a connection is gone, and replaces it.
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
        # Otherwise the last rows, or a connection that was dropped, would be kept until the next statement.
        del job


def _do(future: asyncio.Future[Any] | None, work: Callable[[], Any]) -> None:
    result = failure = None
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001 -- whoever waits gets it, whatever it is
        # Without this frame, which holds the future that is about to hold the error.
        failure = error.with_traceback(error.__traceback__ and error.__traceback__.tb_next)
    if future is not None:
        try:
            future.get_loop().call_soon_threadsafe(_settle, future, result, failure)
        except RuntimeError:
            # The event loop is closed, and with it whoever waited; the next one's statements come in their turn.
            return


def _settle(future: asyncio.Future[Any], result: object, failure: BaseException | None) -> None:
    if future.done():
        return  # whoever waited was cancelled
    if failure is not None:
        future.set_exception(failure)
    else:
        future.set_result(result)
