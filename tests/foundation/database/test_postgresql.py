"""New connections to PostgreSQL: through a pooler, to several hosts, to a standby, on both drivers."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from latchstring import Auth, Settings
from latchstring.apps.server import prepare
from latchstring.core.revocations import store
from latchstring.errors import DatabaseUnavailableError
from latchstring.foundation.database import STATEMENTS_ARE_LOST, Database, statements_lost_by_pooler
from latchstring.foundation.database.postgresql import STANDBY
from latchstring.foundation.database.settings import PreparedStatements
from latchstring.testing import ManualClock
from tests.support.pgbouncer import pooler
from tests.support.postgres import OwnPostgres, Postgres, free_port
from tests.support.service import SECRET, Service, cheap_settings, running_service

DRIVERS = ["psycopg", "asyncpg"]
UNPREPARED: dict[str, dict[str, object]] = {
    "psycopg": {"prepare_threshold": None},
    "asyncpg": {"statement_cache_size": 0},
}
"""What docs/operations.md tells applications to pass as `connect_args`."""


def by(driver: str, url: str) -> str:
    """Returns the URL for a driver."""
    return url.replace("postgresql:", f"postgresql+{driver}:", 1)


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def pooled(postgres: Postgres) -> Iterator[Callable[[str], str]]:
    """Routes a URL through a pooler, in which a transaction hardly ever gets the connection of the last one."""
    with pooler(postgres.url) as through:
        yield through


@pytest.fixture
def direct_url(postgres: Postgres, postgres_template: str) -> Iterator[str]:
    """A database of its own, with schema and keys."""
    url = postgres.create_database(template=postgres_template)
    yield url
    postgres.drop_database(url)


# --- a pooler that works by transaction; whole lives through it are in tests/drills/test_database_drills.py


@pytest.mark.parametrize("mode", ["auto", "on", "off"])
async def test_statements_are_prepared_where_they_can_be(
    mode: PreparedStatements, driver: str, direct_url: str, pooled: Callable[[str], str]
) -> None:
    """LATCHSTRING_DATABASE_PREPARED_STATEMENTS: `auto` gives up nothing on a direct connection."""
    expected = {"auto": (True, False), "on": (True, True), "off": (False, False)}
    seen = []
    for url in (direct_url, pooled(direct_url)):
        database = Database(by(driver, url), prepared_statements=mode)
        # In one transaction, so that a pooler changes nothing before it is seen.
        async with database.transaction() as connection:
            for _ in range(8):  # psycopg prepares what is sent for the sixth time
                await connection.scalar(sa.select(1))
            prepared = sa.text("SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE 'SELECT 1%'")
            seen.append((await connection.scalar(prepared) or 0) > 0)
        await database.close()
    assert tuple(seen) == expected[mode]


async def test_connections_opened_together_prepare_nothing(
    driver: str, direct_url: str, pooled: Callable[[str], str]
) -> None:
    """Each finds the pooler, whichever finds it first."""
    database = Database(by(driver, pooled(direct_url)))

    async def prepares() -> bool:
        async with database.transaction() as connection:
            for _ in range(8):
                await connection.scalar(sa.select(1))
            prepared = sa.text("SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE 'SELECT 1%'")
            return (await connection.scalar(prepared) or 0) > 0

    found = await asyncio.gather(*(prepares() for _ in range(5)), return_exceptions=True)
    await database.close()
    assert found == [False] * 5


async def test_a_lost_statement_is_said_so(driver: str, direct_url: str, pooled: Callable[[str], str]) -> None:
    """Where prepared statements are forced behind a pooler, the failure is a 503 whose words say what to set."""
    database = Database(by(driver, pooled(direct_url)), prepared_statements="on")
    fillers = [Database(by(driver, pooled(direct_url)), prepared_statements="on") for _ in range(3)]

    async def ask(database: Database) -> None:
        for _ in range(40):
            async with database.reading() as connection:
                await connection.scalar(sa.select(1))

    outcomes = await asyncio.gather(*(ask(each) for each in (database, *fillers)), return_exceptions=True)
    failures = [outcome for outcome in outcomes if outcome is not None]
    assert failures
    assert {type(failure) for failure in failures} == {DatabaseUnavailableError}
    assert STATEMENTS_ARE_LOST in {str(failure) for failure in failures}
    for each in (database, *fillers):
        await each.close()


async def test_an_application_s_engine_behind_a_pooler(
    driver: str, direct_url: str, pooled: Callable[[str], str]
) -> None:
    """`auth.audit` finds one that prepares statements; with what the docs say, it works and nothing is found."""
    prepares = create_async_engine(by(driver, pooled(direct_url)), poolclass=NullPool)
    unprepared = create_async_engine(by(driver, pooled(direct_url)), connect_args=UNPREPARED[driver])
    direct = create_async_engine(by(driver, direct_url))
    assert [await found(engine) for engine in (prepares, unprepared, direct)] == [True, False, False]
    for engine in (prepares, unprepared, direct):
        await engine.dispose()


async def found(engine: AsyncEngine) -> bool:
    """Tells whether an application on an engine is told about prepared statements."""
    app, auth = FastAPI(), Auth(engine, secret=SECRET, settings=Settings(password_hash_memory_kib=8))
    auth.install(app, prefix="/auth")
    findings = (await auth.audit(app)).findings
    await auth.close()
    return STATEMENTS_ARE_LOST in {finding.words for finding in findings if finding.name == "prepared_statements"}


async def test_sqlite_has_no_pooler(sqlite_template: object) -> None:
    """The question is not asked there."""
    database = Database(f"sqlite:///{sqlite_template}")
    async with database.reading() as connection:
        assert not await statements_lost_by_pooler(connection)
    await database.close()


# --- several hosts, and standbys --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def primary() -> Iterator[OwnPostgres]:
    with OwnPostgres() as server:
        yield server


@pytest.fixture(scope="module")
def standby(primary: OwnPostgres) -> Iterator[OwnPostgres]:
    with primary.standby() as server:
        yield server


def hosts(url: str, *ports: int) -> str:
    """Returns a URL with several hosts, as libpq takes it."""
    before, _, after = url.partition("@")
    return f"{before}@{','.join(f'127.0.0.1:{port}' for port in ports)}/{after.partition('/')[2]}"


@pytest.fixture
async def databases() -> AsyncIterator[list[Database]]:
    """Those opened by a test."""
    opened: list[Database] = []
    yield opened
    for database in opened:
        await database.close()


async def is_standby(database: Database) -> bool:
    """Asks the server that a connection leads to."""
    async with database.reading() as connection:
        return bool(await connection.scalar(sa.text("SELECT pg_is_in_recovery()")))


async def test_of_several_hosts_the_primary_is_taken(
    driver: str, primary: OwnPostgres, standby: OwnPostgres, databases: list[Database]
) -> None:
    """A host that is down, and a standby, are passed over, also without `target_session_attrs`."""
    url = hosts(by(driver, primary.url), free_port(), standby.port, primary.port)
    databases += [Database(url), Database(f"{url}?target_session_attrs=read-write")]
    assert [await is_standby(database) for database in databases] == [False, False]
    databases.append(Database(f"{url}?target_session_attrs=any"))
    with pytest.raises(DatabaseUnavailableError, match=STANDBY):
        await is_standby(databases[-1])


async def test_a_host_that_says_nothing_does_not_take_all_the_time(
    driver: str, primary: OwnPostgres, databases: list[Database]
) -> None:
    """The next host gets its turn within the five seconds of one transaction (`test_urls.py` adds them up)."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        databases.append(Database(hosts(by(driver, primary.url), silent.getsockname()[1], primary.port)))
        assert not await is_standby(databases[-1])


