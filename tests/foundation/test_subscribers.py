"""Subscribers: inside a transaction all or nothing, after it whatever happens; and nobody lost or let in."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from latchstring import (
    Auth,
    ConfigurationError,
    Event,
    EveryoneSignedOut,
    GrantingEvent,
    PasswordChanged,
    RefreshRepeatedElsewhere,
    RefreshTokenReused,
    RoleGranted,
    RoleWithdrawn,
    SessionCreated,
    SessionEnded,
    SessionProven,
    SessionsEnded,
    Settings,
    SignInRefused,
    SubscriberError,
    UserDeleted,
    UserDisabled,
    UserEnabled,
    UserRegistered,
    UserRenamed,
    users,
)
from latchstring.core.revocations.rules import RevocationReason
from latchstring.core.sessions.tables import sessions
from latchstring.foundation import events, subscribers
from latchstring.foundation.audit import audit
from latchstring.foundation.database import engine
from latchstring.foundation.events import OPERATOR
from tests.support.backends import ON_SQLITE
from tests.support.service import PASSWORD, Service, credentials, registration, running_service

profiles = sa.Table(
    "profiles", sa.MetaData(), sa.Column("user_id", sa.Uuid(), primary_key=True), sa.Column("city", sa.String(80))
)


@pytest.fixture
async def auth(service: Service) -> Auth:
    """With a table of the host's in the same database."""
    async with service.auth.parts.tools.database.engine.begin() as connection:
        await connection.run_sync(profiles.metadata.create_all)
    return service.auth


async def count(auth: Auth, table: sa.Table) -> int:
    async with auth.parts.tools.database.reading() as connection:
        return await connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0


async def test_the_hosts_row_is_written_with_the_user(service: Service, auth: Auth) -> None:
    """In the transaction of the event, whose user is there to be referred to."""

    @auth.inside(UserRegistered)
    async def make_profile(event: UserRegistered, connection: AsyncConnection) -> None:
        assert await connection.scalar(sa.select(users.c.email).where(users.c.id == event.user_id)) == event.email
        await connection.execute(profiles.insert().values(user_id=event.user_id, city="London"))

    await service.registered()
    assert await count(auth, profiles) == 1
    # The address is taken: no event, no row.
    assert (await service.browser().post("/api/auth/register", json=registration())).status_code == 409
    assert await count(auth, profiles) == 1


async def fail(_fact: GrantingEvent, connection: AsyncConnection) -> None:
    await connection.execute(profiles.insert().values(user_id=UUID(int=7), city="nowhere"))
    raise OSError("the disk is full")


async def violate(event: GrantingEvent, connection: AsyncConnection) -> None:
    for _ in range(2):
        await connection.execute(profiles.insert().values(user_id=UUID(int=7), city="twice"))


async def swallow(_fact: GrantingEvent, connection: AsyncConnection) -> None:
    with contextlib.suppress(sa.exc.IntegrityError):
        await violate(_fact, connection)
    # On PostgreSQL the transaction is broken by now, whatever was caught. SQLite goes on; so this one gives up.
    await connection.execute(sa.text("SELECT nothing FROM nowhere"))


async def undo(_fact: GrantingEvent, connection: AsyncConnection) -> None:
    await connection.rollback()


async def undo_quietly(_fact: GrantingEvent, connection: AsyncConnection) -> None:
    with contextlib.suppress(sa.exc.DBAPIError):
        await connection.execute(sa.text("SELECT nothing FROM nowhere"))
    if connection.dialect.name == "sqlite":
        await connection.rollback()


@pytest.mark.parametrize("subscriber", [fail, violate, swallow, undo, undo_quietly])
async def test_neither_is_where_a_subscriber_fails_inside(
    subscriber: Callable[[GrantingEvent, AsyncConnection], Awaitable[None]], service: Service, auth: Auth
) -> None:
    """500, and no user, no row, no session; nothing is heard of it afterwards, and the next one is as good as any."""
    heard: list[Event] = []
    before = await count(auth, audit)
    auth.inside(UserRegistered)(subscriber)

    @auth.after(Event)
    async def hear(event: Event) -> None:
        heard.append(event)

    with pytest.raises(Exception, match=r"failed inside UserRegistered") as failed:
        await service.browser().post("/api/auth/register", json=registration())
    assert isinstance(failed.value, SubscriberError)
    await auth.drained()
    assert [await count(auth, table) for table in (users, profiles, sessions, audit)] == [0, 0, 0, before]
    assert heard == []
    assert (await service.browser().post("/api/auth/login", json=credentials())).status_code == 400


