"""Transactions, the ways a database can be away, both drivers, and the schema's history."""

import asyncio
import contextlib
import gc
import sqlite3
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from uuid import UUID

import pytest
import sqlalchemy as sa
from alembic.script import ScriptDirectory

from latchstring import Settings, migrations
from latchstring.core.keys.tables import keys, secrets
from latchstring.errors import DatabaseUnavailableError
from latchstring.foundation.audit import audit, record
from latchstring.foundation.database import Connection, Database, engine, insert_or_ignore, metadata
from latchstring.foundation.database.failures import failures_translated
from latchstring.foundation.events import SYSTEM, UserRenamed
from latchstring.migrations import HEAD, VERSION_TABLE, schema_drift, schema_is_current, schema_revision, upgrade
from latchstring.testing import ManualClock
from tests.journeys import test_the_five_routes as journey
from tests.support.hang import HANG_SECONDS, until
from tests.support.hashes import hashing, held_hashes
from tests.support.postgres import Postgres
from tests.support.process import forked, run_source
from tests.support.service import Service, cheap_settings, credentials, quiet_app, registration, running_service

NOW = datetime(2026, 3, 1, 12, 0, 0, 123_456, tzinfo=UTC)
NOBODY = UUID(int=7)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A database with schema and keys."""
    opened = Database(database_url)
    yield opened
    await opened.close()


@pytest.fixture
async def empty(empty_url: str) -> AsyncIterator[Database]:
    """The same, opened."""
    opened = Database(empty_url)
    yield opened
    await opened.close()


async def write(connection: Connection) -> None:
    """Writes a row that `written` counts."""
    await record(connection, UserRenamed(at=NOW, source=SYSTEM, user_id=NOBODY))


async def written(database: Database) -> int:
    """Returns how many rows were committed."""
    async with database.reading() as connection:
        return await connection.scalar(sa.select(sa.func.count()).where(audit.c.fact == UserRenamed.name)) or 0


def checked_out(database: Database) -> int:
    """Returns how many connections are in somebody's hands."""
    pool = database.engine.pool
    assert isinstance(pool, sa.pool.QueuePool)
    return pool.checkedout()


async def all_given_back(database: Database) -> None:
    """Waits for connections that are closed or given back by tasks of their own."""
    await until(lambda: not checked_out(database))


# --- transactions -----------------------------------------------------------------------------------------------------


async def test_a_transaction_commits_as_a_whole_or_not_at_all(database: Database) -> None:
    """What was written before an exception is gone, and the next transaction is a fresh one."""

    async def work() -> None:
        async with database.transaction() as connection:
            await write(connection)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await work()
    assert await written(database) == 0
    async with database.transaction() as connection:
        await write(connection)
    assert await written(database) == 1


_SLOW = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000) SELECT max(i) FROM n",
    "postgresql": "SELECT pg_sleep(60)",
}


@pytest.mark.parametrize("while_a_statement_runs", [False, True], ids=["between-statements", "in-a-statement"])
async def test_a_cancelled_transaction_leaves_nothing(
    while_a_statement_runs: bool,  # noqa: FBT001
    database: Database,
    backend: str,
) -> None:
    """Who is cancelled has written nothing, gives the connection back, and keeps nobody from writing."""
    wrote = asyncio.Event()

    async def work() -> None:
        async with database.transaction() as connection:
            await write(connection)
            wrote.set()
            if while_a_statement_runs:
                await connection.execute(sa.text(_SLOW[backend]))
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await wrote.wait()
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    del task  # its traceback would keep the cursor, and the cursor SQLite's lock
    assert checked_out(database) == 0
    async with asyncio.timeout(HANG_SECONDS), database.transaction() as connection:
        await write(connection)
    assert await written(database) == 1


