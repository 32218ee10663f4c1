"""Connections to PostgreSQL: one that requests can't use up, and a server that hangs holds nobody."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from latchstring.errors import DatabaseUnavailableError
from latchstring.foundation.database import Connection, Database, checkout, engine
from tests.support.hang import HANG_SECONDS, until
from tests.support.postgres import OwnPostgres, Postgres

TIMEOUT_SECONDS = 0.2
DRIVERS_WAIT_SECONDS = {"psycopg": 5.0, "asyncpg": 2.0}
"""How long psycopg waits for a server that is to cancel a statement, and then again; and asyncpg, to be closed."""

drivers = pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])


@pytest.fixture
def url(postgres: Postgres) -> Iterator[str]:
    """An empty database."""
    url = postgres.create_database()
    yield url
    postgres.drop_database(url)


def with_driver(url: str, driver: str) -> sa.URL:
    return make_url(url).set(drivername=f"postgresql+{driver}")


@pytest.fixture
async def host_engine(url: str, driver: str) -> AsyncIterator[AsyncEngine]:
    """An application's engine: one connection, and it sets the `search_path` of each."""
    engine = create_async_engine(with_driver(url, driver), pool_size=1, max_overflow=0)
    yield engine
    await engine.dispose()


async def number_of_connections(connection: Connection) -> int:
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    return int((await connection.execute(sa.text(query))).scalar_one())


@drivers
async def test_requests_that_hold_the_pool_delay_nothing_apart(host_engine: AsyncEngine) -> None:
    """T8: all connections of an application's engine are in its handlers' hands, and ours is not one of them."""
    database = Database(host_engine)
    try:
        async with host_engine.connect(), database.reading_apart() as connection:
            assert await number_of_connections(connection) == 2
            assert connection.sync_connection is not None
        # It stays open, and is the only one, however many ask at once.
        await asyncio.gather(*(_read_apart(database) for _ in range(5)))
        async with host_engine.connect(), database.reading_apart() as connection:
            assert await number_of_connections(connection) == 2
    finally:
        await database.close()
    async with host_engine.connect() as connection:
        await until_only_connection(connection)


async def _read_apart(database: Database) -> None:
    async with database.reading_apart() as connection:
        await connection.execute(sa.text("SELECT 1"))


async def until_only_connection(connection: Connection) -> None:
    """Waits until the server has noticed that the others were closed."""
    async with asyncio.timeout(HANG_SECONDS):
        while await number_of_connections(connection) > 1:  # noqa: ASYNC110 -- the server tells nobody
            await asyncio.sleep(0.01)


@drivers
@pytest.mark.parametrize("pool", [{}, {"poolclass": NullPool}], ids=["pool", "no-pool"])
async def test_it_is_connected_as_the_application_connects(url: str, driver: str, pool: dict[str, Any]) -> None:
    """T8: passwords that are fetched anew (`do_connect`), and what is done to each connection, are of the engine."""
    wrong = with_driver(url, driver).set(password="wrong")
    host_engine = create_async_engine(wrong, **pool)
    database = Database(host_engine)

    def connects(_dialect: object, _record: object, _arguments: object, options: dict[str, Any]) -> None:
        options["password"] = make_url(url).password

    def connected(connection: Any, _record: object) -> None:  # noqa: ANN401 -- the driver's
        connection.cursor().execute("SET application_name TO 'host'")
        connection.commit()

    sa.event.listen(host_engine.sync_engine, "do_connect", connects)
    sa.event.listen(host_engine.sync_engine, "connect", connected)
    try:
        processes = set()
        for _ in range(3):
            async with database.reading_apart() as connection:
                assert (await connection.execute(sa.text("SHOW application_name"))).scalar_one() == "host"
                processes.add((await connection.execute(sa.text("SELECT pg_backend_pid()"))).scalar_one())
        assert len(processes) == 1, "one connection, and not one for each poll"
    finally:
        await database.close()
        await host_engine.dispose()