async def test_a_sign_in_that_a_subscriber_fails_opens_nothing(service: Service, auth: Auth) -> None:
    """Who was signed in stays so; nobody comes in; and what takes access away can't be joined at all."""
    browser = await service.registered()
    auth.inside(SessionCreated)(fail)
    with pytest.raises(Exception, match="failed inside SessionCreated"):
        await service.browser().post("/api/auth/login", json=credentials())
    assert (await browser.get("/api/dashboard")).status_code == 200
    assert len((await browser.get("/api/auth/sessions")).json()) == 1
    await browser.post("/api/auth/logout")
    assert (await browser.get("/api/dashboard")).status_code == 401


EVENTS = [kind for kind in vars(events).values() if isinstance(kind, type) and issubclass(kind, Event)]


async def test_a_subscriber_that_fails_locks_nobody_out(settings: Settings) -> None:
    """The password was right each time: the limit on failures counts none of them."""
    strict = Settings.model_validate(settings.model_dump() | {"limits": True, "limit_account": "2/15m"})
    async with running_service(strict) as service:
        browser = await service.registered()
        works = False

        @service.auth.inside(GrantingEvent)
        async def break_in_between(_fact: GrantingEvent, _connection: AsyncConnection) -> None:
            if not works:
                raise RuntimeError("no")

        for _ in range(3):
            for door, body in (("login", credentials()), ("confirm", {"password": PASSWORD})):
                with pytest.raises(Exception, match="failed inside"):
                    await browser.post(f"/api/auth/{door}", json=body)
        works = True
        assert (await service.browser().post("/api/auth/login", json=credentials())).status_code == 200


TAKING = [kind for kind in EVENTS if not issubclass(kind, GrantingEvent)]


@pytest.mark.parametrize(
    "kind", [kind for kind in TAKING if not issubclass(kind, GrantingEvent)], ids=lambda kind: kind.__name__
)
def test_what_takes_away_cant_be_joined_from_inside(kind: type[GrantingEvent], tmp_path: object) -> None:
    """No sign-out, disabling or withdrawal waits for a subscriber, or is undone by one."""
    auth = Auth(f"sqlite:///{tmp_path}/app.db", secret="a secret of the test suite, long enough")
    with pytest.raises(ConfigurationError, match="after"):
        auth.inside(kind)


def test_subscribers_are_async_and_events_are_events(tmp_path: object) -> None:
    """A function that would block the loop, and a class that never happens, are refused where they are written."""
    auth = Auth(f"sqlite:///{tmp_path}/app.db", secret="a secret of the test suite, long enough")
    with pytest.raises(ConfigurationError, match="async"):
        auth.after(UserRegistered)(print)  # type: ignore[arg-type]  # the point
    with pytest.raises(ConfigurationError, match="async"):
        auth.inside(UserRegistered)(print)  # type: ignore[arg-type]  # likewise
    with pytest.raises(ConfigurationError, match="not a type of event"):
        auth.after(str)  # type: ignore[type-var]  # likewise


@ON_SQLITE
async def test_after_a_commit_everyone_hears(service: Service, auth: Auth, caplog: pytest.LogCaptureFixture) -> None:
    """In order, by kind or all of them; one that fails is logged and keeps nobody else from hearing, or signing in."""
    heard: list[str] = []

    @auth.after(SessionCreated)
    async def broken(_fact: SessionCreated) -> None:
        raise RuntimeError("no mail today")

    @auth.after(GrantingEvent)
    async def hear_giving(event: GrantingEvent) -> None:
        heard.append(f"giving {type(event).__name__}")

    @auth.after(UserRegistered)
    async def hear(event: UserRegistered) -> None:
        assert await count(auth, users) == 1, "it is committed"
        heard.append(f"{event.email} {event.source.actor}")

    with caplog.at_level(logging.ERROR):
        await service.registered()
        await auth.drained()
    assert heard == ["giving UserRegistered", "ada@example.com visitor", "giving SessionCreated"]
    (line,) = [record for record in caplog.records if record.exc_info]
    assert "broken failed after session.created" in line.getMessage()


