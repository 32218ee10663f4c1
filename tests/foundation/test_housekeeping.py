"""Housekeeping: evidence is kept as long as it should be, then goes a few rows at a time, and nobody waits for it.

And what a table of much evidence costs: how the statements that matter find their rows, and what a refresh writes.
"""

import asyncio
import base64
import contextlib
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import httpx2
import jwt
import psycopg
import pytest
import sqlalchemy as sa

from drills.ten_million import Ask, Asked, asked_of, fill, ways
from latchstring import Settings
from latchstring.core.keys.key_set import make_private_pem
from latchstring.core.keys.settings import Algorithm
from latchstring.core.revocations import store as revocations_store
from latchstring.core.revocations.tables import revocations
from latchstring.core.sessions import store
from latchstring.core.sessions.rules import Session
from latchstring.core.sessions.tables import sessions
from latchstring.foundation import housekeeping
from latchstring.foundation.database import Database, lock_exclusively, metadata
from latchstring.foundation.events import OPERATOR
from latchstring.foundation.limits import Limits, LimitSettings, prune_limits
from latchstring.foundation.limits.tables import slots
from latchstring.testing import ManualClock
from tests.support.hang import HANG_SECONDS
from tests.support.service import Service, cheap_settings, credentials, quiet_app, running_service

PRIVATE_KEY = base64.b64encode(make_private_pem(Algorithm.EDDSA)).decode()
KEPT_DAYS = 30


@pytest.fixture
def settings(database_url: str) -> Settings:
    """The keys come from the environment here; signing with Ed25519 costs next to nothing."""
    return cheap_settings(database_url, jwt_algorithm="EdDSA", jwt_private_key=PRIVATE_KEY)


@contextlib.asynccontextmanager
async def idle_service(settings: Settings, clock: ManualClock) -> AsyncIterator[Service]:
    """Gives a worker that follows nothing and clears nothing away but what it is told to."""
    app = quiet_app(settings, clock)
    service = Service(app=app, auth=app.state.latchstring, clock=clock, settings=settings)
    try:
        yield service
    finally:
        await service.auth.close()


@pytest.fixture
async def service(settings: Settings, clock: ManualClock) -> AsyncIterator[Service]:
    """One that begins at noon, so that what happens within hours happens on one day."""
    turn_to(clock, clock.now().replace(hour=12, minute=0, second=0) + timedelta(days=1))
    async with idle_service(settings, clock) as service:
        yield service


@pytest.fixture
async def other(settings: Settings, clock: ManualClock) -> AsyncIterator[Service]:
    """Another worker on the same database."""
    async with idle_service(settings, clock) as service:
        yield service


def turn_to(clock: ManualClock, instant: datetime) -> None:
    """Turns the clock to an instant."""
    clock.advance(seconds=(instant - clock.now()).total_seconds())