@drivers
async def test_it_is_treated_as_the_applications_own(url: str, driver: str) -> None:
    """Also by what listens to the engine, and not to its pool; and the application keeps its pool."""
    host_engine = create_async_engine(with_driver(url, driver))
    database = Database(host_engine)
    pool = host_engine.pool

    @sa.event.listens_for(host_engine.sync_engine, "engine_connect")
    def connected(connection: sa.Connection) -> None:
        connection.exec_driver_sql("SET application_name TO 'host'")
        connection.commit()

    try:
        async with database.reading_apart() as connection:
            assert (await connection.execute(sa.text("SHOW application_name"))).scalar_one() == "host"
        assert host_engine.pool is pool
        with_options = Database(host_engine.execution_options(isolation_level="SERIALIZABLE"))
        async with with_options.reading_apart() as connection:
            assert (await connection.execute(sa.text("SELECT 1"))).scalar_one() == 1
        await with_options.close()
        assert host_engine.pool is pool
    finally:
        await database.close()
        await host_engine.dispose()


@pytest.fixture(scope="module")
def hanging() -> Iterator[OwnPostgres]:
    """A server that may be stopped where it is."""
    with OwnPostgres() as server:
        yield server


@contextlib.contextmanager
def hung(server: OwnPostgres) -> Iterator[None]:
    server.hang()
    try:
        yield
    finally:
        server.go_on()


async def _in_a_transaction(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.execute(sa.text("SELECT 1"))


async def _reading(database: Database) -> None:
    async with database.reading() as connection:
        await connection.execute(sa.text("SELECT 1"))


@drivers
@pytest.mark.parametrize("ask", [_in_a_transaction, _reading, _read_apart])
async def test_a_server_that_hangs_holds_nobody(
    ask: Any,  # noqa: ANN401 -- one of the three above
    driver: str,
    hanging: OwnPostgres,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """T10: who waits gets an error when the time is over. Neither the driver nor closing the connection waits longer.

    The bound is that of the driver's own waiting, ten times the time limit: it finds that, and no slow machine.
    """
    monkeypatch.setattr(checkout, "_CLOSE_SECONDS", 0.01)
    database = Database(with_driver(hanging.create_database(), driver).render_as_string(hide_password=False))
    try:
        await ask(database)
        monkeypatch.setattr(engine, "TIMEOUT_SECONDS", TIMEOUT_SECONDS)
        with hung(hanging):
            began = time.monotonic()
            with pytest.raises(DatabaseUnavailableError):
                await ask(database)
            assert time.monotonic() - began < DRIVERS_WAIT_SECONDS[driver]
        monkeypatch.undo()
        await until_served(database)
    finally:
        await database.close()


@drivers
async def test_a_statement_that_waits_too_long_ends_in_the_server(
    driver: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaking the connection alone would leave it waiting for the lock, and the next ones: until none is allowed."""
    database = Database(with_driver(url, driver).render_as_string(hide_password=False))

    async def write() -> None:
        with contextlib.suppress(DatabaseUnavailableError):
            async with database.transaction() as connection:
                await connection.execute(sa.text("INSERT INTO locked VALUES (1)"))

    with psycopg.connect(url, autocommit=True) as watch, psycopg.connect(url) as locker:
        watch.execute("CREATE TABLE locked (number integer)")
        await _reading(database)
        locker.execute("LOCK TABLE locked")
        monkeypatch.setattr(engine, "TIMEOUT_SECONDS", 1.0)
        await asyncio.gather(*(write() for _ in range(8)))
        waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        await until(lambda: not watch.execute(waiting).fetchall())
    await database.close()


async def until_served(database: Database) -> None:
    """Waits until the server answers again: at once, but for connections that broke."""
    async with asyncio.timeout(HANG_SECONDS):
        while True:
            with contextlib.suppress(DatabaseUnavailableError):
                await _reading(database)
                return