@ON_SQLITE
async def test_nobody_waits_for_what_comes_after(service: Service, auth: Auth) -> None:
    """The answer is there before a slow subscriber is; and the application's end waits for it."""
    goes_on, done = asyncio.Event(), asyncio.Event()

    @auth.after(UserRegistered)
    async def slow(_fact: UserRegistered) -> None:
        await goes_on.wait()
        done.set()

    await service.registered()
    assert not done.is_set()
    goes_on.set()
    await auth.close()
    assert done.is_set()


@ON_SQLITE
async def test_an_end_waits_no_longer_than_it_may(
    service: Service, auth: Auth, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A subscriber that never returns keeps no application from ending, and is told of in the log."""
    monkeypatch.setattr(subscribers, "END_SECONDS", 0.05)
    ended = asyncio.Event()

    @auth.after(UserRegistered)
    async def hang(_fact: UserRegistered) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    await service.registered()
    await auth.close()
    await ended.wait()
    assert "cut off" in caplog.text


async def test_a_subscriber_that_hangs_inside_is_an_outage(
    service: Service, auth: Auth, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The transaction has its time, and no more; then nothing was changed, and the client may try again."""
    monkeypatch.setattr(engine, "TIMEOUT_SECONDS", 0.2)
    hangs = True

    @auth.inside(UserRegistered)
    async def hang(_fact: UserRegistered, _connection: AsyncConnection) -> None:
        if hangs:
            await asyncio.Event().wait()

    answer = await service.browser().post("/api/auth/register", json=registration())
    assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
    hangs = False
    monkeypatch.undo()
    assert await count(auth, users) == 0
    await service.registered()


@ON_SQLITE
async def test_every_fact_has_its_type(service: Service, auth: Auth) -> None:
    """What users do and what is done to them, each once, with whom it speaks of and where it came from."""
    heard: list[Event] = []

    @auth.after(Event)
    async def hear(event: Event) -> None:
        heard.append(event)

    async def kinds() -> list[type[Event]]:
        await auth.drained()
        found = [type(event) for event in heard]
        heard.clear()
        return found

    browser = await service.registered()
    assert await kinds() == [UserRegistered, SessionCreated]
    user_id = UUID((await browser.get("/api/auth/me")).json()["id"])
    await browser.patch("/api/auth/me", json={"first_name": "Augusta"})
    assert await kinds() == [UserRenamed]
    await browser.post("/api/auth/confirm", json={"password": PASSWORD})
    assert await kinds() == [SessionProven]
    await service.browser().post("/api/auth/login", json=credentials(password="not the password"))
    assert await kinds() == [SignInRefused]
    await service.browser().post("/api/auth/login", json=credentials())
    body = {"current_password": PASSWORD, "new_password": "another password"}
    await browser.post("/api/auth/password/change", json=body)
    assert await kinds() == [SessionCreated, SessionEnded, SessionEnded, PasswordChanged]
    await auth.users.grant_role(user_id, "editor")
    await auth.users.withdraw_role(user_id, "editor")
    assert await kinds() == [RoleGranted, RoleWithdrawn]
    old = browser.cookies["refresh_token"]
    await browser.post("/api/auth/refresh")
    elsewhere = {"Cookie": f"refresh_token={old}", "User-Agent": "another browser"}
    await service.browser(headers=elsewhere).post("/api/auth/refresh")
    assert await kinds() == [RefreshRepeatedElsewhere]
    service.clock.advance(minutes=1)
    await service.browser(headers={"Cookie": f"refresh_token={old}"}).post("/api/auth/refresh")
    assert await kinds() == [RefreshTokenReused]
    await auth.sessions.revoke_sessions_of_user(user_id, reason=RevocationReason.OPERATOR, source=OPERATOR)
    await auth.sessions.revoke_everyone(source=OPERATOR)
    assert await kinds() == [SessionsEnded, EveryoneSignedOut]
    await auth.users.disable(user_id)
    await auth.users.enable(user_id)
    await auth.drained()
    assert {event.source.actor for event in heard} == {"application"}
    assert await kinds() == [UserDisabled, UserEnabled]
    await auth.users.delete(user_id, source=OPERATOR)
    await auth.drained()
    (deleted,) = heard
    assert isinstance(deleted, UserDeleted)
    assert (deleted.user_id, deleted.source) == (user_id, OPERATOR)
