"""The connection to SQLite: one thread, one queue; what is cancelled, dropped or left behind harms nobody else."""

import asyncio
import sqlite3
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from latchstring.foundation.database import Database
from latchstring.foundation.database.sqlite import OneTripConnection, connect
from tests.support.hang import HANG_SECONDS, until


class Busy:
    """A connection whose thread can be kept at a statement for as long as a test wants."""

    def __init__(self, connection: OneTripConnection) -> None:
        self.connection = connection
        self.begun = threading.Event()
        self.end = threading.Event()

    def hold(self) -> int:
        self.begun.set()
        assert self.end.wait(HANG_SECONDS)
        return 7

    async def held(self) -> "asyncio.Task[Any]":
        """Starts a statement, and returns once the thread is at it."""
        self.begun.clear()
        self.end.clear()
        task = asyncio.create_task(self.connection.cursor().execute("SELECT hold()"))
        await until(self.begun.is_set)
        return task


async def rows(connection: OneTripConnection, statement: str) -> list[Any]:
    cursor = await connection.cursor().execute(statement)
    return list(await cursor.fetchall())


async def cancel(task: "asyncio.Task[Any]") -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def own_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "latchstring sqlite"}


@pytest.fixture
async def busy(tmp_path: Path) -> AsyncIterator[Busy]:
    connection = await connect(str(tmp_path / "some.db"), isolation_level=None)
    busy = Busy(connection)
    await connection.create_function("hold", 0, busy.hold)
    yield busy
    busy.end.set()
    await connection.close()


# --- cancelled --------------------------------------------------------------------------------------------------------


async def test_a_cancelled_statement_takes_no_result_along(busy: Busy) -> None:
    """What stands behind it in the queue gets its own result, and the cursor that was left gets none."""
    cursor = busy.connection.cursor()
    task = asyncio.create_task(cursor.execute("SELECT hold()"))
    await until(busy.begun.is_set)
    others = [asyncio.create_task(rows(busy.connection, f"SELECT {number}")) for number in range(5)]
    await asyncio.sleep(0)
    await cancel(task)
    await cancel(others.pop(2))
    busy.end.set()
    assert await asyncio.gather(*others) == [[(number,)] for number in (0, 1, 3, 4)]
    assert (cursor.description, await cursor.fetchall()) == (None, ())


async def test_a_cancelled_begin_is_rolled_back_all_the_same(busy: Busy) -> None:
    """It had not begun when the rollback was asked for, and has begun when the thread comes to it."""
    holding = await busy.held()
    beginning = asyncio.create_task(busy.connection.cursor().execute("BEGIN IMMEDIATE"))
    await asyncio.sleep(0)
    await cancel(beginning)
    assert not busy.connection.in_transaction
    rolling_back = asyncio.create_task(busy.connection.rollback())
    await asyncio.sleep(0)
    busy.end.set()
    await asyncio.gather(holding, rolling_back)
    assert not busy.connection.in_transaction


async def test_who_gives_up_closing_has_closed(busy: Busy) -> None:
    """The thread does what it was at, closes the file, and ends."""
    holding = await busy.held()
    closing = asyncio.create_task(busy.connection.close())
    await asyncio.sleep(0)
    await cancel(closing)
    busy.end.set()
    await holding
    await until(lambda: busy.connection._connection is None)


async def test_who_gives_up_opening_leaves_nothing_open(tmp_path: Path) -> None:
    """The file that the thread opens a moment later is closed, and the thread ends."""
    before = own_threads()
    begun, end = threading.Event(), threading.Event()
    closed: list[object] = []

    class Slow(sqlite3.Connection):
        def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 -- sqlite3's own
            begun.set()
            assert end.wait(HANG_SECONDS)
            super().__init__(*arguments, **options)

        def close(self) -> None:
            super().close()
            closed.append(self)

    opening = asyncio.create_task(connect(str(tmp_path / "some.db"), factory=Slow))
    await until(begun.is_set)
    await cancel(opening)
    end.set()
    await until(lambda: closed)
    await until(lambda: own_threads() <= before)


def test_an_event_loop_that_is_gone(tmp_path: Path) -> None:
    """What runs when it ends has nobody to tell; the next loop's statements come in their turn."""

    async def leave() -> Busy:
        connection = await connect(str(tmp_path / "some.db"))
        busy = Busy(connection)
        await connection.create_function("hold", 0, busy.hold)
        holding = await busy.held()
        assert not holding.done()
        return busy

    async def come_back(busy: Busy) -> None:
        assert await rows(busy.connection, "SELECT 1") == [(1,)]
        await busy.connection.close()

    busy = asyncio.run(leave())
    busy.end.set()
    asyncio.run(come_back(busy))


