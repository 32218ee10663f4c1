"""Rotation, theft, sliding life, and everything that ends a session: over HTTP, with the clock turned by hand."""

import base64
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, NamedTuple
from uuid import UUID

import httpx2
import jwt
import pytest
import sqlalchemy as sa

from latchstring import Settings
from latchstring.apps.server import prepare
from latchstring.core.keys.key_set import make_private_pem
from latchstring.core.keys.settings import Algorithm
from latchstring.core.sessions.tables import sessions
from latchstring.foundation.audit import audit
from latchstring.foundation.events import OPERATOR
from latchstring.testing import ManualClock
from tests.support.backends import ON_SQLITE
from tests.support.service import Service, cheap_settings, credentials, registration, running_service


class Pair(NamedTuple):
    """The tokens of one answer."""

    access: str
    refresh: str


class Ending(NamedTuple):
    """What a holder of old tokens hears."""

    status: int
    code: str


# Ed25519 costs next to nothing, and signs the same with the same signature each time, as RSA does.
PRIVATE_KEY = base64.b64encode(make_private_pem(Algorithm.EDDSA)).decode()


@pytest.fixture
def settings(database_url: str) -> Settings:
    """Tokens signed with Ed25519; RS256 and the others have a test of their own."""
    return cheap_settings(database_url, jwt_algorithm="EdDSA", jwt_private_key=PRIVATE_KEY)


@pytest.fixture
async def other(settings: Settings, service: Service, clock: ManualClock) -> AsyncIterator[Service]:
    """Another worker on the same database."""
    async with running_service(settings, clock) as running:
        yield running


def pair_of(answer: httpx2.Response) -> Pair:
    """Returns the tokens an answer set as cookies."""
    assert answer.is_success, answer.text
    return Pair(answer.cookies["access_token"], answer.cookies["refresh_token"])


async def registered(service: Service, email: str = "ada@example.com") -> Pair:
    """Returns the tokens of somebody who has just registered."""
    return pair_of(await service.browser().post("/api/auth/register", json=registration(email)))


async def refreshed(service: Service, token: str) -> httpx2.Response:
    """Returns the answer to a refresh token, shown by a client that keeps nothing."""
    return await service.browser().post("/api/auth/refresh", headers={"Authorization": f"Bearer {token}"})


async def dashboard(service: Service, token: str) -> httpx2.Response:
    """Returns what the holder of an access token sees."""
    return await service.browser().get("/api/dashboard", headers={"Authorization": f"Bearer {token}"})


def claims(token: str) -> dict[str, Any]:
    """Returns what a token says; whether it is genuine is tested elsewhere."""
    said: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return said


def refusal(answer: httpx2.Response) -> Ending:
    """Returns status and code, having seen that nobody's cookies are touched and that a challenge comes along."""
    assert "set-cookie" not in answer.headers, "the loser must not clear the winner's cookies"
    if answer.status_code == 401:
        assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    return Ending(answer.status_code, answer.json()["code"])


async def events(service: Service) -> Counter[str]:
    """Returns how often each event was recorded."""
    async with service.auth.parts.tools.database.reading() as connection:
        return Counter(await connection.scalars(sa.select(audit.c.fact)))


REUSED = Ending(401, "refresh_token_reused")
ENDED = Ending(401, "session_ended")
EXPIRED = Ending(401, "token_expired")


# --- rotation ---------------------------------------------------------------------------------------------------------


async def test_a_refresh_gives_the_next_generation(service: Service) -> None:
    """Both tokens are new, of the same session, and say the same of how and when the user proved who they are."""
    first = await registered(service)
    service.clock.advance(minutes=5)
    second = pair_of(await refreshed(service, first.refresh))

    was, now = claims(first.refresh), claims(second.refresh)
    assert (was["gen"], now["gen"]) == (1, 2)
    assert now["iat"] == now["nbf"] == int(service.clock.now().timestamp())
    assert (was["exp"] - was["iat"], now["exp"] - now["iat"]) == (3600, 3600)
    assert len({claims(token)["jti"] for token in (*first, *second)}) == 4
    assert len({claims(token)["sid"] for token in (*first, *second)}) == 1

    was, now = claims(first.access), claims(second.access)
    assert {name: was[name] for name in ("sub", "amr", "auth_time", "ver")} == {
        name: now[name] for name in ("sub", "amr", "auth_time", "ver")
    }
    assert (await dashboard(service, second.access)).status_code == 200