async def test_a_standby_is_no_database(driver: str, standby: OwnPostgres, databases: list[Database]) -> None:
    """A URL that leads to a read replica fails closed, and says why."""
    database = Database(by(driver, standby.url))
    databases.append(database)
    for opened in (database.reading, database.transaction):
        with pytest.raises(DatabaseUnavailableError, match=STANDBY):
            async with opened():
                pass


async def test_the_feed_is_never_read_from_a_standby(
    driver: str, primary: OwnPostgres, standby: OwnPostgres, databases: list[Database]
) -> None:
    """Also where an application's own pool, or a pooler, leads to one: neither a poll nor a first read succeeds."""
    url = primary.create_database()
    await prepare(cheap_settings(url, jwt_algorithm="EdDSA"))
    await caught_up(primary, standby)
    engine = create_async_engine(hosts(by(driver, url), standby.port))
    database = Database(engine)
    assert await is_standby(database)
    async with database.reading() as connection:
        for read in (store.revocations_cursor(connection), store.revocations_since(connection, "0", most=1)):
            with pytest.raises(DatabaseUnavailableError, match=STANDBY):
                await read
    await engine.dispose()


async def test_a_guard_lets_nobody_in_by_a_standby(primary: OwnPostgres, clock: ManualClock) -> None:
    """An application's pool that leads to a standby serves no guard until the standby is promoted."""
    url = primary.create_database()
    settings = cheap_settings(url, jwt_algorithm="EdDSA")
    await prepare(settings)
    async with running_service(settings, clock) as service:
        token = {"Authorization": f"Bearer {(await service.registered()).cookies['access_token']}"}
    with primary.standby() as standby:
        await caught_up(primary, standby)
        engine = create_async_engine(hosts(by("psycopg", url), standby.port))
        settings = settings.model_copy(update={"database_url": None})
        app, auth = FastAPI(), Auth(engine, settings=settings, clock=clock, migrate=False)
        auth.install(app, prefix="/api/auth")
        auth.parts.background._loop = asyncio.get_running_loop()  # it polls when told
        service = Service(app=app, auth=auth, clock=clock, settings=settings)
        with pytest.raises(DatabaseUnavailableError, match=STANDBY):
            await auth.parts.core.feed.poll()
        refused = await service.browser().get("/api/auth/me", headers=token)
        assert (refused.status_code, refused.json()["code"]) == (503, "revocations_unknown")
        standby.promote()
        await auth.parts.core.feed.poll()
        assert (await service.browser().get("/api/auth/me", headers=token)).status_code == 200
        await auth.close()
        await engine.dispose()


async def caught_up(primary: OwnPostgres, standby: OwnPostgres) -> None:
    """Waits until a standby has what the primary has."""
    (at,) = primary.execute("SELECT pg_current_wal_lsn()::text")[0]
    while True:
        with_it = standby.execute("SELECT pg_last_wal_replay_lsn()::text")[0][0]
        if [int(part, 16) for part in with_it.split("/")] >= [int(part, 16) for part in at.split("/")]:
            return
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("lent", [False, True], ids=["own", "lent"])
async def test_a_connection_that_became_read_only_is_dropped(
    lent: bool,  # noqa: FBT001
    driver: str,
    direct_url: str,
) -> None:
    """The old primary, demoted: the failed write is a 503, and the next one gets another connection."""
    engine = create_async_engine(by(driver, direct_url))
    database = Database(engine if lent else by(driver, direct_url))
    async with database.reading() as connection:
        await connection.execute(sa.text("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"))
    write = sa.text("CREATE TABLE IF NOT EXISTS written (x int)")
    with pytest.raises(DatabaseUnavailableError):
        async with database.transaction() as connection:
            await connection.execute(write)
    async with database.transaction() as connection:
        await connection.execute(write)
    await database.close()
    await engine.dispose()