@pytest.mark.parametrize("driver", ["aiosqlite", "psycopg", "asyncpg"])
@pytest.mark.parametrize("pooled", [True, False], ids=["from-the-pool", "newly-opened"])
async def test_who_gives_up_connecting_loses_no_connection(
    pooled: bool,  # noqa: FBT001
    driver: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    """Cancelled at any moment of it, soon nothing is open that nobody holds, here or at the server."""
    url = f"sqlite:///{tmp_path / 'some.db'}"
    if driver != "aiosqlite":
        postgres: Postgres = request.getfixturevalue("postgres")
        url = postgres.url.replace("postgresql:", f"postgresql+{driver}:")

    async def look(database: Database) -> None:
        async with database.reading() as connection:
            await connection.scalar(sa.select(1))

    async def give_up(database: Database, moment: int) -> None:
        task = asyncio.create_task(look(database))
        if pooled:
            for _ in range(moment):
                await asyncio.sleep(0)
        else:
            await asyncio.sleep(0.002 * moment)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()  # what tests before this one have left, whose loops ended at once, is none of this one's
    with warnings.catch_warnings(record=True) as caught:
        for moment in range(10):
            database = Database(url)
            if pooled:
                await look(database)
                await asyncio.sleep(0.02)  # psycopg lets others run only when it has not done so for a while
            await give_up(database, moment)
            await all_given_back(database)
            await database.close()
        gc.collect()  # says aloud what was dropped while it was open
    assert [str(warning.message) for warning in caught] == []


@pytest.mark.parametrize("door", ["register", "login"])
async def test_no_connection_is_held_while_a_password_is_hashed(
    door: str, settings: Settings, clock: ManualClock
) -> None:
    """Hashing takes its time on purpose; a pool of connections would be empty meanwhile."""
    app = quiet_app(settings, clock)
    service = Service(app=app, auth=app.state.latchstring, clock=clock, settings=settings)
    clock.advance(seconds=1)
    await service.auth.parts.core.feed.poll()  # once, and not in the background: it needs a connection, too
    body = registration() if door == "register" else credentials()
    with held_hashes():
        answer = asyncio.create_task(service.browser().post(f"/api/auth/{door}", json=body))
        await hashing(service.auth.parts.tools.passwords)
        await all_given_back(service.auth.parts.tools.database)
        assert not answer.done()
    assert (await answer).status_code in {201, 400}
    await service.auth.close()


async def test_instants_are_kept_to_the_microsecond_in_utc(database: Database) -> None:
    """What goes in with any zone comes out in UTC; what has none does not go in."""
    elsewhere = NOW.astimezone(timezone(timedelta(hours=-7)))
    async with database.transaction() as connection:
        await record(connection, UserRenamed(at=elsewhere, source=SYSTEM, user_id=NOBODY))
    async with database.reading() as connection:
        at = await connection.scalar(sa.select(audit.c.at).where(audit.c.fact == UserRenamed.name))
    assert (at, at and at.tzinfo) == (NOW, UTC)
    with pytest.raises(sa.exc.StatementError, match="an instant needs a time zone"):
        async with database.transaction() as connection:
            await record(connection, UserRenamed(at=NOW.replace(tzinfo=None), source=SYSTEM, user_id=NOBODY))


async def test_insert_or_ignore_does_nothing_the_second_time(database: Database) -> None:
    """A conflict is an empty answer, not an error, and the transaction goes on."""
    async with database.transaction() as connection:
        for expected in ("one", None):
            insert = insert_or_ignore(connection, secrets).values(secret_id="one", check_sealed=b"", created_at=NOW)
            assert await connection.scalar(insert.returning(secrets.c.secret_id)) == expected
        await write(connection)
    assert await written(database) == 1


async def test_a_bug_of_ours_is_not_called_an_outage(database: Database) -> None:
    """A broken constraint is the answer of a living database, and is seen as what it is."""
    insert = secrets.insert().values(secret_id="one", check_sealed=b"", created_at=NOW)
    async with database.transaction() as connection:
        await connection.execute(insert)
        with pytest.raises(sa.exc.IntegrityError), failures_translated():
            await connection.execute(insert)


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_sqlite_keeps_what_was_answered(database: Database) -> None:
    """Every commit reaches the disk, readers never wait for the writer, and keys between tables are checked."""
    async with database.reading() as connection:
        for pragma, value in (("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1)):
            assert await connection.scalar(sa.text(f"PRAGMA {pragma}")) == value


# --- away -------------------------------------------------------------------------------------------------------------


def _error_message(code: str) -> bytes:
    """Returns PostgreSQL's ErrorResponse, as a server sends it that will not serve."""
    fields = b"".join(
        kind + text.encode() + b"\0" for kind, text in ((b"S", "FATAL"), (b"V", "FATAL"), (b"C", code), (b"M", "no"))
    )
    return b"E" + (len(fields) + 5).to_bytes(4, "big") + fields + b"\0"


Conversation = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def _says(answer: bytes) -> Conversation:
    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = int.from_bytes(await reader.readexactly(4), "big")
        if await reader.readexactly(length - 4) == (80877103).to_bytes(4, "big"):  # "may we speak TLS?"
            writer.write(b"N")
            await reader.read(1024)
        writer.write(answer)
        await writer.drain()

    return converse


async def _hangs(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    while await reader.read(1024):
        pass


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
@pytest.mark.parametrize(
    "converse",
    [
        pytest.param(None, id="refused"),
        pytest.param(_says(b""), id="closed-at-once"),
        pytest.param(_says(_error_message("57P03")), id="starting-up"),
        pytest.param(_says(_error_message("57P01")), id="shutting-down"),
        pytest.param(_says(_error_message("53300")), id="too-many-clients"),
        pytest.param(_hangs, id="silent"),
    ],
)
async def test_every_way_to_be_away_is_one_error(
    converse: Conversation | None, driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused, hung up, starting, stopping, full or silent: callers see that it is away, and none waits for ever."""
    monkeypatch.setattr(engine, "TIMEOUT_SECONDS", 0.3)

    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            if converse is not None:
                await converse(reader, writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    if converse is None:
        server.close()
    database = Database(f"postgresql+{driver}://somebody:something@127.0.0.1:{port}/somewhere")
    for way in (database.reading, database.transaction):
        async with asyncio.timeout(HANG_SECONDS):
            with pytest.raises(DatabaseUnavailableError):
                async with way() as connection:
                    await connection.execute(sa.select(1))
    await database.close()
    server.close()
    for writer in writers:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
@pytest.mark.parametrize("backend", ["postgresql"])
async def test_both_drivers_go_the_whole_way(driver: str, database_url: str, clock: ManualClock) -> None:
    """The five routes, over psycopg and over asyncpg."""
    clock.advance(seconds=1)
    url = database_url.replace("postgresql:", f"postgresql+{driver}:")
    async with running_service(cheap_settings(url), clock) as service:
        assert service.auth.parts.tools.database.engine.dialect.driver == driver
        await journey.test_register_dashboard_refresh_logout(service)


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
@pytest.mark.parametrize("backend", ["postgresql"])
async def test_connections_that_broke_are_replaced(driver: str, database_url: str) -> None:
    """After every connection was cut, one caller at most hears of it, and nobody a second time."""
    database = Database(database_url.replace("postgresql:", f"postgresql+{driver}:"))

    async def cut_all() -> None:
        others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
        async with database.reading() as connection:
            await connection.execute(sa.text(f"{others} AND pid <> pg_backend_pid()"))

    async def hold(until: asyncio.Event) -> None:
        async with database.reading() as connection:
            await connection.scalar(sa.select(1))
            await until.wait()

    until = asyncio.Event()
    holders = [asyncio.create_task(hold(until)) for _ in range(4)]
    await asyncio.sleep(0.2)
    until.set()
    await asyncio.gather(*holders)
    await cut_all()
    heard = 0
    for _ in range(8):
        try:
            async with database.transaction() as connection:
                await write(connection)
        except DatabaseUnavailableError:
            heard += 1
    assert heard <= 1
    assert await written(database) == 8 - heard
    await database.close()


# --- the schema's history ---------------------------------------------------------------------------------------------


def test_head_is_the_newest_revision() -> None:
    """The constant that a start compares with is the newest file's, and the history is one line."""
    scripts = ScriptDirectory(str(Path(migrations.__file__).parent))
    assert scripts.get_heads() == [HEAD]
    assert len(scripts.get_bases()) == 1


async def test_a_fresh_schema_is_what_the_tables_say(empty: Database) -> None:
    """Migrating from nothing gives exactly the tables, columns, types and indexes that the code declares."""
    assert await schema_revision(empty) is None
    await upgrade(empty)
    assert await schema_revision(empty) == HEAD
    assert await schema_drift(empty) == []
    async with empty.reading() as connection:
        if not empty.is_sqlite:
            kind = sa.text("SELECT data_type FROM information_schema.columns WHERE column_name = 'transaction_id'")
            assert await connection.scalar(kind) == "xid8"


async def test_epochs_get_64_bits_where_they_stand(empty: Database) -> None:
    """From 0004 on: a row that was there keeps its epoch, and one of the year 2100 fits beside it."""
    await upgrade(empty)
    insert = sa.text(
        "INSERT INTO latchstring_revocations (kind, below_version, reason, created_at, expires_at) "
        "VALUES ('everyone', :epoch, 'operator', '2026-11-28', '9000-01-01')"
    )
    async with empty.transaction() as connection:
        if not empty.is_sqlite:
            for table, column in (("revocations", "below_version"), ("sessions", "epoch"), ("keys", "revision")):
                await connection.execute(sa.text(f"ALTER TABLE latchstring_{table} ALTER COLUMN {column} TYPE integer"))
        await connection.execute(insert, {"epoch": 3})
        await connection.execute(sa.text("UPDATE latchstring_schema_version SET version_num = '0004'"))
    await upgrade(empty)
    assert await schema_drift(empty) == []
    async with empty.transaction() as connection:
        await connection.execute(insert, {"epoch": 2**32})
        found = await connection.execute(sa.text("SELECT below_version FROM latchstring_revocations ORDER BY sequence"))
        assert list(found.scalars()) == [3, 2**32]


_EIGHT_AT_ONCE = """
import asyncio, os, sys
import alembic.command
from latchstring.apps.server import prepare
from tests.support.hang import patience
from tests.support.service import cheap_settings

wait, go = os.pipe()
children = []
for _ in range(8):
    child = os.fork()
    if child == 0:
        os.close(go)
        os.read(wait, 1)
        try:
            with patience():
                asyncio.run(prepare(cheap_settings(sys.argv[1])))
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
        os._exit(0)
    children.append(child)
os.close(go)
failed = [child for child in children if os.waitpid(child, 0)[1]]
sys.exit(len(failed))
"""


async def test_eight_processes_prepare_one_database(empty: Database, empty_url: str, tmp_path: Path) -> None:
    """Instances that start together find one schema and one key: none fails, and one of them made each."""
    eight = partial(forked, run_source, "python", _EIGHT_AT_ONCE, empty_url, cwd=tmp_path)
    outcome = await asyncio.to_thread(eight)
    assert (outcome.returncode, outcome.stderr) == (0, "")
    assert await schema_revision(empty) == HEAD
    async with empty.reading() as connection:
        for table in (keys, secrets):
            assert await connection.scalar(sa.select(sa.func.count()).select_from(table)) == 1


async def test_a_host_s_own_tables_are_left_alone(empty: Database) -> None:
    """A `users` and an `alembic_version` that were there before belong to somebody else."""
    async with empty.transaction() as connection:
        await connection.execute(sa.text("CREATE TABLE users (id INTEGER PRIMARY KEY, email VARCHAR(50))"))
        await connection.execute(sa.text("INSERT INTO users VALUES (1, 'host@example.com')"))
        await connection.execute(sa.text("CREATE TABLE alembic_version (version_num VARCHAR(32) PRIMARY KEY)"))
        await connection.execute(sa.text("INSERT INTO alembic_version VALUES ('of the host')"))
    await upgrade(empty)
    assert await schema_is_current(empty)
    async with empty.reading() as connection:
        assert (await connection.execute(sa.text("SELECT * FROM users"))).all() == [(1, "host@example.com")]
        assert (await connection.execute(sa.text("SELECT * FROM alembic_version"))).all() == [("of the host",)]
        names = set(await connection.run_sync(lambda sync: sa.inspect(sync).get_table_names()))
    assert all(name.startswith("latchstring_") for name in names - {"users", "alembic_version"})
    assert names >= set(metadata.tables) | {VERSION_TABLE}


async def test_upgrading_again_changes_nothing(database: Database) -> None:
    """A start on a current schema keeps keys and data as they are."""
    async with database.reading() as connection:
        before = (await connection.execute(sa.select(keys))).all()
    await upgrade(database)
    async with database.reading() as connection:
        assert (await connection.execute(sa.select(keys))).all() == before
    assert len(before) == 1


async def test_a_new_file_that_another_instance_is_making(tmp_path: Path) -> None:
    """SQLite refuses to switch such a file to its log at once, and does not wait as elsewhere; we do."""
    path = tmp_path / "new.db"
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("CREATE TABLE being_made (x)")
    asyncio.get_running_loop().call_later(0.3, other.execute, "COMMIT")
    database = Database(f"sqlite:///{path}")
    async with database.reading() as connection:
        assert await connection.scalar(sa.text("PRAGMA journal_mode")) == "wal"
    await database.close()
    other.close()