async def test_the_previous_generation_gets_the_very_same_tokens(service: Service, other: Service) -> None:
    """A second tab, and a client whose answer was lost, get byte for byte the winner's tokens, from every worker."""
    first = await registered(service)
    service.clock.advance(minutes=5)
    second = pair_of(await refreshed(service, first.refresh))
    for worker, seconds, age in ((service, 0, 0), (other, 0.6, 1), (service, 20, 21), (other, 9.4, 30)):
        service.clock.advance(seconds=seconds)
        answer = await refreshed(worker, first.refresh)
        assert pair_of(answer) == second
        assert f"Max-Age={900 - age};" in answer.headers.get_list("set-cookie")[0], "as long as the token, no longer"
    assert claims(pair_of(await refreshed(other, second.refresh)).refresh)["gen"] == 3
    assert "session.refresh_reused" not in await events(service)


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "PS256"])
async def test_a_repeated_answer_says_the_same_under_every_algorithm(
    algorithm: str, database_url: str, clock: ManualClock
) -> None:
    """Where signatures are random the claims are not: `iat`, `exp` and `jti` come from the row."""
    settings = cheap_settings(database_url, jwt_algorithm=algorithm)
    await prepare(settings)
    clock.advance(minutes=11)  # past the time for which a new key is published before it signs
    async with running_service(settings, clock) as service:
        first = await registered(service)
        clock.advance(minutes=1)
        second = pair_of(await refreshed(service, first.refresh))
        clock.advance(seconds=29)
        again = pair_of(await refreshed(service, first.refresh))
        assert jwt.get_unverified_header(again.access)["alg"] == algorithm
        assert [claims(token) for token in again] == [claims(token) for token in second]
        assert (again == second) is (algorithm == "RS256")
        assert (await dashboard(service, again.access)).status_code == 200


@ON_SQLITE
async def test_rotations_within_one_second_are_told_apart(settings: Settings, clock: ManualClock) -> None:
    """Generations are counted, not timed: three in the same instant differ, and each is good once (Keycloak 50999)."""
    async with running_service(settings.model_copy(update={"refresh_grace_seconds": 0.0}), clock) as service:
        pairs = [await registered(service)]
        for _ in range(3):
            pairs.append(pair_of(await refreshed(service, pairs[-1].refresh)))
        assert len({token for pair in pairs for token in pair}) == 8
        assert refusal(await refreshed(service, pairs[-2].refresh)) == REUSED
        assert refusal(await refreshed(service, pairs[-1].refresh)) == ENDED


# --- theft ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grace", "rotations", "seconds"),
    [
        pytest.param(30, 1, 30.001, id="previous-after-the-grace"),
        pytest.param(30, 2, 0, id="two-generations-back"),
        pytest.param(30, 3, 31, id="three-generations-back"),
        pytest.param(0, 1, 0, id="no-grace"),
    ],
)
async def test_a_reused_token_ends_the_session_everywhere(
    grace: float, rotations: int, seconds: float, settings: Settings, clock: ManualClock
) -> None:
    """Whoever holds a copy, thief or owner, the session is over: here at once, on another worker by its next poll."""
    settings = settings.model_copy(update={"refresh_grace_seconds": float(grace)})
    async with running_service(settings, clock) as service, running_service(settings, clock) as other:
        stolen = current = await registered(service)
        bystander = await registered(service, "bob@example.com")
        for _ in range(rotations):
            current = pair_of(await refreshed(service, current.refresh))
        assert (await dashboard(other, current.access)).status_code == 200
        clock.advance(seconds=seconds)

        assert refusal(await refreshed(service, stolen.refresh)) == REUSED
        for token in (stolen.access, current.access):
            assert refusal(await dashboard(service, token)) == ENDED
        await other.auth.parts.core.feed.poll()
        for token in (stolen.access, current.access):
            assert refusal(await dashboard(other, token)) == ENDED

        for worker in (service, other):
            for token in (current.refresh, stolen.refresh):
                assert refusal(await refreshed(worker, token)) == ENDED
        assert (await events(service))["session.refresh_reused"] == 1
        assert (await dashboard(other, bystander.access)).status_code == 200
        assert (await refreshed(other, bystander.refresh)).status_code == 200