def first_moment_of(day: date) -> datetime:
    """Returns midnight, UTC."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


async def count(service: Service, table: sa.Table) -> int:
    """Returns how many rows a table has."""
    async with service.auth.parts.tools.database.reading() as connection:
        return int((await connection.execute(sa.select(sa.func.count()).select_from(table))).scalar_one())


async def refreshed(browser: httpx2.AsyncClient) -> int:
    """Returns the status of a refresh."""
    return (await browser.post("/api/auth/refresh")).status_code


async def insert_sessions(service: Service, how_many: int, *, ended_on: date) -> None:
    """Writes the rows of sessions that ended by themselves on a day."""
    opened_at = first_moment_of(ended_on)
    gone_at = opened_at + timedelta(hours=1)
    async with service.auth.parts.tools.database.transaction() as connection:
        for _ in range(how_many):
            session = Session(
                id=uuid4(),
                user_id=uuid4(),
                epoch=0,
                created_at=opened_at,
                proven_at=opened_at,
                methods=("pwd",),
                generation=1,
                rotated_at=opened_at,
                expires_at=gone_at,
                ends_at=opened_at + timedelta(days=30),
                generation_access_expires_at=gone_at,
                access_expires_at=gone_at,
                refreshes=0,
                refreshes_since=opened_at,
                revoked_at=None,
                revoked_reason=None,
            )
            await store.insert_session(connection, session, source=OPERATOR)


async def insert_old_sessions(service: Service, how_many: int) -> None:
    """Writes the rows of sessions that nobody needs any more."""
    await insert_sessions(service, how_many, ended_on=service.clock.now().date() - timedelta(days=KEPT_DAYS + 1))


# --- what goes, and when ----------------------------------------------------------------------------------------------


async def signed_out(_service: Service, browser: httpx2.AsyncClient) -> None:
    assert (await browser.post("/api/auth/logout")).status_code == 200


async def left_alone(service: Service, _browser: httpx2.AsyncClient) -> None:
    service.clock.advance(minutes=service.settings.refresh_token_expire_minutes)


async def grown_old(service: Service, browser: httpx2.AsyncClient) -> None:
    minutes = service.settings.session_max_days * 24 * 60
    for _ in range(int(minutes // 40)):
        service.clock.advance(minutes=40)
        assert await refreshed(browser) == 200
    service.clock.advance(minutes=minutes % 40)


@pytest.mark.parametrize("end", [signed_out, left_alone, grown_old])
async def test_an_ended_session_is_kept_as_evidence_and_then_deleted(
    end: Callable[[Service, httpx2.AsyncClient], Awaitable[None]], service: Service, database_url: str
) -> None:
    """However a session ended, its row stays for as many days as the setting says, and goes on the day after them."""
    settings = service.settings.model_copy(update={"session_max_days": 0.1})
    async with idle_service(settings, service.clock) as short_lived:
        browser = await short_lived.registered()
        await end(short_lived, browser)
        assert await refreshed(browser) in {401, 403}  # 403: there is no token any more
        ended_on = short_lived.clock.now().date()
        last_day = first_moment_of(ended_on) + timedelta(days=KEPT_DAYS)
        for instant, left in (
            (short_lived.clock.now(), 1),
            (last_day, 1),
            (last_day + timedelta(hours=23, minutes=59, seconds=59), 1),
            (last_day + timedelta(days=1), 0),
        ):
            turn_to(short_lived.clock, instant)
            await short_lived.auth.parts.housekeeping.clean_up()
            assert await count(short_lived, sessions) == left, instant


async def test_nothing_is_kept_where_nothing_should_be(service: Service) -> None:
    """With `session_keep_days` at nought, an ended session goes on the day after its end, and a living one stays."""
    settings = service.settings.model_copy(update={"session_keep_days": 0.0})
    async with idle_service(settings, service.clock) as forgetful:
        browser = await forgetful.registered()
        for _ in range(40):  # more than a day: midnight comes while it lives
            forgetful.clock.advance(minutes=50)
            await forgetful.auth.parts.housekeeping.clean_up()
            assert await refreshed(browser) == 200
        await signed_out(forgetful, browser)
        await forgetful.auth.parts.housekeeping.clean_up()
        assert await count(forgetful, sessions) == 1
        turn_to(forgetful.clock, first_moment_of(forgetful.clock.now().date() + timedelta(days=1)))
        await forgetful.auth.parts.housekeeping.clean_up()
        assert await count(forgetful, sessions) == 0


async def test_a_living_session_is_never_deleted(service: Service) -> None:
    """A session that is refreshed for weeks, longer than evidence is kept, is there to the last."""
    settings = service.settings.model_copy(
        update={"session_max_days": 90.0, "refresh_token_expire_minutes": 60 * 24 * 2.0}
    )
    async with idle_service(settings, service.clock) as long_lived:
        browser = await long_lived.registered()
        for _ in range(60):
            long_lived.clock.advance(days=1.5)
            await long_lived.auth.parts.housekeeping.clean_up()
            if long_lived.clock.now() < await end_of_session(long_lived):
                assert await refreshed(browser) == 200
        assert await refreshed(browser) == 401
        assert await count(long_lived, sessions) == 1


async def end_of_session(service: Service) -> datetime:
    """Returns when the only session there is ends for good."""
    async with service.auth.parts.tools.database.reading() as connection:
        ends_at: datetime = (await connection.execute(sa.select(sessions.c.ends_at))).scalar_one()
    return ends_at


async def test_a_revocation_outlives_its_tokens_by_a_day(service: Service) -> None:
    """An entry stays a day longer than it is needed: a clock that is a day ahead deletes nothing others rely on."""
    browser = await service.registered()
    await signed_out(service, browser)
    async with service.auth.parts.tools.database.reading() as connection:
        expires_at = (await connection.execute(sa.select(revocations.c.expires_at))).scalar_one()
    for instant, left in ((expires_at + timedelta(days=1), 1), (expires_at + timedelta(days=1, seconds=1), 0)):
        turn_to(service.clock, instant)
        await service.auth.parts.housekeeping.clean_up()
        assert await count(service, revocations) == left


async def test_an_epoch_is_never_forgotten(service: Service, other: Service) -> None:
    """Centuries after everyone was signed out, the entry that says so is there, and new sessions begin in its epoch."""
    await service.auth.sessions.revoke_everyone(source=OPERATOR)
    service.clock.advance(days=365 * 300)
    await service.auth.parts.housekeeping.clean_up()
    assert await count(service, revocations) == 1
    async with service.auth.parts.tools.database.reading() as connection:
        epoch = await revocations_store.epoch(connection)
    browser = await other.registered()
    assert jwt.decode(browser.cookies["access_token"], options={"verify_signature": False})["epoch"] == epoch > 0


async def test_a_place_goes_when_its_time_has_run_out(service: Service) -> None:
    """A place goes an hour after its window: on the clock of another instance it may count until then."""
    settings = service.settings.model_copy(update={"limits": True})
    async with idle_service(settings, service.clock) as limited:
        await limited.registered()
        for minutes, tries, left in (
            (119.9, 0, 1),  # the registration's window is an hour
            (0.2, 0, 0),
            (0, 1, 2),  # one of the account, one of the address, for a quarter of an hour
            (10, 1, 4),
            (64.9, 0, 4),
            (0.2, 0, 2),
            (10, 0, 0),
        ):
            limited.clock.advance(minutes=minutes)
            for _ in range(tries):
                answer = await limited.browser().post("/api/auth/login", json=credentials(password="not this one"))
                assert answer.status_code in {400, 401}, answer.text
            await limited.auth.parts.housekeeping.clean_up()
            assert await count(limited, slots) == left


# --- a few rows at a time ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def deletions(*services: Service) -> Iterator[list[str | int]]:
    """Notes how many rows each DELETE took, and when there was a commit, in their order."""
    seen: list[str | int] = []

    def executed(_connection: object, cursor: Any, statement: str, *_: object) -> None:  # noqa: ANN401 -- the driver's
        if statement.startswith("DELETE"):
            seen.append(cursor.rowcount)

    def committed(_connection: object) -> None:
        seen.append("commit")

    engines = [service.auth.parts.tools.database.engine.sync_engine for service in services]
    for engine in engines:
        sa.event.listen(engine, "after_cursor_execute", executed)
        sa.event.listen(engine, "commit", committed)
    yield seen
    for engine in engines:
        sa.event.remove(engine, "after_cursor_execute", executed)
        sa.event.remove(engine, "commit", committed)


async def test_a_batch_is_a_transaction_of_its_own(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten old rows go as three, three, three and one, each committed before the next; then nothing is left to do."""
    monkeypatch.setattr(housekeeping, "BATCH_SIZE", 3)
    await insert_old_sessions(service, 10)
    await service.registered()
    with deletions(service) as seen:
        assert await service.auth.parts.housekeeping.clean_up() == 10
    sessions_go = [3, "commit", 3, "commit", 3, "commit", 1, "commit"]
    assert seen == [*sessions_go, *(0, "commit") * 3], "then revocations, keys, and the places of limits"
    assert await count(service, sessions) == 1
    assert await service.auth.parts.housekeeping.clean_up() == 0