# --- errors -----------------------------------------------------------------------------------------------------------


async def test_an_error_comes_through_as_it_was_raised(busy: Busy) -> None:
    """Its type, its words and where it was raised; no other error is named as its cause."""
    await rows(busy.connection, "CREATE TABLE t (x INTEGER PRIMARY KEY)")
    await rows(busy.connection, "INSERT INTO t VALUES (1)")
    for statement, kind in (
        ("INSERT INTO t VALUES (1)", sqlite3.IntegrityError),
        ("SELECT * FROM nowhere", sqlite3.OperationalError),
        ("SELECT ?", sqlite3.ProgrammingError),
    ):
        with pytest.raises(kind) as raised:
            await rows(busy.connection, statement)
        assert (raised.value.__cause__, raised.value.__context__) == (None, None)
        names = [frame.name for frame in traceback.extract_tb(raised.value.__traceback__)]
        assert names[-1] == "_execute"
        assert not {"_do", "_work", "_settle"} & set(names)
    assert await rows(busy.connection, "SELECT x FROM t") == [(1,)]


async def test_a_closed_connection_says_so(busy: Busy) -> None:
    """In the words by which SQLAlchemy knows that it is gone; to close it again is nothing."""
    cursor = busy.connection.cursor()
    await busy.connection.close()
    await busy.connection.close()
    busy.connection.stop()
    for work in (cursor.execute("SELECT 1"), busy.connection.commit(), busy.connection.rollback()):
        with pytest.raises(sqlite3.OperationalError, match="no active connection"):
            await work
    dialect = sa.create_engine("sqlite+aiosqlite://").dialect
    assert dialect.is_disconnect(sqlite3.OperationalError("no active connection"), None, None)  # type: ignore[arg-type]


async def test_a_new_cursor_can_be_awaited_and_entered(busy: Busy) -> None:
    """SQLAlchemy 2.0 does the one, and 2.1 the other."""
    cursor = busy.connection.cursor()
    assert await cursor is cursor
    assert await cursor.__aenter__() is cursor


async def test_a_pool_replaces_a_connection_that_is_gone(tmp_path: Path) -> None:
    """Somebody ended it while nobody used it: one caller hears of it at most, and the next has a new one."""
    database = Database(f"sqlite:///{tmp_path / 'some.db'}")
    async with database.engine.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
    assert isinstance(driver, OneTripConnection)
    await driver.close()
    with pytest.raises(sa.exc.OperationalError) as raised:
        async with database.engine.connect() as connection:
            await connection.execute(sa.text("SELECT 1"))
    assert raised.value.connection_invalidated
    async with database.engine.connect() as connection:
        assert await connection.scalar(sa.text("SELECT 1")) == 1
    await database.close()


# --- left open --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_used", [False, True])
async def test_a_dropped_connection_is_told_of_and_closed(is_used: bool, tmp_path: Path) -> None:  # noqa: FBT001
    """Nothing keeps it alive while its thread waits for work: it is collected, and the thread ends."""
    before = own_threads()
    kept = [await connect(str(tmp_path / "some.db"))]
    if is_used:
        assert await rows(kept[0], "SELECT 1") == [(1,)]
    assert own_threads() - before
    with pytest.warns(ResourceWarning, match="not closed"):
        kept.clear()
    await until(lambda: own_threads() <= before)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_dropped_connection_is_closed_where_warnings_are_errors(tmp_path: Path) -> None:
    """As with `-W error`: the warning is raised, and the thread ends all the same."""
    before = own_threads()
    kept = [await connect(str(tmp_path / "some.db"))]
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        kept.clear()
    await until(lambda: own_threads() <= before)


_UNCLOSED = """
import asyncio, sys, threading
from latchstring.foundation.database.sqlite import connect

async def leave():
    global connection
    connection = await connect(sys.argv[1])
    begun = threading.Event()
    await connection.create_function("begin", 0, begun.set)
    await connection.cursor().execute("SELECT 1")
    if sys.argv[2] == "busy":
        endless = "WITH RECURSIVE n(i) AS (SELECT begin() UNION ALL SELECT 1 FROM n) SELECT max(i) FROM n"
        asyncio.create_task(connection.cursor().execute(endless))
        await asyncio.to_thread(begun.wait)
    print("left", flush=True)

asyncio.run(leave())
"""


@pytest.mark.parametrize("how", ["idle", "busy"])
def test_an_unclosed_connection_does_not_hang_the_exit(how: str, tmp_path: Path) -> None:
    """A script that ends without closing its connection ends, also while a statement runs that never would."""
    command = [sys.executable, "-c", _UNCLOSED, str(tmp_path / "some.db"), how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG_SECONDS, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "left\n", "")