async def test_reuse_is_seen_after_a_restart(settings: Settings, clock: ManualClock) -> None:
    """Nothing of theft detection lies in a process's memory (CVE-2026-9802)."""
    async with running_service(settings, clock) as before:
        stolen = await registered(before)
        current = pair_of(await refreshed(before, stolen.refresh))
    clock.advance(seconds=31)
    async with running_service(settings, clock) as after:
        assert (await dashboard(after, current.access)).status_code == 200
        assert refusal(await refreshed(after, stolen.refresh)) == REUSED
        assert refusal(await dashboard(after, current.access)) == ENDED
    async with running_service(settings, clock) as again:
        assert refusal(await dashboard(again, current.access)) == ENDED


# --- expiry -----------------------------------------------------------------------------------------------------------


async def test_a_session_slides_up_to_its_absolute_end(settings: Settings, clock: ManualClock) -> None:
    """Each refresh gives a full life again until the session's age is reached, and no token passes that."""
    short = settings.model_copy(update={"session_max_days": 0.1})  # 144 minutes
    async with running_service(short, clock) as service:
        pair = await registered(service)
        born = claims(pair.refresh)["iat"]
        end = born + 8640
        for minutes, access_life, refresh_life in ((50, 15, 60), (50, 15, 44), (40, 4, 4)):
            clock.advance(minutes=minutes)
            pair = pair_of(await refreshed(service, pair.refresh))
            for token, life in ((pair.access, access_life), (pair.refresh, refresh_life)):
                assert claims(token)["exp"] - claims(token)["iat"] == life * 60
                assert claims(token)["exp"] <= end
        clock.advance(seconds=239)
        assert (await dashboard(service, pair.access)).status_code == 200
        clock.advance(seconds=0.5)  # the end is at a whole second, as tokens know no other
        assert refusal(await dashboard(service, pair.access)) == EXPIRED
        assert refusal(await refreshed(service, pair.refresh)) == EXPIRED


@ON_SQLITE
async def test_an_unused_session_ends_by_itself(service: Service) -> None:
    """The refresh token's life is the idle time: at its expiry, to the instant, it is worth nothing."""
    pair = await registered(service)
    service.clock.advance(minutes=60, seconds=-0.501)
    service.clock.advance(seconds=0.001)
    assert refusal(await refreshed(service, pair.refresh)) == EXPIRED
    assert (await refreshed(service, pair.refresh)).json()["detail"] == "You must refresh"


@ON_SQLITE
async def test_an_expired_refresh_token_is_no_theft(service: Service) -> None:
    """A tab that slept shows an old token past its expiry: it is told so, and the session goes on."""
    first = await registered(service)
    service.clock.advance(minutes=30)
    second = pair_of(await refreshed(service, first.refresh))
    service.clock.advance(minutes=30)
    assert refusal(await refreshed(service, first.refresh)) == EXPIRED
    assert "session.refresh_reused" not in await events(service)
    assert (await refreshed(service, second.refresh)).status_code == 200


@pytest.mark.parametrize(
    ("registered_under", "rotated_under", "repeated_under"),
    [
        pytest.param(30, 1, 1, id="lowered"),
        pytest.param(1, 30, 30, id="raised"),
        pytest.param(1, 1, 30, id="raised-within-the-grace"),
        pytest.param(1, 30, 1, id="lowered-within-the-grace"),
    ],
)
async def test_a_changed_lifetime_never_brings_a_revoked_token_back(
    registered_under: int, rotated_under: int, repeated_under: int, settings: Settings, clock: ManualClock
) -> None:
    """A revocation outlasts every token of its session, whatever ACCESS_TOKEN_EXPIRE_MINUTES was for each of them."""
    async with contextlib.AsyncExitStack() as stack:
        worker = {
            minutes: await stack.enter_async_context(
                running_service(settings.model_copy(update={"access_token_expire_minutes": minutes}), clock)
            )
            for minutes in (1, 30)
        }
        first = await registered(worker[registered_under])
        clock.advance(seconds=5)
        second = pair_of(await refreshed(worker[rotated_under], first.refresh))
        again = pair_of(await refreshed(worker[repeated_under], first.refresh))
        for ending in (worker[1], worker[30]):
            answer = await ending.browser().post(
                "/api/auth/logout", headers={"Authorization": f"Bearer {second.refresh}"}
            )
            assert answer.status_code == 200
        heard = {ENDED}
        while heard != {EXPIRED}:
            heard = set()
            for service in worker.values():
                await service.auth.parts.core.feed.poll()
                heard |= {refusal(await dashboard(service, pair.access)) for pair in (first, second, again)}
            assert heard <= {ENDED, EXPIRED}
            clock.suspend(seconds=90)  # long enough for the next poll to read everything again, and to forget