async def test_two_workers_at_once_delete_everything_once(
    service: Service, other: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever works, works alone, or both end well: what both say they deleted is what there was."""
    monkeypatch.setattr(housekeeping, "BATCH_SIZE", 3)
    monkeypatch.setattr(housekeeping, "_PAUSE_SECONDS", 0.001)
    await insert_old_sessions(service, 40)
    await service.registered()
    with deletions(service, other) as seen:
        workers = [worker.auth.parts.housekeeping.clean_up() for worker in (service, other)]
        assert sum(await asyncio.gather(*workers)) == 40
    assert sum(rows for rows in seen if isinstance(rows, int)) == 40
    assert await count(service, sessions) == 1


@pytest.mark.parametrize("backend", ["postgresql"])  # on SQLite a transaction is alone anyway
async def test_who_comes_second_steps_aside(service: Service, other: Service) -> None:
    """While another worker is at it, nothing is waited for and nothing is done; afterwards it is."""
    await insert_old_sessions(service, 3)
    async with service.auth.parts.tools.database.transaction() as connection:
        await lock_exclusively(connection, "latchstring_housekeeping")
        async with asyncio.timeout(HANG_SECONDS):
            assert await other.auth.parts.housekeeping.clean_up() == 0
        assert await count(other, sessions) == 3
    assert await other.auth.parts.housekeeping.clean_up() == 3


async def test_a_refresh_does_not_wait_for_the_whole_of_it(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much there is to clear away, a refresh comes in between two batches."""
    monkeypatch.setattr(housekeeping, "BATCH_SIZE", 1)
    browser = await service.registered()
    await insert_old_sessions(service, 200)
    clearing = asyncio.create_task(service.auth.parts.housekeeping.clean_up())
    try:
        await until(lambda: cleared_some(service, of=201))
        for _ in range(5):
            assert await refreshed(browser) == 200
        assert not clearing.done()
        assert await count(service, sessions) > 1
    finally:
        clearing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await clearing


@pytest.mark.parametrize("backend", ["postgresql"])  # SQLite has one writer: there a batch is waited for, and short
async def test_a_refresh_does_not_wait_even_for_a_batch(service: Service) -> None:
    """While a batch has not been committed yet, a living session is renewed."""
    browser = await service.registered()
    await insert_old_sessions(service, 3)
    async with service.auth.parts.tools.database.transaction() as connection:
        deleted = await store.prune_sessions(connection, before=service.clock.now().date(), most=500)
        assert deleted == 3
        async with asyncio.timeout(HANG_SECONDS):
            assert await refreshed(browser) == 200


# --- in the background ------------------------------------------------------------------------------------------------


async def until(happened: Callable[[], Awaitable[bool]]) -> None:
    """Waits for something that must happen soon.

    Raises:
        TimeoutError: it did not.
    """
    async with asyncio.timeout(HANG_SECONDS):
        while not await happened():  # noqa: ASYNC110 -- what is waited for is in the database, not in this process
            await asyncio.sleep(0.01)


async def cleared_some(service: Service, *, of: int) -> bool:
    """Tells whether some of so many sessions are gone."""
    return await count(service, sessions) < of


async def cleared_all(service: Service) -> bool:
    """Tells whether all are."""
    return await count(service, sessions) == 0


async def test_a_running_server_clears_away_by_itself(
    settings: Settings, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has to ask for it, and it is done again and again."""
    monkeypatch.setattr(housekeeping, "INTERVAL_SECONDS", 0.05)
    async with running_service(settings, clock) as service:
        for _ in range(2):
            await insert_old_sessions(service, 3)
            await until(lambda: cleared_all(service))


async def test_it_goes_on_after_a_failure(
    settings: Settings, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A statement that fails, as it does where a table is missing, ends neither the server nor the next attempt."""
    monkeypatch.setattr(housekeeping, "INTERVAL_SECONDS", 0.05)
    caplog.set_level(logging.INFO, logger=housekeeping.__name__)
    async with running_service(settings, clock) as service:
        await rename(service, "latchstring_limits", "hidden")
        await until(lambda: said(caplog, times=2))
        await insert_old_sessions(service, 3)
        await rename(service, "hidden", "latchstring_limits")
        await until(lambda: cleared_all(service))
        await service.registered()


async def rename(service: Service, table: str, name: str) -> None:
    """Renames a table."""
    async with service.auth.parts.tools.database.transaction() as connection:
        await connection.execute(sa.text(f"ALTER TABLE {table} RENAME TO {name}"))


async def said(caplog: pytest.LogCaptureFixture, *, times: int) -> bool:
    """Tells whether housekeeping has complained so often."""
    return len([record for record in caplog.records if record.name == housekeeping.__name__]) >= times


@pytest.mark.parametrize("backend", ["postgresql"])  # a SQLite file is never away
async def test_it_goes_on_when_the_database_was_away(
    settings: Settings,
    clock: ManualClock,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A database that refuses every connection is no error; when it is back, what is old goes."""
    monkeypatch.setattr(housekeeping, "INTERVAL_SECONDS", 0.05)
    caplog.set_level(logging.INFO, logger=housekeeping.__name__)
    name = database_url.rpartition("/")[2]
    with psycopg.connect(database_url.replace(name, "postgres"), autocommit=True) as server:
        async with running_service(settings, clock) as service:
            await insert_old_sessions(service, 3)
            server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
            await until(lambda: said(caplog, times=2))
            server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
            await until(lambda: came_back(service))
            await until(lambda: cleared_all(service))
    words = {record.getMessage() for record in caplog.records if record.name == housekeeping.__name__}
    assert words == {"housekeeping waits: the database is away"}


async def came_back(service: Service) -> bool:
    """Tells whether the database answers."""
    with contextlib.suppress(Exception):
        await count(service, sessions)
        return True
    return False


async def test_a_server_ends_in_the_middle_of_it(
    settings: Settings, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that is told to stop finishes the batch, however much there is left to clear away."""
    monkeypatch.setattr(housekeeping, "INTERVAL_SECONDS", 0.05)
    monkeypatch.setattr(housekeeping, "BATCH_SIZE", 1)
    async with contextlib.AsyncExitStack() as stack:
        service = await stack.enter_async_context(running_service(settings, clock))
        await insert_old_sessions(service, 200)
        await until(lambda: cleared_some(service, of=200))
        async with asyncio.timeout(HANG_SECONDS):
            await stack.aclose()
    async with idle_service(settings, clock) as service:
        assert await count(service, sessions) > 0


# --- how rows are found -----------------------------------------------------------------------------------------------

ROWS = 20_000
ADA = UUID(int=0xADA)


@pytest.fixture(params=["never analysed", "analysed"])
async def full(request: pytest.FixtureRequest, backend: str, database_url: str) -> AsyncIterator[Database]:
    """Gives a database of evidence, as the drill of ten million sessions fills it, and of as many other entries.

    SQLite is tried as it runs, where nobody ever tells it to look at its tables, and after it was told.
    """
    database = Database(database_url)
    try:
        if not database.is_sqlite:
            await keep_from_analysing(database)
        fill(database_url, ROWS, ada=ADA)
        await fill_the_rest(database)
        if request.param == "analysed":
            async with database.transaction() as connection:
                await connection.execute(sa.text("ANALYZE"))
        yield database
    finally:
        await database.close()


async def keep_from_analysing(database: Database) -> None:
    """Turns PostgreSQL's own ANALYZE off, which on a busy machine may come between filling a table and asking it."""
    async with database.transaction() as connection:
        for table in metadata.tables:
            await connection.execute(sa.text(f"ALTER TABLE {table} SET (autovacuum_enabled = off)"))


HOURS = 20
_FILL = """
    INSERT INTO {table} ({columns})
    WITH RECURSIVE numbers (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < {rows})
    SELECT {values} FROM numbers
"""


async def fill_the_rest(database: Database) -> None:
    """Writes entries of the feed and places of the limits, as of twenty hours, most of which have run out."""
    now = datetime.now(UTC)
    new_uuid, transaction = (
        ("lower(hex(randomblob(16)))", "NULL")
        if database.is_sqlite
        else (
            "gen_random_uuid()",
            "pg_current_xact_id()",
        )
    )
    entries = _FILL.format(
        rows=ROWS // HOURS,
        table="latchstring_revocations",
        columns="kind, session_id, reason, transaction_id, created_at, expires_at",
        values=f"'session', {new_uuid}, 'logout', {transaction}, :then, :then",
    )
    counted = _FILL.format(
        rows=ROWS // HOURS,
        table="latchstring_limits",
        columns="id, key, expires_at",
        values=f"{new_uuid}, CAST(i % 100 AS VARCHAR(64)), :then",
    )
    for hour in range(HOURS):
        then = sa.bindparam("then", now + timedelta(hours=hour - 15), type_=slots.c.expires_at.type)
        async with database.transaction() as connection:
            for statement in (entries, counted):
                await connection.execute(sa.text(statement).bindparams(then))


async def test_the_statements_that_matter_find_their_rows_by_an_index(full: Database, clock: ManualClock) -> None:
    """What a refresh, a list, a sign-in, a batch, a look at the feed and a counted try read does not grow with time."""
    now, limits = datetime.now(UTC), Limits(LimitSettings(), clock)
    async with full.reading() as connection:
        cursor = await revocations_store.revocations_cursor(connection)
    by_number = r"USING INTEGER PRIMARY KEY \(rowid>\?\)"
    more: list[tuple[str, Ask, str]] = [
        (
            "what is new in the feed",
            lambda on: revocations_store.revocations_since(on, cursor, most=1000),
            rf"using ix_latchstring_revocations_transaction_id|{by_number}",
        ),
        (
            "a page of the feed",  # of the two indexes that serve, PostgreSQL takes the one that leaves fewer rows
            lambda on: revocations_store.revocations_page(on, after=ROWS // 2, most=1000, now=now),
            rf"using (pk_latchstring_revocations|ix_latchstring_revocations_expires_at)|{by_number}",
        ),
        (
            "the places that a try counts",
            lambda on: limits.reserve_sign_in(on, account="ada@example.com", address="192.0.2.1"),
            r"ix_latchstring_limits_key_expires_at",
        ),
    ]
    more_asked = [Asked(name, ask, re.compile(by)) for name, ask, by in more]
    for asked in [*asked_of(owner=ADA, session_id=ADA, now=now), *more_asked]:
        # Of the keys there are a handful, and all of them are looked at.
        found = [way for way in await ways(full, asked.ask) if "latchstring_keys" not in way]
        assert asked.is_found(found), (asked.name, found)


async def test_what_has_run_out_is_found_by_an_index(full: Database) -> None:
    """A batch of old entries, or of old places, is looked for where the oldest are."""
    before = datetime.now(UTC) - timedelta(hours=14)
    chores: list[tuple[Ask, str]] = [
        (
            lambda on: revocations_store.prune_revocations(on, before=before, most=500),
            "ix_latchstring_revocations_expires_at",
        ),
        (lambda on: prune_limits(on, now=before, most=500), "ix_latchstring_limits_expires_at"),
    ]
    for ask, index in chores:
        found = await ways(full, ask)
        # Which 500 to delete is asked of the index. To get at them PostgreSQL may read all of a table that is as small
        # as this one; of sessions, whose rows are wider, it does not (above).
        assert any(index in way for way in found), found


# --- what a refresh writes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["postgresql"])  # SQLite's rows stay where they are
async def test_a_refresh_changes_no_index(service: Service) -> None:
    """PostgreSQL writes no index for a refresh (a HOT update), but for the first one that reaches into the next day."""
    browser = await service.registered()
    before = await updates(service)
    for _ in range(30):
        service.clock.advance(minutes=1)
        assert await refreshed(browser) == 200
    same_day = await updates(service)
    assert same_day - before == Updates(all=30, hot=30)
    for _ in range(13):
        service.clock.advance(minutes=59)
        assert await refreshed(browser) == 200
    assert await updates(service) - same_day == Updates(all=13, hot=12)


class Updates(NamedTuple):
    """How many updates of sessions there were, and how many of them wrote no index."""

    all: int
    hot: int

    def __sub__(self, other: "Updates") -> "Updates":
        return Updates(self.all - other.all, self.hot - other.hot)


async def updates(service: Service) -> Updates:
    """Returns what PostgreSQL has counted; the only connection there is tells it so far."""
    question = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'latchstring_sessions'"
    async with service.auth.parts.tools.database.reading() as connection:
        await connection.execute(sa.select(sa.func.pg_stat_force_next_flush()))
        row = (await connection.execute(sa.text(question))).one()
        return Updates(all=row.n_tup_upd, hot=row.n_tup_hot_upd)
