"""aiosqlite with one trip to its thread for each statement.

SQLAlchemy's dialect makes a cursor, executes, fetches and closes it, and rolls back what never began when a connection
returns to the pool. Each of the five is a trip to the connection's thread and back, which costs more than SQLite's
own work for the statements this package runs. Here the one trip brings back rows and description together.
"""

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self

import aiosqlite

_CHUNK_SIZE = 64  # aiosqlite's default; unused, as rows come back whole


async def connect(location: str, **options: Any) -> "OneTripConnection":  # noqa: ANN401 -- sqlite3's own options
    """Open a connection; `location` and `options` are those of `sqlite3.connect`."""
    connection = OneTripConnection(lambda: sqlite3.connect(location, **options), _CHUNK_SIZE)
    connection._thread.daemon = True  # noqa: SLF001 -- as SQLAlchemy does for its own: an unclosed one must not hang the exit
    _ = await connection
    return connection


class OneTripConnection(aiosqlite.Connection):
    """A connection whose cursors fetch as they execute."""

    def cursor(self) -> "_Cursor":  # type: ignore[override]
        """Return a cursor, made on this side."""
        return _Cursor(self)

    async def run(self, work: Callable[..., None], *arguments: object) -> None:
        """Do `work` on the connection's own thread."""
        await self._execute(work, *arguments)  # type: ignore[no-untyped-call]

    async def rollback(self) -> None:
        """Roll back, where there is something to."""
        if self.in_transaction:
            await super().rollback()


class _Cursor:
    """What SQLAlchemy's adapter asks of a cursor."""

    arraysize = 1

    def __init__(self, connection: OneTripConnection) -> None:
        self._connection = connection
        self._rows: Sequence[Any] = ()
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None

    async def __aenter__(self) -> Self:
        return self

    async def execute(self, statement: str, parameters: Sequence[Any] = ()) -> Self:
        await self._connection.run(self._run, statement, parameters)
        return self

    async def executemany(self, statement: str, parameters: Iterable[Sequence[Any]]) -> Self:
        await self._connection.run(self._run_many, statement, parameters)
        return self

    async def fetchall(self) -> Sequence[Any]:
        rows, self._rows = self._rows, ()
        return rows

    async def close(self) -> None:
        self._rows = ()

    def _run(self, statement: str, parameters: Sequence[Any]) -> None:
        cursor = self._connection._conn.execute(statement, parameters)  # noqa: SLF001 -- on the connection's own thread
        self.description = cursor.description
        self._rows = cursor.fetchall() if cursor.description else ()
        self.rowcount, self.lastrowid = cursor.rowcount, cursor.lastrowid
        cursor.close()

    def _run_many(self, statement: str, parameters: Iterable[Sequence[Any]]) -> None:
        cursor = self._connection._conn.executemany(statement, parameters)  # noqa: SLF001 -- as above
        self.rowcount, self.lastrowid = cursor.rowcount, cursor.lastrowid
        cursor.close()
