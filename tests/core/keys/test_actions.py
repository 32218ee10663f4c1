"""Keys that rotate under running workers: no request fails for it, and a stolen one is out of use at once."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx2
import jwt
import pytest
import sqlalchemy as sa
from fastapi import WebSocket

from latchstring import Auth, CallerDep, ConfigurationError, KeysUnavailableError, Settings
from latchstring.core.guard.sockets import CLOSED_TRY_AGAIN
from latchstring.core.keys import ring, store
from latchstring.core.keys.actions import DatabaseKeys
from latchstring.core.keys.key_set import token_key
from latchstring.core.keys.rotation import KeyChange, KeyConflict, KeyState
from latchstring.core.keys.settings import Algorithm
from latchstring.core.keys.tables import keys
from latchstring.core.revocations import feed
from latchstring.core.revocations import store as revocations_store
from latchstring.core.revocations.rules import Revocation
from latchstring.foundation.audit import audit
from latchstring.foundation.database import Connection
from latchstring.foundation.events import OPERATOR
from latchstring.foundation.vault import Vault
from latchstring.testing import ManualClock
from tests.support.backends import ON_SQLITE
from tests.support.forge import EPOCH_AHEAD, Genuine, new_key, public_pem, thumbprint
from tests.support.hang import HANG_SECONDS
from tests.support.host import Host, Line
from tests.support.service import SECRET, Service, cheap_settings, credentials, quiet_app, running_service

JWKS = "/.well-known/jwks.json"
LEAD_MINUTES = 610 / 60
OLD_ENOUGH_HOURS = 1 + 1 + LEAD_MINUTES / 60
"""A refresh token's life, the hour for clocks, and the lead: then the key before is gone."""


@pytest.fixture
def home(curve_url: str) -> Settings:
    """Settings of a database with one key, for ES256, which is made and used in no time."""
    return cheap_settings(curve_url, jwt_algorithm="ES256")


@pytest.fixture
def clock() -> ManualClock:
    clock = ManualClock()
    clock.advance(seconds=1)  # past the making of the first key
    return clock


@pytest.fixture
async def worker(home: Settings, clock: ManualClock) -> AsyncIterator[Service]:
    async with running_service(home, clock) as service:
        yield service


@pytest.fixture
async def other(home: Settings, clock: ManualClock) -> AsyncIterator[Service]:
    """Another worker on the same database."""
    async with running_service(home, clock) as service:
        yield service


def with_changes(settings: Settings, **changes: object) -> Settings:
    return Settings.model_validate(settings.model_dump(exclude_unset=True) | changes)


@contextlib.asynccontextmanager
async def opened(settings: Settings, clock: ManualClock | None = None) -> AsyncIterator[Auth]:
    """Gives what a command works with."""
    auth = Auth.from_settings(settings, features=(), clock=clock)
    try:
        yield auth
    finally:
        await auth.close()


async def published(service: Service) -> list[str]:
    return [jwk["kid"] for jwk in (await service.browser().get(JWKS)).json()["keys"]]


def kid_of(token: str) -> str:
    kid: str = jwt.get_unverified_header(token)["kid"]
    return kid


async def sees(service: Service, token: str) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    return (await service.browser(headers=headers).get("/api/dashboard")).status_code


async def signed_in(service: Service) -> httpx2.AsyncClient:
    browser = service.browser()
    answer = await browser.post("/api/auth/login", json=credentials())
    assert answer.status_code == 200, answer.text
    return browser


async def events(auth: Auth, *, like: str) -> list[str]:
    async with auth.parts.tools.database.reading() as connection:
        return sorted(await connection.scalars(sa.select(audit.c.fact).where(audit.c.fact.like(like))))


async def rows(auth: Auth) -> list[dict[str, Any]]:
    """Reads the table as it lies there."""
    async with auth.parts.tools.database.reading() as connection:
        found = await connection.execute(sa.select(keys).order_by(keys.c.published_at, keys.c.kid))
        return [dict(row) for row in found.mappings()]


def rotated(outcome: KeyChange | KeyConflict) -> KeyChange:
    assert isinstance(outcome, KeyChange)
    return outcome


# --- a calm rotation --------------------------------------------------------------------------------------------------


async def test_a_rotation_from_end_to_end(worker: Service, other: Service, clock: ManualClock) -> None:
    """Published everywhere before it signs anywhere; the old key's tokens hold until they expire; then it is gone."""
    browser = await worker.registered()
    first = await published(worker)
    rotated(await worker.auth.parts.keys.rotate(source=OPERATOR))
    for service in (worker, other):
        await service.auth.parts.core.feed.poll()
        assert len(await published(service)) == 2
    old = dict(browser.cookies)
    clock.advance(minutes=LEAD_MINUTES - 0.01)
    for service in (worker, other):
        await service.auth.parts.core.feed.poll()
        assert kid_of((await signed_in(service)).cookies["access_token"]) == first[0]
    clock.advance(minutes=0.02)
    for service in (worker, other):
        await service.auth.parts.core.feed.poll()  # reads nothing of it: its time has come
        token = (await signed_in(service)).cookies["access_token"]
        assert kid_of(token) != first[0]
        assert {await sees(worker, token), await sees(other, token)} == {200}
        assert await sees(service, old["access_token"]) == 200
    renewed = await browser.post("/api/auth/refresh")
    assert renewed.status_code == 200
    assert kid_of(browser.cookies["refresh_token"]) != first[0]
    assert first[0] in await published(other)
    clock.advance(minutes=OLD_ENOUGH_HOURS * 60)
    await other.auth.parts.core.feed.poll()
    assert first[0] not in await published(other)


