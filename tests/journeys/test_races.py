"""Two at the same instant: two workers in one process, on real databases. (With real processes: test_workers.)"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, NamedTuple
from uuid import UUID

import httpx2
import jwt
import psycopg
import pytest
import sqlalchemy as sa
from psycopg import sql

from latchstring import Settings
from latchstring.core.sessions.tables import sessions
from latchstring.foundation.audit import audit
from latchstring.foundation.events import OPERATOR, RefreshTokenReused
from latchstring.foundation.limits import Rate
from latchstring.testing import ManualClock
from tests.support.hashes import hashing, held_hashes
from tests.support.service import Service, credentials, quiet_app, registration

DEAD = {"session_ended", "user_not_found", "user_gone"}


class Pair(NamedTuple):
    """The tokens of one answer."""

    access: str
    refresh: str


def pair_of(answer: httpx2.Response) -> Pair:
    """Returns the tokens an answer set as cookies."""
    return Pair(answer.cookies["access_token"], answer.cookies["refresh_token"])


def claims(token: str) -> dict[str, Any]:
    """Returns what a token says."""
    said: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return said


def bearer(token: str) -> dict[str, str]:
    """Returns the header that shows a token."""
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
async def workers(settings: Settings, clock: ManualClock) -> AsyncIterator[list[Service]]:
    """Two workers; each looks at the database when told."""
    clock.advance(seconds=1)
    async with contextlib.AsyncExitStack() as stack:
        started = []
        for _ in range(2):
            app = quiet_app(settings, clock)
            service = Service(app=app, auth=app.state.latchstring, clock=clock, settings=settings)
            stack.push_async_callback(service.auth.close)
            await service.auth.parts.core.feed.poll()
            started.append(service)
        yield started


async def post(service: Service, path: str, *, token: str | None = None, json: object = None) -> httpx2.Response:
    """Asks one worker, as a client that keeps nothing."""
    headers = bearer(token) if token else {}
    return await service.browser().post(f"/api/auth/{path}", headers=headers, json=json)


async def assert_dead(workers: list[Service], pairs: list[Pair]) -> None:
    """Sees that no worker takes any of the tokens for anything, once it has looked."""
    for worker in workers:
        await worker.auth.parts.core.feed.poll()
        for pair in pairs:
            seen = await worker.browser().get("/api/dashboard", headers=bearer(pair.access))
            assert seen.json().get("code") in DEAD, seen.text
            seen = await post(worker, "refresh", token=pair.refresh)
            assert seen.json().get("code") in DEAD, seen.text


async def active_sessions(service: Service, user_id: UUID) -> int:
    """Returns how many sessions of a user have not been ended."""
    living = sa.select(sa.func.count()).where(sessions.c.user_id == user_id, sessions.c.revoked_at.is_(None))
    async with service.auth.parts.tools.database.reading() as connection:
        return await connection.scalar(living) or 0


async def test_refreshes_at_once_have_one_successor(workers: list[Service]) -> None:
    """Twenty tabs, two workers, one token: everybody gets the same answer, and it is the one living generation."""
    current = pair_of(await post(workers[0], "register", json=registration()))
    for generation in range(2, 5):
        answers = await asyncio.gather(*(post(workers[n % 2], "refresh", token=current.refresh) for n in range(20)))
        assert {answer.status_code for answer in answers} == {200}
        (current,) = {pair_of(answer) for answer in answers}
        assert claims(current.refresh)["gen"] == generation


async def test_without_grace_one_wins_and_nobody_keeps_it(workers: list[Service]) -> None:
    """With the grace switched off a second presentation is theft, be it of the same instant: the session is over."""
    settings = workers[0].settings.model_copy(update={"refresh_grace_seconds": 0.0})
    app = quiet_app(settings, workers[0].clock)
    strict = Service(app=app, auth=app.state.latchstring, clock=workers[0].clock, settings=settings)
    await strict.auth.parts.core.feed.poll()
    first = pair_of(await post(strict, "register", json=registration()))
    answers = await asyncio.gather(*(post(strict, "refresh", token=first.refresh) for _ in range(8)))
    assert Counter(answer.status_code for answer in answers) == {200: 1, 401: 7}
    assert {answer.json().get("code") for answer in answers} <= {None, "refresh_token_reused", "session_ended"}
    async with strict.auth.parts.tools.database.reading() as connection:
        reused = sa.select(sa.func.count()).where(audit.c.fact == RefreshTokenReused.name)
        assert await connection.scalar(reused) == 1, "theft is on record once"
    await assert_dead(workers, [first, *(pair_of(answer) for answer in answers if answer.is_success)])
    await strict.auth.close()


@pytest.mark.parametrize("logout_first", [True, False])
async def test_logout_and_refresh_at_once_leave_nothing_alive(logout_first: bool, workers: list[Service]) -> None:  # noqa: FBT001
    """Signing out wins in every order: not even the refresh that was answered is worth anything (Keycloak 51312)."""
    for _ in range(6):
        pair = pair_of(
            await post(workers[0], "login", json=credentials())
            if "ada@example.com" in await addresses(workers[0])
            else await post(workers[0], "register", json=registration())
        )
        refresh = post(workers[0], "refresh", token=pair.refresh)
        logout = post(workers[1], "logout", token=pair.access)
        both = await asyncio.gather(*((logout, refresh) if logout_first else (refresh, logout)))
        refreshed, signed_out = reversed(both) if logout_first else both
        assert signed_out.status_code == 200
        assert refreshed.status_code == 200 or refreshed.json()["code"] == "session_ended"
        await assert_dead(workers, [pair, *([pair_of(refreshed)] if refreshed.is_success else [])])


async def addresses(service: Service) -> set[str]:
    """Returns everybody's address."""
    return {user.email for user in await service.auth.users.list()}


