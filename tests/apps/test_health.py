"""`/readyz`, and what the log says of the same: each fault of a database, brought about at the real one."""

import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from pydantic import SecretStr
from sqlalchemy.engine import make_url

from latchstring import Settings
from latchstring.errors import UnavailableError
from latchstring.foundation import condition
from latchstring.foundation.database import engine
from latchstring.foundation.database.connection import READING
from latchstring.testing import ManualClock
from tests.support.backends import ON_POSTGRESQL, ON_SQLITE
from tests.support.service import PASSWORD, Service, quiet_service, registration

GOOD = {
    "status": "ready",
    "database": True,
    "schema_current": True,
    "keys": True,
    "revocations": True,
    "sign_in": True,
    "draining": False,
}
NO_SIGN_IN = GOOD | {"sign_in": False}
REFUSED = (503, "database_unavailable")


@pytest.fixture(autouse=True)
def settle(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Lets five seconds without a failure pass, when it is called; until then, as on a fast machine, they do not."""
    monkeypatch.setattr(condition, "SETTLING_SECONDS", 3600.0)
    return lambda: monkeypatch.setattr(condition, "SETTLING_SECONDS", 0.0)


@pytest.fixture
async def service(settings: Settings, clock: ManualClock) -> AsyncIterator[Service]:
    async with quiet_service(settings, clock) as service:
        yield service


async def readiness(service: Service, query: str = "") -> tuple[int, dict[str, Any]]:
    answer = await service.browser().get(f"/readyz{query}")
    assert answer.headers["cache-control"] == "no-store"
    return answer.status_code, answer.json()


async def register(service: Service, email: str) -> tuple[int, str | None]:
    answer = await service.browser().post("/api/auth/register", json=registration(email))
    if answer.status_code == 503:
        assert answer.headers["retry-after"]
    return answer.status_code, answer.json().get("code")


def events(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str | None]]:
    """Returns the event and cause of each line about the database, and searches all lines for what was sent."""
    assert PASSWORD not in caplog.text
    assert "@example.com" not in caplog.text
    lines = [record for record in caplog.records if record.name == "latchstring.foundation.database"]
    return [(record.event, getattr(record, "cause", None)) for record in lines]  # type: ignore[attr-defined]  # by `extra`


async def test_all_is_well(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    """200, and no line."""
    assert await readiness(service) == (200, GOOD)
    assert await readiness(service, "?require=sign_in") == (200, GOOD)
    assert events(caplog) == []


async def test_what_can_t_be_required(service: Service) -> None:
    """A misspelt requirement would be one that is never checked."""
    answer = await service.browser().get("/readyz?require=signin")
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")


@contextlib.contextmanager
def read_only(service: Service) -> Any:  # noqa: ANN401 -- a context manager
    """Makes a PostgreSQL database read-only for every connection, as a provider does whose disk is nearly full."""
    url = service.settings.database
    name = url.rpartition("/")[2]
    with psycopg.connect(url.replace(name, "postgres"), autocommit=True) as server:
        for setting in ("on", "off"):
            server.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = {setting}")
            server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
            if setting == "on":
                yield


async def reconnected(service: Service) -> None:
    """Waits until the pools have thrown away the connections that were ended."""
    for ask in (service.auth.parts.core.feed.poll, partial(readiness, service)):
        for _ in range(10):
            with contextlib.suppress(UnavailableError):
                await ask()


@ON_POSTGRESQL
async def test_a_read_only_postgresql(
    service: Service, clock: ManualClock, settle: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    """T13: no instance can write, so none is taken away: guards go on. One line says why, one that it is over."""
    ada = await service.registered()
    with read_only(service):
        await reconnected(service)
        caplog.clear()
        assert [await register(service, f"{name}@example.com") for name in ("bob", "eve")] == [REFUSED] * 2
        assert events(caplog) == [("database.writes_failing", "read_only")]
        assert await readiness(service) == (200, NO_SIGN_IN | {"status": "degraded"})
        assert await readiness(service, "?require=sign_in") == (503, NO_SIGN_IN | {"status": "degraded"})
        assert (await ada.get("/api/dashboard")).status_code == 200
    await reconnected(service)
    # Nobody signs in, and it is noticed all the same; not with each request, since anybody may send it.
    settle()
    assert (await readiness(service))[1] == NO_SIGN_IN | {"status": "degraded"}
    clock.suspend(seconds=5)
    await service.auth.parts.core.feed.poll()
    assert await readiness(service) == (200, GOOD)
    assert events(caplog)[-1] == ("database.writes_restored", None)
    assert await register(service, "bob@example.com") == (201, None)


@ON_POSTGRESQL
async def test_a_postgresql_whose_disk_is_full(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    """The error is PostgreSQL's own, raised by a trigger: its disk is not ours to fill."""
    async with service.auth.parts.tools.database.transaction() as connection:
        for statement in (
            """CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
               $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$""",
            "CREATE TRIGGER full_disk BEFORE INSERT ON latchstring_sessions EXECUTE FUNCTION full_disk()",
        ):
            await connection.execute(sa.text(statement))
    assert await register(service, "bob@example.com") == REFUSED
    assert events(caplog) == [("database.writes_failing", "disk_full")]
    assert await readiness(service) == (200, NO_SIGN_IN | {"status": "degraded"})


@ON_POSTGRESQL
async def test_a_role_that_may_not_write(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    """T7, T13: a right that was forgotten is no bug of ours, and the log says which kind of thing it is."""
    url = service.settings.database
    with psycopg.connect(url, autocommit=True) as server:
        server.execute("CREATE ROLE reader LOGIN PASSWORD 'reader' IN ROLE pg_read_all_data")
    try:
        settings = service.settings.model_copy(
            update={
                "database_url": SecretStr(
                    make_url(url).set(username="reader", password="reader").render_as_string(hide_password=False)
                )
            }
        )
        async with quiet_service(settings, service.clock) as reader:
            assert await register(reader, "bob@example.com") == REFUSED
            assert events(caplog) == [("database.writes_failing", "no_permission")]
    finally:
        with psycopg.connect(url, autocommit=True) as server:
            server.execute("DROP ROLE reader")


@ON_SQLITE
async def test_a_full_disk_below_sqlite(
    service: Service, clock: ManualClock, settle: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    """T13: the disk is this instance's own, and another one may do better: 503, until there is room again."""
    ada = await service.registered()
    tools = service.auth.parts.tools
    await _pragma(service, "max_page_count=1")
    answers = [await register(service, f"{number}@example.com") for number in range(60)]
    assert REFUSED in answers
    assert set(answers) <= {REFUSED, (201, None)}
    assert events(caplog) == [("database.writes_failing", "disk_full")]
    assert (await ada.get("/api/dashboard")).status_code == 200
    assert tools.database.writes.is_failing
    status, state = await readiness(service)
    assert status == 503
    assert state["database"]
    clock.suspend(seconds=5)
    settle()
    await service.auth.parts.core.feed.poll()
    assert (await readiness(service))[0] == 503, "tried again, with more than what happens to fit"
    await _pragma(service, "max_page_count=1000000")
    settle()
    clock.suspend(seconds=5)
    await service.auth.parts.core.feed.poll()
    assert await readiness(service) == (200, GOOD)


async def _pragma(service: Service, setting: str) -> None:
    """Sets something on every connection of the pool. Beyond its maximum of pages SQLite says that the disk is full."""
    # As readers: writers would wait for one another.
    pool = service.auth.parts.tools.database.engine.execution_options(**{READING: True})
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(8):
            connection = await stack.enter_async_context(pool.connect())
            await connection.exec_driver_sql(f"PRAGMA {setting}")


@ON_SQLITE
async def test_a_sqlite_file_that_another_process_locks(
    settings: Settings, service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    """A backup by hand, for example, that never ends."""
    await _pragma(service, "busy_timeout=10")
    locker = sqlite3.connect(settings.database.removeprefix("sqlite:///"), isolation_level=None)
    locker.execute("BEGIN IMMEDIATE")
    try:
        assert await register(service, "bob@example.com") == REFUSED
    finally:
        locker.close()
    # Another instance has the same file to wait for, and guards need it for reading alone.
    assert await readiness(service) == (200, NO_SIGN_IN | {"status": "degraded"})
    assert events(caplog) == [("database.writes_failing", "locked")]


@ON_POSTGRESQL
async def test_a_pool_that_is_used_up(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """T13: the log says so, and `/readyz` is 503: another instance may have a connection left."""
    ada = await service.registered()
    tools = service.auth.parts.tools
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(8):
            held = await stack.enter_async_context(tools.database.engine.connect())
            assert not held.closed
        monkeypatch.setattr(engine, "TIMEOUT_SECONDS", 0.2)
        assert await register(service, "bob@example.com") == REFUSED
        status, state = await readiness(service)
        assert (status, state["status"], state["database"]) == (503, "unavailable", False)
        assert (await ada.get("/api/dashboard")).status_code == 200
    # The connections are free again, and the last that was heard of writes is that there was none.
    assert await readiness(service) == (503, NO_SIGN_IN | {"status": "unavailable"})
    assert ("database.writes_failing", "no_connection") in events(caplog)
    assert ("database.reads_failing", "no_connection") in events(caplog)