# --- users who are gone or shut out -----------------------------------------------------------------------------------


async def user_id(service: Service) -> UUID:
    """Returns the id of the one user there is."""
    (user,) = await service.auth.users.list()
    return user.id


@pytest.mark.parametrize("signed_out_before", [False, True], ids=["signed-in", "signed-out"])
async def test_a_deleted_user_is_not_found(signed_out_before: bool, service: Service, other: Service) -> None:  # noqa: FBT001
    """404 on every guarded route of every worker, and a sentence of its own for the refresh token."""
    pair = await registered(service)
    if signed_out_before:
        await service.browser().post("/api/auth/logout", headers={"Authorization": f"Bearer {pair.refresh}"})
    assert await service.auth.users.delete(await user_id(service), source=OPERATOR)
    await other.auth.parts.core.feed.poll()
    for worker in (service, other):
        for path in ("/api/dashboard", "/api/dashboard/dashboard", "/api/auth/me"):
            answer = await worker.browser().get(path, headers={"Authorization": f"Bearer {pair.access}"})
            assert (answer.status_code, answer.json()["detail"]) == (404, "User not found")
        answer = await refreshed(worker, pair.refresh)
        assert refusal(answer) == (401, "user_gone")
        assert answer.json()["detail"] == "The user belonging to this token does not exist."
    # The address is free again, and whoever takes it is somebody else.
    newcomer = await registered(other)
    assert claims(newcomer.access)["sub"] != claims(pair.access)["sub"]
    assert (await dashboard(service, newcomer.access)).status_code == 200
    assert (await dashboard(service, pair.access)).status_code == 404


async def test_a_disabled_user_is_shut_out(service: Service, other: Service) -> None:
    """Every token is refused everywhere, and sign-in gives the answer that a wrong password gets."""
    pair = await registered(service)
    disabled = await service.auth.users.disable(await user_id(service), source=OPERATOR)
    assert disabled is not None
    assert disabled.is_disabled
    await other.auth.parts.core.feed.poll()
    for worker in (service, other):
        assert refusal(await dashboard(worker, pair.access)) == ENDED
        assert refusal(await refreshed(worker, pair.refresh)) == ENDED
        right = await worker.browser().post("/api/auth/login", json=credentials())
        wrong = await worker.browser().post("/api/auth/login", json=credentials(password="not the password"))
        assert refusal(right) == (400, "invalid_credentials")
        assert right.headers["www-authenticate"] == wrong.headers["www-authenticate"] == "Bearer"
        assert right.json() | {"request_id": ""} == wrong.json() | {"request_id": ""}


async def test_enabling_brings_the_user_back_and_no_token(
    settings: Settings, service: Service, other: Service, clock: ManualClock
) -> None:
    """Old tokens stay dead on workers that saw it, and on one that starts afterwards; a new sign-in works at once."""
    old = await registered(service)
    for shut in (service.auth.users.disable, service.auth.users.enable):
        assert await shut(await user_id(service), source=OPERATOR) is not None
    new = pair_of(await service.browser().post("/api/auth/login", json=credentials()))
    await other.auth.parts.core.feed.poll()
    async with running_service(settings, clock) as newcomer:
        for worker in (service, other, newcomer):
            assert refusal(await dashboard(worker, old.access)) == ENDED
            assert refusal(await refreshed(worker, old.refresh)) == ENDED
            assert (await dashboard(worker, new.access)).status_code == 200
        successor = pair_of(await refreshed(newcomer, new.refresh))
    assert (await dashboard(service, successor.access)).status_code == 200


async def test_an_ended_session_is_kept_as_evidence(service: Service) -> None:
    """The row says when and why the session ended, and outlives its user."""
    await registered(service)
    await service.auth.users.disable(await user_id(service), source=OPERATOR)
    await service.auth.users.delete(await user_id(service), source=OPERATOR)
    async with service.auth.parts.tools.database.reading() as connection:
        row = (await connection.execute(sa.select(sessions))).one()
    assert (row.revoked_reason, row.revoked_at) == ("user_disabled", service.clock.now())