@pytest.mark.parametrize("ends", [("disable",), ("delete",), ("disable", "enable")])
async def test_a_proof_given_before_the_user_was_shut_out_is_void(ends: tuple[str, ...], settings: Settings) -> None:
    """A login whose hash still runs when the user is disabled or deleted opens no session, enabled again or not."""
    clock = ManualClock()
    clock.advance(seconds=1)
    app = quiet_app(settings, clock)
    service = Service(app=app, auth=app.state.latchstring, clock=clock, settings=settings)
    await service.auth.parts.core.feed.poll()
    registered = await post(service, "register", json=registration())
    user_id = UUID(registered.json()["id"])

    with held_hashes():
        login = asyncio.create_task(post(service, "login", json=credentials()))
        await hashing(service.auth.parts.tools.passwords)
        for end in ends:
            await getattr(service.auth.users, end)(user_id, source=OPERATOR)
        assert not login.done()
    answer = await login
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_credentials")
    assert await active_sessions(service, user_id) == 0
    await assert_dead([service], [pair_of(registered)])
    await service.auth.close()


@pytest.mark.parametrize("end", ["disable", "delete"])
async def test_a_login_at_the_same_instant_never_survives(end: str, workers: list[Service]) -> None:
    """Whichever commits first, after both answers the user has no living session and no token that works."""
    outcomes = Counter[int]()
    for turn in range(12):
        email = f"visitor{turn}@example.com"
        user_id = UUID((await post(workers[0], "register", json=registration(email))).json()["id"])

        async def shut_out(user_id: UUID = user_id, pause: float = turn * 0.0005) -> None:
            await asyncio.sleep(pause)
            await getattr(workers[1].auth.users, end)(user_id, source=OPERATOR)

        login, _ = await asyncio.gather(post(workers[0], "login", json=credentials(email)), shut_out())
        outcomes[login.status_code] += 1
        assert await active_sessions(workers[0], user_id) == 0
        if login.is_success:
            await assert_dead(workers, [pair_of(login)])
    assert outcomes.keys() <= {200, 400}


async def test_a_crowd_on_one_account_never_deadlocks(workers: list[Service]) -> None:
    """Sign-ins, refreshes, sign-outs, and an operator who disables and enables, all at once: nobody hears a 5xx."""
    answer = await post(workers[0], "register", json=registration())
    user_id, pair = UUID(answer.json()["id"]), pair_of(answer)

    async def flip(service: Service) -> None:
        for _ in range(3):
            await service.auth.users.disable(user_id, source=OPERATOR)
            await service.auth.users.enable(user_id, source=OPERATOR)

    crowd = [
        request
        for worker in workers * 4
        for request in (
            post(worker, "login", json=credentials()),
            post(worker, "refresh", token=pair.refresh),
            post(worker, "logout", token=pair.access),
        )
    ]
    answers, _ = await asyncio.gather(asyncio.gather(*crowd), asyncio.gather(*map(flip, workers)))
    assert {answer.status_code for answer in answers} <= {200, 400, 401}
    assert (await post(workers[0], "login", json=credentials())).status_code == 200


@pytest.mark.parametrize("backend", ["postgresql"])
@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
async def test_a_servers_default_isolation_does_not_matter(
    level: str, database_url: str, settings: Settings, clock: ManualClock
) -> None:
    """Statements that waited see what they waited for, whatever transactions are like on that server by default."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        name = sql.Identifier(connection.info.dbname)
        statement = sql.SQL("ALTER DATABASE {} SET default_transaction_isolation TO {}")
        connection.execute(statement.format(name, sql.Literal(level)))
    clock.advance(seconds=1)
    limited = settings.model_copy(update={"limits": True, "limit_account": Rate(3, 60)})
    app = quiet_app(limited, clock)
    service = Service(app=app, auth=app.state.latchstring, clock=clock, settings=limited)
    await service.auth.parts.core.feed.poll()
    pair = pair_of(await post(service, "register", json=registration()))
    answers = await asyncio.gather(*(post(service, "refresh", token=pair.refresh) for _ in range(10)))
    assert {answer.status_code for answer in answers} == {200}
    wrong = credentials(password="not the password")
    answers = await asyncio.gather(*(post(service, "login", json=wrong) for _ in range(10)))
    assert Counter(answer.status_code for answer in answers) == {400: 3, 429: 7}
    await service.auth.close()