async def test_a_worker_learns_of_a_key_by_the_poll_it_does_anyway(
    home: Settings, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A poll that finds the same revision reads no key; one that finds another reads all of them, once."""
    async with opened(home, clock) as operator, polled_once(home, clock) as worker:
        reads = count_of_reads(monkeypatch)
        await worker.auth.parts.core.feed.poll()
        assert reads == []
        await operator.parts.keys.rotate(source=OPERATOR)
        reads.clear()
        before = worker.auth.parts.ring.current
        await worker.auth.parts.core.feed.poll()
        await worker.auth.parts.core.feed.poll()
        assert len(reads) == 1
        assert worker.auth.parts.ring.current is not before
        kept = worker.auth.parts.ring.current
        await worker.auth.parts.core.feed.poll()
        assert worker.auth.parts.ring.current is kept, "what was verified with it stays known"


def count_of_reads(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Counts how often all keys are read from here on."""
    reads: list[None] = []
    read = store.all_keys

    async def counted(connection: Connection) -> list[store.StoredKey]:
        reads.append(None)
        return await read(connection)

    monkeypatch.setattr(store, "all_keys", counted)
    return reads


async def test_of_two_operators_one_wins(home: Settings, clock: ManualClock) -> None:
    """The other is told; there is one new key."""
    async with opened(home, clock) as one, opened(home, clock) as two:
        outcomes = await asyncio.gather(one.parts.keys.rotate(source=OPERATOR), two.parts.keys.rotate(source=OPERATOR))
        assert sorted(map(type, outcomes), key=str) == sorted([KeyChange, KeyConflict], key=str)
        assert KeyConflict.UNDER_WAY in outcomes
        assert len(await rows(one)) == 2
        assert await events(one, like="key.%") == ["key.created", "key.created", "key.retired"]


async def test_a_pending_key_can_be_withdrawn(worker: Service, clock: ManualClock) -> None:
    """The one before goes on, as if nothing had been; and the next rotation is free to begin."""
    (first,) = await published(worker)
    await worker.auth.parts.keys.rotate(source=OPERATOR)
    pending = next(key.kid for key in await worker.auth.parts.ring.list_keys() if key.state is KeyState.PENDING)
    rotated(await worker.auth.parts.keys.retire(pending, source=OPERATOR))
    clock.advance(minutes=30)
    await worker.auth.parts.core.feed.poll()
    await worker.registered()
    assert kid_of((await signed_in(worker)).cookies["access_token"]) == first
    rotated(await worker.auth.parts.keys.rotate(source=OPERATOR))


@ON_SQLITE
async def test_a_dry_run_changes_nothing(worker: Service) -> None:
    """It tells what would be changed, of each command."""
    before = await rows(worker.auth)
    kid = before[0]["kid"]
    for outcome in (
        await worker.auth.parts.keys.rotate(source=OPERATOR, dry_run=True),
        await worker.auth.parts.keys.retire(kid, source=OPERATOR, dry_run=True),
        await worker.auth.sessions.retire_key_at_once(kid, source=OPERATOR, dry_run=True),
    ):
        change = rotated(outcome)
        assert [key.kid for key in change.changed] == [kid]
        assert change.new_signs_from is not None
    assert await rows(worker.auth) == before
    assert await events(worker.auth, like="%") == ["key.created"]


class CrashError(Exception):
    """The power goes."""


PHASES = ["before the old key's dates", "after the old key's dates", "after the new key", "before the commit"]


@pytest.fixture(params=PHASES)
def crash(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Makes the next rotation end in one of its phases; returns what lets the one after that be."""
    name, after = {
        PHASES[0]: ("update_dates", False),
        PHASES[1]: ("update_dates", True),
        PHASES[2]: ("insert_key", True),
        PHASES[3]: ("record", True),
    }[request.param]
    module = store if hasattr(store, name) else __import__("latchstring.core.keys.actions", fromlist=["record"])
    done = getattr(module, name)

    async def crashing(*arguments: Any, **named: Any) -> None:  # noqa: ANN401 -- whatever it takes
        if after:
            await done(*arguments, **named)
        raise CrashError

    monkeypatch.setattr(module, name, crashing)
    return monkeypatch.undo


async def test_a_crash_in_any_phase_leaves_all_as_it_was(
    worker: Service, clock: ManualClock, crash: Callable[[], None]
) -> None:
    """Run again, it does the whole."""
    before = await rows(worker.auth)
    with pytest.raises(CrashError):
        await worker.auth.parts.keys.rotate(source=OPERATOR)
    assert await rows(worker.auth) == before
    await worker.auth.parts.core.feed.poll()
    await worker.registered()
    crash()
    rotated(await worker.auth.parts.keys.rotate(source=OPERATOR))
    clock.advance(minutes=11)
    await worker.auth.parts.core.feed.poll()
    assert kid_of((await signed_in(worker)).cookies["access_token"]) != before[0]["kid"]


@ON_SQLITE
async def test_no_key_is_named_like_an_option(home: Settings) -> None:
    """A `kid` in base64url may begin with a hyphen: `keys retire -x…` would not be understood when it is urgent."""
    async with opened(home) as auth:
        assert isinstance(auth.parts.keys, DatabaseKeys)
        names = {auth.parts.keys._new_draft(Algorithm.EDDSA).kid for _ in range(400)}
    assert {name for name in names if name.startswith("-")} == set()


# --- age --------------------------------------------------------------------------------------------------------------


async def test_a_key_is_replaced_at_its_age(worker: Service, other: Service, clock: ManualClock) -> None:
    """By whichever worker looks first, once; nobody has to do anything."""
    clock.advance(days=89)
    await worker.auth.parts.keys.maintain()
    assert len(await rows(worker.auth)) == 1
    clock.advance(days=1)
    await asyncio.gather(worker.auth.parts.keys.maintain(), other.auth.parts.keys.maintain())
    assert [key.state for key in await worker.auth.parts.ring.list_keys()] == [KeyState.ACTIVE, KeyState.PENDING]
    clock.advance(minutes=11)
    await worker.auth.parts.keys.maintain()
    assert [key.state for key in await worker.auth.parts.ring.list_keys()] == [KeyState.RETIRED, KeyState.ACTIVE]


async def test_housekeeping_tends_to_keys(home: Settings, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that runs does so by itself, and clears away what has been gone for thirty days."""
    monkeypatch.setattr("latchstring.foundation.housekeeping.INTERVAL_SECONDS", 0.02)
    clock.advance(days=90)
    async with running_service(home, clock) as service, asyncio.timeout(HANG_SECONDS):
        await until_there_are(2, service)
        clock.advance(days=29)
        await service.auth.parts.housekeeping.clean_up()
        assert len(await rows(service.auth)) == 2
        clock.advance(days=2)
        await until_there_are(1, service)
        assert [key["retired_at"] for key in await rows(service.auth)] == [None]


async def until_there_are(count: int, service: Service) -> None:
    """Waits for what a worker does by itself."""
    while len(await rows(service.auth)) != count:  # noqa: ASYNC110 -- a task that tells nobody
        await asyncio.sleep(0.02)


# --- what other instances give out ------------------------------------------------------------------------------------


@ON_SQLITE
async def test_tokens_of_longer_lives_are_waited_for(home: Settings, clock: ManualClock) -> None:
    """An instance with longer-lived tokens notes it, so that a rotation from elsewhere ends none of them early."""
    long_lived = with_changes(home, refresh_token_expire_minutes=24 * 60)
    async with running_service(long_lived, clock) as service:
        await service.auth.parts.keys.maintain()
        browser = await service.registered()
        async with opened(home, clock) as operator:
            rotated(await operator.parts.keys.rotate(source=OPERATOR))
        clock.advance(minutes=23 * 60)
        await service.auth.parts.core.feed.poll()
        assert (await browser.post("/api/auth/refresh")).status_code == 200


@ON_SQLITE
async def test_slower_caches_are_waited_for(home: Settings, clock: ManualClock) -> None:
    """An instance whose keys may be cached for a day is not surprised by a new one after ten minutes."""
    slow = with_changes(home, jwks_max_age_seconds=86_400)
    async with running_service(slow, clock) as service:
        await service.auth.parts.keys.maintain()
        async with opened(home, clock) as operator:
            change = rotated(await operator.parts.keys.rotate(source=OPERATOR))
    assert change.new_signs_from is not None
    assert change.new_signs_from - clock.now() == timedelta(days=2, seconds=10)


# --- at once ----------------------------------------------------------------------------------------------------------


async def test_a_stolen_key_is_out_of_use_at_once(worker: Service, other: Service, clock: ManualClock) -> None:
    """Whatever it signed, before or after: refused by each worker after its next poll. Everyone signs in anew."""
    browser = await worker.registered()
    stolen = Genuine.of(browser.cookies["access_token"], worker)
    later = (await signed_in(other)).cookies
    change = rotated(await worker.auth.sessions.retire_key_at_once(stolen.header["kid"], source=OPERATOR))
    assert change.new_signs_from == clock.now()
    for service in (worker, other):
        await service.auth.parts.core.feed.poll()
        for text in (
            stolen.text,
            later["access_token"],
            stolen.with_claims(epoch=1),
            stolen.with_claims(epoch=EPOCH_AHEAD),
        ):
            assert await sees(service, text) == 401
        assert stolen.header["kid"] not in await published(service)
    assert (await browser.post("/api/auth/refresh")).status_code == 401
    token = (await signed_in(worker)).cookies["access_token"]
    assert {await sees(worker, token), await sees(other, token)} == {200}
    assert await events(worker.auth, like="key.%") == ["key.created", "key.created", "key.retired_at_once"]
    assert await events(worker.auth, like="everyone%") == ["everyone.signed_out"]


async def test_a_thief_has_no_tokens_of_the_next_key(worker: Service, clock: ManualClock) -> None:
    """T37: renewed with the stolen key, a session is the thief's under the next one, and that key may be theirs, too.

    So the one that signs ends with the retired one that is named.
    """
    browser = await worker.registered()
    kid = kid_of(browser.cookies["access_token"])
    await worker.auth.parts.keys.rotate(source=OPERATOR)
    clock.advance(minutes=11)
    await worker.auth.parts.core.feed.poll()
    assert (await browser.post("/api/auth/refresh")).status_code == 200
    laundered = dict(browser.cookies)
    assert kid_of(laundered["access_token"]) != kid
    stolen = Genuine.of(laundered["access_token"], worker)
    rotated(await worker.auth.sessions.retire_key_at_once(kid, source=OPERATOR))
    await worker.auth.parts.core.feed.poll()
    assert await sees(worker, laundered["access_token"]) == 401
    assert await sees(worker, stolen.with_claims(epoch=EPOCH_AHEAD)) == 401
    assert (await browser.post("/api/auth/refresh")).status_code == 401
    assert await published(worker) == [worker.auth.parts.ring.current.signing.kid]
    assert await sees(worker, (await signed_in(worker)).cookies["access_token"]) == 200


async def test_a_clock_that_is_behind_brings_nothing_back(home: Settings, clock: ManualClock) -> None:
    """An instance ten minutes behind takes no token of the key, and signs with the new one, to it of the future."""
    behind = ManualClock()
    behind.advance(minutes=-10)
    async with running_service(home, clock) as worker, running_service(home, behind) as late:
        token = (await worker.registered()).cookies["access_token"]
        await worker.auth.sessions.retire_key_at_once(kid_of(token), source=OPERATOR)
        await late.auth.parts.core.feed.poll()
        assert await sees(late, token) == 401
        assert kid_of((await signed_in(late)).cookies["access_token"]) == late.auth.parts.ring.current.signing.kid
        assert late.auth.parts.ring.current.signing.kid != kid_of(token)


async def test_who_signs_in_a_moment_later_gets_tokens_that_hold(home: Settings, clock: ManualClock) -> None:
    """At a worker that has not looked since: its session's epoch tells it to read the keys before it signs."""
    async with polled_once(home, clock) as operator, polled_once(home, clock) as unaware:
        await operator.registered()
        stolen = operator.auth.parts.ring.current.signing.kid
        await operator.auth.sessions.retire_key_at_once(stolen, source=OPERATOR)
        assert unaware.auth.parts.ring.current.signing.kid == stolen
        browser = await signed_in(unaware)
        assert kid_of(browser.cookies["access_token"]) != stolen
        await operator.auth.parts.core.feed.poll()
        assert await sees(unaware, browser.cookies["access_token"]) == 200
        assert await sees(operator, browser.cookies["access_token"]) == 200


async def test_the_keys_are_read_before_an_epoch_is_believed(
    home: Settings, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A poll that hears of both, and whose keys can't be read, refuses the old epoch's callers all the same."""
    async with polled_once(home, clock) as worker:
        token = (await worker.registered()).cookies["access_token"]
        await worker.auth.sessions.retire_key_at_once(kid_of(token), source=OPERATOR)
        known: list[bool] = []
        read = store.all_keys

        async def watched(connection: Connection) -> list[store.StoredKey]:
            known.append(worker.auth.parts.core.feed.knows_epoch(1))
            return await read(connection)

        monkeypatch.setattr(store, "all_keys", watched)
        await worker.auth.parts.core.feed.poll()
        assert known == [False]
        assert worker.auth.parts.core.feed.knows_epoch(1)


async def test_who_cant_read_the_keys_signs_with_none_that_has_ended(home: Settings, clock: ManualClock) -> None:
    """T37: a worker that hears of the epoch, and can't open the new key, is of no use; never the stolen one's."""
    async with polled_once(home, clock) as operator, polled_once(home, clock) as worker:
        stolen = Genuine.of((await worker.registered()).cookies["access_token"], worker)
        change = rotated(await operator.auth.sessions.retire_key_at_once(stolen.header["kid"], source=OPERATOR))
        new = keys.c.kid == change.new_kid
        async with operator.auth.parts.tools.database.transaction() as connection:
            sealed = await connection.scalar(sa.select(keys.c.private_sealed).where(new))
            await connection.execute(keys.update().where(new).values(private_sealed=b"x" * 100))
        with pytest.raises(KeysUnavailableError):
            await worker.auth.parts.core.feed.poll()
        answer = await worker.browser().post("/api/auth/login", json=credentials())
        assert (answer.status_code, answer.json()["code"]) == (503, "keys_unavailable")
        assert await sees(worker, stolen.with_claims(epoch=EPOCH_AHEAD)) == 503
        async with operator.auth.parts.tools.database.transaction() as connection:
            await connection.execute(keys.update().where(new).values(private_sealed=sealed))
        await worker.auth.parts.core.feed.poll()
        assert await sees(worker, (await signed_in(worker)).cookies["access_token"]) == 200


async def test_an_epoch_of_ones_own_says_nothing_of_the_keys(home: Settings, clock: ManualClock) -> None:
    """T37: a worker that signs everyone out itself has not heard of the key that was retired elsewhere before."""
    async with polled_once(home, clock) as operator, polled_once(home, clock) as unaware:
        await operator.registered()
        stolen = operator.auth.parts.ring.current.signing.kid
        await operator.auth.sessions.retire_key_at_once(stolen, source=OPERATOR)
        await unaware.auth.sessions.revoke_everyone(source=OPERATOR)
        browser = await signed_in(unaware)
        assert kid_of(browser.cookies["access_token"]) != stolen
        await operator.auth.parts.core.feed.poll()
        assert {await sees(each, browser.cookies["access_token"]) for each in (operator, unaware)} == {200}


@pytest.mark.parametrize("looks", ["the first one", "a minute later"])
async def test_an_epoch_that_begins_between_two_pages(
    home: Settings, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, looks: str
) -> None:
    """T37: a worker that reads everything finds an epoch on the last page, and has read the keys with the first."""
    monkeypatch.setattr(feed, "PAGE_SIZE", 1)
    async with polled_once(home, clock) as operator, polled_once(home, clock) as worker:
        browser = await operator.registered()
        stolen = kid_of(browser.cookies["access_token"])
        await browser.post("/api/auth/logout")
        await worker.auth.parts.core.feed.poll()
        read = revocations_store.revocations_page

        async def meanwhile(connection: Connection, **which: Any) -> tuple[list[Revocation], int | None]:  # noqa: ANN401
            if (
                which["after"] != revocations_store.BEFORE_ALL
                and operator.auth.parts.ring.current.signing.kid == stolen
            ):
                await operator.auth.sessions.retire_key_at_once(stolen, source=OPERATOR)
                await operator.auth.parts.ring.catch_up(is_urgent=True)
            return await read(connection, **which)

        monkeypatch.setattr(revocations_store, "revocations_page", meanwhile)
        if looks == "the first one":
            worker.auth.parts.core.feed._cursor = None
        else:
            clock.suspend(seconds=60)
            await worker.auth.parts.core.feed.poll()
        await worker.auth.parts.core.feed.poll()
        assert operator.auth.parts.ring.current.signing.kid != stolen
        assert kid_of((await signed_in(worker)).cookies["access_token"]) != stolen


async def test_a_thief_renews_nothing_at_a_worker_that_has_not_looked(home: Settings, clock: ManualClock) -> None:
    """T37: a refresh token made with the stolen key, for a session begun after its end, gets none of the next key."""
    async with polled_once(home, clock) as operator, polled_once(home, clock) as unaware:
        stolen = Genuine.of((await operator.registered()).cookies["refresh_token"], operator)
        await operator.auth.sessions.retire_key_at_once(stolen.header["kid"], source=OPERATOR)
        await operator.auth.parts.core.feed.poll()
        browser = await signed_in(operator)
        session = jwt.decode(browser.cookies["refresh_token"], options={"verify_signature": False})
        assert unaware.auth.parts.ring.current.signing.kid == stolen.header["kid"]
        forged = {"Authorization": f"Bearer {stolen.with_claims(sid=session['sid'], gen=session['gen'])}"}
        answer = await unaware.browser(headers=forged).post("/api/auth/refresh")
        assert (answer.status_code, dict(answer.cookies)) == (401, {})
        assert (await browser.post("/api/auth/refresh")).status_code == 200


@ON_SQLITE
async def test_a_socket_opened_with_a_stolen_key_is_closed(home: Settings, clock: ManualClock) -> None:
    """T37: its token is of an epoch far ahead and never expires, so that nothing else gives it away.

    Whoever signed in elsewhere a moment before loses theirs as well, and is let in again with the same token.
    """
    host = Host(home, clock)

    @host.app.websocket("/waiting")
    async def waiting(socket: WebSocket, _caller: CallerDep) -> None:
        await socket.accept()
        async for _ in socket.iter_text():
            pass

    async with host.auth.running(), polled_once(home, clock) as operator:
        await host.auth.parts.core.feed.poll()
        stolen = Genuine.of((await host.signed_in()).cookies["access_token"], operator)
        forged = stolen.with_claims(sid=str(uuid4()), epoch=EPOCH_AHEAD, exp=253_402_300_799)
        line = Line(host.app, "/waiting", forged)
        assert (await line.heard())["type"] == "websocket.accept"
        await operator.auth.sessions.retire_key_at_once(stolen.header["kid"], source=OPERATOR)
        await host.auth.parts.core.feed.poll()
        assert (await line.heard())["code"] == CLOSED_TRY_AGAIN
        assert (await Line(host.app, "/waiting", forged).heard())["status"] == 401
        honest = Line(host.app, "/waiting", (await signed_in(operator)).cookies["access_token"])
        assert (await honest.heard())["type"] == "websocket.accept"
        await host.auth.parts.core.feed.poll()
        assert honest.is_silent
        honest.say(type="websocket.disconnect", code=1000)


# --- a key nobody here has heard of -----------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def polled_once(settings: Settings, clock: ManualClock) -> AsyncIterator[Service]:
    """Runs a worker that looks at the database once, and not again by itself."""
    app = quiet_app(settings, clock)
    service = Service(app=app, auth=app.state.latchstring, clock=clock, settings=settings)
    await service.auth.parts.core.feed.poll()
    yield service
    await service.auth.close()


@pytest.fixture
async def quiet(home: Settings, clock: ManualClock) -> AsyncIterator[Service]:
    """A worker that has looked at the database once, and looks again when told."""
    async with polled_once(home, clock) as service:
        yield service


@ON_SQLITE
@pytest.mark.parametrize("way", ["dashboard", "refresh", "token", "logout"])
async def test_the_first_token_of_a_key_is_no_surprise(
    worker: Service, home: Settings, clock: ManualClock, way: str
) -> None:
    """A worker that has not looked since reads the ring for it, at every door that takes a token."""
    await worker.registered()
    async with polled_once(home, clock) as unaware:
        await worker.auth.sessions.retire_key_at_once(worker.auth.parts.ring.current.signing.kid, source=OPERATOR)
        await worker.auth.parts.core.feed.poll()
        browser = await signed_in(worker)
        kid = kid_of(browser.cookies["access_token"])
        assert kid not in unaware.auth.parts.ring.current.verifying
        assert (await shown_at(unaware, way, browser)).status_code == 200
        assert kid in unaware.auth.parts.ring.current.verifying


async def shown_at(service: Service, way: str, browser: httpx2.AsyncClient) -> httpx2.Response:
    client = service.browser(headers={"Cookie": "; ".join(f"{n}={v}" for n, v in browser.cookies.items())})
    match way:
        case "dashboard":
            return await client.get("/api/dashboard")
        case "token":
            form = {"grant_type": "refresh_token", "refresh_token": browser.cookies["refresh_token"]}
            return await service.browser().post("/api/auth/token", data=form)
        case _:
            return await client.post(f"/api/auth/{way}")


async def test_pysec_2026_177_made_up_names_read_the_ring_once_a_second(
    quiet: Service, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many tokens with names nobody knows, at once or one by one; and none of them gets in."""
    genuine = Genuine.of((await quiet.registered()).cookies["access_token"], quiet)
    reads = count_of_reads(monkeypatch)
    unknown = made_up(genuine, count=30)
    assert set(await asyncio.gather(*(sees(quiet, text) for text in unknown))) == {401}
    assert len(reads) == 1
    clock.suspend(seconds=0.9)
    assert await sees(quiet, unknown[0]) == 401
    assert len(reads) == 1
    clock.suspend(seconds=0.2)
    assert await sees(quiet, unknown[0]) == 401
    assert len(reads) == 2
    assert await sees(quiet, genuine.with_header(kid="../" * 14)) == 401
    clock.suspend(seconds=2)
    assert await sees(quiet, genuine.with_header(kid="short")) == 401
    assert len(reads) == 2, "what is no thumbprint names no key"


@ON_SQLITE
async def test_made_up_names_that_wait_for_a_read_that_fails_do_not_each_try_again(
    quiet: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T38: a database that is slow to fail is asked once a second, too."""
    genuine = Genuine.of((await quiet.registered()).cookies["access_token"], quiet)
    reads: list[None] = []

    async def away(_connection: Connection) -> list[store.StoredKey]:
        reads.append(None)
        raise KeysUnavailableError("away")

    monkeypatch.setattr(store, "all_keys", away)
    statuses = await asyncio.gather(*(sees(quiet, text) for text in made_up(genuine, count=5)))
    assert set(statuses) == {401, 503}
    assert len(reads) == 1


class Waiting:
    """Those who wait for the keys at one worker; a pause lasts until so many do, however fast the machine is."""

    def __init__(self, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
        self._wait = service.auth.parts.ring.catch_up_anew
        self.count = self.awaited = 0
        self.pauses: list[float] = []
        monkeypatch.setattr(service.auth.parts.ring, "catch_up_anew", self._counted)
        monkeypatch.setattr(ring, "sleep", self._pause)

    async def all(self) -> None:
        """Returns when as many wait as are awaited."""
        while self.count < self.awaited:  # noqa: ASYNC110 -- it is counted, and set by nobody
            await asyncio.sleep(0)

    async def _counted(self) -> None:
        self.count += 1
        await self._wait()

    async def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await self.all()


async def sign_outs(service: Service, *tokens: str) -> set[int]:
    """Signs out with all of them at once; returns the statuses."""
    browsers = [service.browser(headers={"Authorization": f"Bearer {token}"}) for token in tokens]
    answers = await asyncio.gather(*(browser.post("/api/auth/logout") for browser in browsers))
    return {answer.status_code for answer in answers}


def made_up(genuine: Genuine, *, count: int) -> list[str]:
    return [genuine.with_header(kid=f"{number:043}") for number in range(count)]


async def test_a_sign_out_waits_for_the_key_it_needs(
    home: Settings, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T5: made-up names have used the second up, and a sign-out by a key of a moment ago ends its session all the same.

    Fifty made-up ones that wait along with it cost the same one read.
    """
    async with polled_once(home, clock) as worker, polled_once(home, clock) as unaware:
        genuine = Genuine.of((await worker.registered()).cookies["access_token"], worker)
        assert await sees(unaware, made_up(genuine, count=1)[0]) == 401
        await worker.auth.sessions.retire_key_at_once(genuine.header["kid"], source=OPERATOR)
        await worker.auth.parts.core.feed.poll()
        browser = await signed_in(worker)
        token = browser.cookies["access_token"]
        assert await sees(unaware, token) == 401, "a guard does not wait"
        reads, waiting = count_of_reads(monkeypatch), Waiting(unaware, monkeypatch)
        waiting.awaited = 51
        assert await sign_outs(unaware, *made_up(genuine, count=50), token) == {200}
        assert (len(reads), waiting.pauses) == (1, [1.0])
        await worker.auth.parts.core.feed.poll()
        assert await sees(worker, token) == 401
        assert (await browser.post("/api/auth/refresh")).status_code == 401


async def test_a_sign_out_goes_by_no_read_that_had_begun(quiet: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """T5: what another worker committed meanwhile, that read may not have seen. Whoever came meanwhile shares one."""
    genuine = Genuine.of((await quiet.registered()).cookies["access_token"], quiet)
    waiting = Waiting(quiet, monkeypatch)
    reads: list[int] = []
    read = store.all_keys

    async def slowly(connection: Connection) -> list[store.StoredKey]:
        reads.append(waiting.count)
        rows = await read(connection)
        waiting.awaited = 3
        await waiting.all()
        return rows

    monkeypatch.setattr(store, "all_keys", slowly)
    one, *others = made_up(genuine, count=3)
    first = asyncio.create_task(sign_outs(quiet, one))
    while not reads:  # noqa: ASYNC110 -- likewise
        await asyncio.sleep(0)
    assert await sign_outs(quiet, *others) == await first == {200}
    assert reads == [1, 3]
    assert waiting.pauses == [0, 1]


@ON_SQLITE
async def test_sign_outs_that_wait_in_vain_say_so(quiet: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """T5: none of those that waited for a read which failed is told that its session has ended: 503, after one try."""
    genuine = Genuine.of((await quiet.registered()).cookies["access_token"], quiet)
    waiting = Waiting(quiet, monkeypatch)
    waiting.awaited = 5
    reads: list[None] = []

    async def away(_connection: Connection) -> list[store.StoredKey]:
        reads.append(None)
        raise KeysUnavailableError("away")

    monkeypatch.setattr(store, "all_keys", away)
    assert await sign_outs(quiet, *made_up(genuine, count=5)) == {503}
    assert len(reads) == 1


# --- another algorithm ------------------------------------------------------------------------------------------------


async def test_another_algorithm_is_a_rotation(worker: Service, home: Settings, clock: ManualClock) -> None:
    """The old key signs until the new one has been published long enough; every token holds all the while."""
    token = (await worker.registered()).cookies["access_token"]
    moved = with_changes(home, jwt_algorithm="EdDSA")
    async with opened(moved, clock) as auth:
        await auth.parts.keys.prepare()
        await auth.parts.keys.prepare()
        assert [key.algorithm for key in await auth.parts.ring.list_keys()] == [Algorithm.ES256, Algorithm.EDDSA]
    async with running_service(moved, clock) as new:
        for service in (worker, new):
            await service.auth.parts.core.feed.poll()
            assert jwt.get_unverified_header((await signed_in(service)).cookies["access_token"])["alg"] == "ES256"
        clock.advance(minutes=11)
        for service in (worker, new):
            await service.auth.parts.core.feed.poll()
            browser = await signed_in(service)
            assert jwt.get_unverified_header(browser.cookies["access_token"])["alg"] == "EdDSA"
            assert {await sees(worker, browser.cookies["access_token"]), await sees(new, token)} == {200}


@ON_SQLITE
async def test_a_command_without_the_setting_keeps_the_algorithm(home: Settings, clock: ManualClock) -> None:
    """Whoever rotates from a shell that lacks `JWT_ALGORITHM` does not move the service to the default."""
    plain = Settings.model_validate(home.model_dump(exclude_unset=True, exclude={"jwt_algorithm"}))
    async with opened(plain, clock) as auth:
        await auth.parts.keys.prepare()
        rotated(await auth.parts.keys.rotate(source=OPERATOR))
        assert {key.algorithm for key in await auth.parts.ring.list_keys()} == {Algorithm.ES256}


async def test_an_algorithm_has_to_wait_for_a_rotation_under_way(
    home: Settings, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is broken off; the log says that a later start will do it."""
    async with opened(home, clock) as auth:
        await auth.parts.keys.rotate(source=OPERATOR)
    async with opened(with_changes(home, jwt_algorithm="EdDSA"), clock) as auth:
        caplog.set_level(logging.WARNING)
        await auth.parts.keys.prepare()
        assert "a rotation is under way" in caplog.text
        assert len(await rows(auth)) == 2
        clock.advance(minutes=11)
        await auth.parts.keys.prepare()
        assert len(await rows(auth)) == 3


# --- another secret ---------------------------------------------------------------------------------------------------

NEW_SECRET = "another secret of the suite, long enough"


async def test_the_secret_can_be_changed(worker: Service, home: Settings, clock: ManualClock) -> None:
    """All is sealed anew at the first start; from then on the old one is refused, while who runs with it goes on."""
    token = (await worker.registered()).cookies["access_token"]
    await worker.auth.parts.keys.rotate(source=OPERATOR)
    await worker.auth.parts.core.feed.poll()
    changing = with_changes(home, secret=NEW_SECRET, previous_secret=SECRET)
    async with opened(changing, clock) as auth:
        await auth.parts.keys.prepare()
        await auth.parts.keys.prepare()
        assert {row["secret_id"] for row in await rows(auth)} == {Vault(NEW_SECRET).secret_id}
        assert await events(auth, like="secret%") == ["secret.changed"]
    async with opened(home, clock) as stranger:
        with pytest.raises(ConfigurationError, match="LATCHSTRING_SECRET is not the one"):
            await stranger.parts.keys.prepare()
    await worker.auth.parts.core.feed.poll()
    assert await sees(worker, token) == 200
    clock.advance(minutes=11)
    await worker.auth.parts.core.feed.poll()
    await signed_in(worker)
    async with running_service(with_changes(home, secret=NEW_SECRET), clock) as new:
        assert await sees(new, (await signed_in(worker)).cookies["access_token"]) == 200
        assert await sees(worker, (await signed_in(new)).cookies["access_token"]) == 200


async def test_both_secrets_may_be_told_in_either_order(home: Settings, clock: ManualClock) -> None:
    """A roll-out begins by telling everybody the new one, and no instance is ever without the right one."""
    first_step = with_changes(home, previous_secret=NEW_SECRET)
    second_step = with_changes(home, secret=NEW_SECRET, previous_secret=SECRET)
    for settings in (first_step, second_step, first_step, second_step, with_changes(home, secret=NEW_SECRET)):
        async with opened(settings, clock) as auth:
            await auth.parts.keys.prepare()
            async with auth.parts.tools.database.reading() as connection:
                await auth.parts.ring.reload(connection)


async def test_a_crash_while_sealing_anew(home: Settings, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is half sealed: the old secret still opens all, and the next start does the whole."""
    changing = with_changes(home, secret=NEW_SECRET, previous_secret=SECRET)
    async with opened(changing, clock) as auth:

        async def crashing(*_: object, **__: object) -> None:
            raise CrashError

        with monkeypatch.context() as patch:
            patch.setattr(store, "replace_secret_check", crashing)
            with pytest.raises(CrashError):
                await auth.parts.keys.prepare()
        async with opened(home, clock) as old:
            await old.parts.keys.prepare()
        await auth.parts.keys.prepare()
        assert await events(auth, like="secret%") == ["secret.changed"]


async def test_no_key_is_sealed_under_a_secret_that_the_others_do_not_know(
    worker: Service, home: Settings, clock: ManualClock
) -> None:
    """A shell with another secret makes no key: every worker would stand still before it."""
    before = await rows(worker.auth)
    kid = before[0]["kid"]
    for secrets in ({"secret": NEW_SECRET}, {"secret": NEW_SECRET, "previous_secret": SECRET}):
        async with opened(with_changes(home, **secrets), clock) as shell:
            for attempt in (
                shell.parts.keys.rotate(source=OPERATOR),
                shell.parts.keys.retire(kid, source=OPERATOR),
                shell.sessions.retire_key_at_once(kid, source=OPERATOR),
            ):
                with pytest.raises(ConfigurationError, match="run latchstring migrate first"):
                    await attempt
    assert await rows(worker.auth) == before


# --- what somebody puts there who does not know the secret ------------------------------------------------------------


def intruders() -> Iterator[Any]:
    """Yields changes to a genuine row, made by somebody who can write to the database."""
    evil = new_key("P-256", 666)
    pem = public_pem(evil).decode()
    yield pytest.param({"public_pem": pem}, id="another public half under a genuine name")
    yield pytest.param({"kid": "k" * 43, "public_pem": pem}, id="another key under a name of its own")
    yield pytest.param({"private_sealed": b"x" * 100}, id="no seal")
    kid = token_key(pem.encode(), Algorithm.ES256, name="theirs").kid
    past, future = datetime(2020, 1, 1, tzinfo=UTC), datetime(2120, 1, 1, tzinfo=UTC)
    retired = {"kid": kid, "public_pem": pem, "signs_from": past, "retired_at": past, "verifies_until": future}
    yield pytest.param(retired, id="T38: another key under its own name, that verifies and never signs")


@pytest.mark.parametrize("changes", list(intruders()))
async def test_a_key_put_there_without_the_secret_verifies_nothing(
    home: Settings, clock: ManualClock, changes: dict[str, object]
) -> None:
    """A worker that finds one goes on with what it knows, and lets nobody in when that is too old."""
    async with running_service(home, clock) as worker:
        async with worker.auth.parts.tools.database.transaction() as connection:
            (row,) = (await connection.execute(sa.select(keys))).mappings().all()
            intruder = dict(row) | {"kid": "e" * 43, "revision": 99} | changes
            await connection.execute(keys.insert().values(**intruder))
        with pytest.raises(KeysUnavailableError):
            await worker.auth.parts.core.feed.poll()
        assert intruder["kid"] not in worker.auth.parts.ring.current.verifying
        assert len(worker.auth.parts.ring.current.verifying) == 1
    async with opened(home, clock) as auth, auth.parts.tools.database.reading() as connection:
        with pytest.raises(KeysUnavailableError):
            await auth.parts.ring.reload(connection)


# --- the document -----------------------------------------------------------------------------------------------------


@ON_SQLITE
async def test_the_keys_are_cached_by_whoever_asks(worker: Service) -> None:
    """`ETag` and `If-None-Match` (RFC 9110): 304 without a body while nothing has changed, the keys when they have."""
    browser = worker.browser()
    answer = await browser.get(JWKS)
    etag = answer.headers["etag"]
    assert [jwk["kid"] for jwk in answer.json()["keys"]] == [thumbprint(jwk) for jwk in answer.json()["keys"]]
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        unchanged = await browser.get(JWKS, headers={"If-None-Match": known})
        assert (unchanged.status_code, unchanged.content) == (304, b"")
        assert unchanged.headers["etag"] == etag
        assert unchanged.headers["cache-control"] == "public, max-age=300"
    for other in ('"other"', etag.strip('"'), "", "W/*"):
        assert (await browser.get(JWKS, headers={"If-None-Match": other})).status_code == 200
    await worker.auth.parts.keys.rotate(source=OPERATOR)
    await worker.auth.parts.core.feed.poll()
    changed = await browser.get(JWKS, headers={"If-None-Match": etag})
    assert changed.status_code == 200
    assert changed.headers["etag"] != etag


@ON_SQLITE
async def test_stock_verifiers_configure_themselves(home: Settings, clock: ManualClock) -> None:
    """Issuer and keys by the public URL, whatever Host a request claims; without one there is no such document."""
    path = "/.well-known/openid-configuration"
    async with running_service(home, clock) as service:
        assert (await service.browser().get(path)).status_code == 404
    public = with_changes(home, public_url="https://id.example.com")
    async with running_service(public, clock) as service:
        answer = await service.browser("https://evil.example").get(path)
        assert answer.json() == {
            "issuer": "https://id.example.com",
            "jwks_uri": "https://id.example.com/.well-known/jwks.json",
            "token_endpoint": "https://id.example.com/api/auth/token",
            "grant_types_supported": ["password", "refresh_token"],
            "token_endpoint_auth_methods_supported": ["none"],
            "response_types_supported": [],
        }
        assert answer.headers["cache-control"] == "public, max-age=300"
