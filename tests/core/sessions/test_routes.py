"""The signed-in user's own sessions: listed, ended, proven anew, moved to another password, carried by any client."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID, uuid4

import httpx2
import jwt
import pytest
import sqlalchemy as sa
from fastapi import Depends, FastAPI

from latchstring import Auth, Caller, Settings, fresh
from latchstring.core.revocations.rules import RevocationReason
from latchstring.core.sessions.tables import sessions
from latchstring.foundation.audit import audit
from latchstring.foundation.events import OPERATOR
from latchstring.testing import ManualClock
from tests.support.backends import ON_SQLITE
from tests.support.hashes import hashing, held_hashes
from tests.support.service import (
    PASSWORD,
    Service,
    cheap_settings,
    credentials,
    quiet_app,
    registration,
    running_service,
)

NEW_PASSWORD = "another horse battery"
ENDED = (401, "session_ended")


@pytest.fixture
async def other(settings: Settings, service: Service, clock: ManualClock) -> AsyncIterator[Service]:
    """Another worker on the same database."""
    async with running_service(settings, clock) as running:
        yield running


async def signed_in(service: Service, password: str = PASSWORD, email: str = "ada@example.com") -> httpx2.AsyncClient:
    """Returns a browser that has just signed in."""
    browser = service.browser()
    answer = await browser.post("/api/auth/login", json=credentials(email, password))
    assert answer.status_code == 200, answer.text
    return browser


def said(browser: httpx2.AsyncClient, kind: str = "access") -> dict[str, Any]:
    """Returns what a browser's token says."""
    return claims_of(browser.cookies[f"{kind}_token"])


def claims_of(token: str) -> dict[str, Any]:
    """Returns what a token says."""
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims


def bearer(token: str) -> dict[str, str]:
    """Returns the header that shows a token."""
    return {"Authorization": f"Bearer {token}"}


async def sees(service: Service, token: str) -> tuple[int, str | None]:
    """Returns what the holder of an access token sees at a worker that has looked just now."""
    await service.auth.parts.core.feed.poll()
    answer = await service.browser().get("/api/dashboard", headers=bearer(token))
    return answer.status_code, answer.json().get("code")


async def refreshed(service: Service, token: str) -> tuple[int, str | None]:
    """Returns what the holder of a refresh token hears."""
    answer = await service.browser().post("/api/auth/refresh", headers=bearer(token))
    return answer.status_code, answer.json().get("code")


async def assert_dead(browser: httpx2.AsyncClient, *workers: Service) -> None:
    """Sees that a browser's tokens are worth nothing anywhere."""
    for worker in workers:
        assert await sees(worker, browser.cookies["access_token"]) == ENDED
        assert await refreshed(worker, browser.cookies["refresh_token"]) == ENDED


async def assert_alive(browser: httpx2.AsyncClient, *workers: Service) -> None:
    """Sees that a browser's access token lets it in everywhere."""
    for worker in workers:
        assert await sees(worker, browser.cookies["access_token"]) == (200, None)


async def events(service: Service, event: str) -> list[str | None]:
    """Returns the reason of each event of a kind."""
    async with service.auth.parts.tools.database.reading() as connection:
        return list(await connection.scalars(sa.select(audit.c.reason).where(audit.c.fact == event)))


# --- the list ---------------------------------------------------------------------------------------------------------


async def test_the_list_shows_where_one_is_signed_in(service: Service) -> None:
    """Own living sessions only, the one last used first; how and from where, and never a token."""
    first = await service.registered()
    service.clock.advance(minutes=1)
    second = service.browser(headers={"User-Agent": "Ada's phone"})
    await second.post("/api/auth/login", json=credentials())
    await service.registered("eve@example.com")
    ended, idle = await signed_in(service), await signed_in(service)
    await ended.post("/api/auth/logout")
    service.clock.advance(minutes=50)
    await first.post("/api/auth/refresh")
    service.clock.advance(minutes=9)
    await second.post("/api/auth/refresh")
    service.clock.advance(minutes=2)  # an hour has passed for the one that was not refreshed
    await first.post("/api/auth/refresh")

    answer = await first.get("/api/auth/sessions")
    assert answer.status_code == 200
    listed = answer.json()
    assert [entry["id"] for entry in listed] == [said(first)["sid"], said(second)["sid"]]
    assert [entry["current"] for entry in listed] == [True, False]
    assert listed[1]["user_agent"] == "Ada's phone"
    for entry in listed:
        assert entry.keys() == {
            *("id", "created_at", "last_used_at", "expires_at", "user_agent", "ip", "current", "methods"),
            "repeated_elsewhere_at",
        }
        assert (entry["ip"], entry["methods"]) == ("127.0.0.1", ["pwd"])
        created, used, expires = (
            datetime.fromisoformat(entry[name]) for name in ("created_at", "last_used_at", "expires_at")
        )
        assert created < used <= service.clock.now() < expires
    for browser in (first, second, idle):
        for token in browser.cookies.values():
            assert token not in answer.text


async def test_a_session_is_ended_from_the_list(service: Service, other: Service) -> None:
    """204, and its tokens are refused everywhere; a second time there is no such session."""
    here, there = await service.registered(), await signed_in(service)
    address = f"/api/auth/sessions/{said(there)['sid']}"
    answer = await here.delete(address)
    assert (answer.status_code, answer.content) == (204, b"")
    assert "set-cookie" not in answer.headers
    await assert_dead(there, service, other)
    await assert_alive(here, service, other)
    again = await here.delete(address)
    assert (again.status_code, again.json()["code"]) == (404, "session_not_found")
    assert await events(service, "session.ended") == ["revoked"]


@ON_SQLITE
async def test_ones_own_session_ended_from_the_list_is_a_sign_out(service: Service) -> None:
    """The cookies go with it."""
    here = await service.registered()
    kept = dict(here.cookies)
    assert (await here.delete(f"/api/auth/sessions/{said(here)['sid']}")).status_code == 204
    assert dict(here.cookies) == {}
    assert await refreshed(service, kept["refresh_token"]) == ENDED


async def test_another_users_session_is_not_found(service: Service) -> None:
    """404 for a foreign, an unknown and a malformed id alike, and the foreign one lives (TOB-PYPI26-11)."""
    ada, eve = await service.registered(), await service.registered("eve@example.com")
    foreign = said(ada)["sid"]
    for wanted in (
        foreign,
        str(uuid4()),
        foreign.upper(),
        foreign.replace("-", ""),
        f"{{{foreign}}}",
        "nothing",
        "%00",
    ):
        answer = await eve.delete(f"/api/auth/sessions/{wanted}")
        assert (answer.status_code, answer.json()["code"]) == (404, "session_not_found"), wanted
    await assert_alive(ada, service)
    assert await refreshed(service, ada.cookies["refresh_token"]) == (200, None)


async def test_all_others_are_ended(service: Service, other: Service) -> None:
    """This one stays; those of other users do."""
    here = await service.registered()
    others = [await signed_in(service), await signed_in(other)]
    eve = await service.registered("eve@example.com")
    assert (await here.delete("/api/auth/sessions")).status_code == 204
    for browser in others:
        await assert_dead(browser, service, other)
    for browser in (here, eve):
        await assert_alive(browser, service, other)
    assert [entry["current"] for entry in (await here.get("/api/auth/sessions")).json()] == [True]


async def test_with_all_this_one_is_ended_too(service: Service, other: Service) -> None:
    """The cookies go, and a new sign-in works at once, on every worker."""
    here, there = await service.registered(), await signed_in(service)
    kept = here.cookies["access_token"]
    answer = await here.delete("/api/auth/sessions", params={"all": "true"})
    assert answer.status_code == 204
    assert dict(here.cookies) == {}
    for worker in (service, other):
        assert await sees(worker, kept) == ENDED
    await assert_dead(there, service, other)
    await assert_alive(await signed_in(service), service, other)


async def test_a_session_that_has_ended_ends_no_others(service: Service, other: Service) -> None:
    """Signed out on one worker an instant ago, it may not shut out the others through another that has not heard."""
    here, there = await service.registered(), await signed_in(service)
    await other.auth.parts.core.feed.poll()
    kept = here.cookies["access_token"]
    await service.browser().post("/api/auth/logout", headers=bearer(kept))
    if (await other.browser().get("/api/dashboard", headers=bearer(kept))).status_code == 200:
        answer = await other.browser().delete("/api/auth/sessions", headers=bearer(kept))
        assert (answer.status_code, answer.json()["code"]) == ENDED
    await assert_alive(there, service, other)


# --- step-up ----------------------------------------------------------------------------------------------------------


@ON_SQLITE
async def test_ending_all_others_asks_for_a_fresh_proof(settings: Settings, clock: ManualClock) -> None:
    """A stolen session must not shut its owner out: 401 as in RFC 9470, until the user has proved it again."""
    async with running_service(settings.model_copy(update={"fresh_minutes": 5.0}), clock) as service:
        here, there = await service.registered(), await signed_in(service)
        clock.advance(minutes=5)
        assert (await here.delete("/api/auth/sessions", params={"all": "false"})).status_code == 401
        answer = await here.delete("/api/auth/sessions")
        assert (answer.status_code, answer.json()["code"]) == (401, "insufficient_user_authentication")
        assert answer.headers["www-authenticate"] == (
            'Bearer error="insufficient_user_authentication", '
            'error_description="Prove again who you are: the last proof was too long ago.", max_age="300"'
        )
        await assert_alive(there, service)
        old = here.cookies["access_token"]
        assert (await here.post("/api/auth/refresh")).status_code == 200
        assert (await here.delete("/api/auth/sessions")).status_code == 401, (
            "a fresh token is no fresh proof (GHSA-hp74)"
        )
        assert (await here.post("/api/auth/confirm", json={"password": PASSWORD})).status_code == 200
        refused = await service.browser().delete("/api/auth/sessions", headers=bearer(old))
        assert refused.status_code == 401
        assert (await here.delete("/api/auth/sessions")).status_code == 204
        await assert_dead(there, service)


@ON_SQLITE
async def test_a_hosts_route_asks_for_a_fresh_proof(settings: Settings, clock: ManualClock) -> None:
    """`fresh(minutes=…)` is a dependency like any other: a caller, or 401 with the challenge."""
    app = FastAPI()
    auth = Auth.from_settings(settings, clock=clock)
    auth.install(app, prefix="/auth")

    @app.delete("/account")
    async def delete(caller: Annotated[Caller, Depends(fresh(minutes=0.5))]) -> dict[str, str]:
        return {"deleted": str(caller.user_id)}

    async with auth.running(), httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://x") as browser:
        assert (await browser.delete("/account")).json() == {"detail": "You must refresh"}
        user = (await browser.post("/auth/register", json=registration())).json()
        clock.advance(seconds=29)
        assert (await browser.delete("/account")).json() == {"deleted": user["id"]}
        clock.advance(seconds=2)
        answer = await browser.delete("/account")
        assert answer.status_code == 401
        assert 'max_age="30"' in answer.headers["www-authenticate"]


# --- confirm ----------------------------------------------------------------------------------------------------------


async def test_a_confirmed_session_is_the_same_one_proven_anew(service: Service) -> None:
    """The user and both cookies; the same `sid`, the next generation, and an `auth_time` that says now."""
    browser = await service.registered()
    before, was = said(browser), said(browser, "refresh")
    service.clock.advance(minutes=10)
    answer = await browser.post("/api/auth/confirm", json={"password": PASSWORD})
    assert answer.status_code == 200
    assert answer.json() == (await browser.get("/api/auth/me")).json()
    after, now = said(browser), said(browser, "refresh")
    assert (after["sid"], now["gen"]) == (before["sid"], was["gen"] + 1)
    assert after["auth_time"] == after["iat"] == int(service.clock.now().timestamp())
    assert len({claims["jti"] for claims in (before, was, after, now)}) == 4
    assert len((await browser.get("/api/auth/sessions")).json()) == 1
    assert await events(service, "session.proven") == ["pwd"]


@ON_SQLITE
async def test_a_wrong_password_confirms_nothing(service: Service) -> None:
    """400 as at login; the session goes on as it was."""
    browser = await service.registered()
    before = dict(browser.cookies)
    answer = await browser.post("/api/auth/confirm", json={"password": "not the password"})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_credentials")
    assert "set-cookie" not in answer.headers
    assert dict(browser.cookies) == before
    await assert_alive(browser, service)


@pytest.mark.parametrize("confirm_first", [True, False])
async def test_a_tab_that_refreshes_while_another_confirms_keeps_the_same_token(
    confirm_first: bool,  # noqa: FBT001
    service: Service,
) -> None:
    """Whichever comes first, and whichever response comes last, both hold a token of one generation, and it is good."""
    browser = await service.registered()
    shown = {"Cookie": "; ".join(f"{name}={value}" for name, value in browser.cookies.items())}
    service.clock.advance(minutes=10)
    confirm = service.browser(headers=shown).post("/api/auth/confirm", json={"password": PASSWORD})
    refresh = service.browser(headers=shown).post("/api/auth/refresh")
    answers = [await step for step in ((confirm, refresh) if confirm_first else (refresh, confirm))]
    assert [answer.status_code for answer in answers] == [200, 200]
    held = [answer.cookies["refresh_token"] for answer in answers]
    assert {claims_of(token)["gen"] for token in held} == {said(browser, "refresh")["gen"] + 1}
    service.clock.advance(minutes=10)
    for token in held:
        assert await refreshed(service, token) == (200, None)


@ON_SQLITE
async def test_a_bearer_client_gets_its_next_tokens_in_the_body(service: Service) -> None:
    """T1: the body of `/token` and no cookies; the new refresh token carries the proof on."""
    await service.registered()
    form = {"grant_type": "password", "username": "ada@example.com", "password": PASSWORD}
    tokens = (await service.browser().post("/api/auth/token", data=form)).json()
    service.clock.advance(minutes=10)
    confirmed = await service.browser().post(
        "/api/auth/confirm", json={"password": PASSWORD}, headers=bearer(tokens["access_token"])
    )
    assert confirmed.status_code == 200
    assert "set-cookie" not in confirmed.headers
    assert confirmed.json().keys() == tokens.keys()
    before, after = claims_of(tokens["refresh_token"]), claims_of(confirmed.json()["refresh_token"])
    assert (after["sid"], after["gen"]) == (before["sid"], before["gen"] + 1)
    claims = claims_of(confirmed.json()["access_token"])
    assert claims["auth_time"] == after["auth_time"] == claims["iat"] == int(service.clock.now().timestamp())
    service.clock.advance(minutes=10)
    form = {"grant_type": "refresh_token", "refresh_token": confirmed.json()["refresh_token"]}
    answer = await service.browser().post("/api/auth/token", data=form)
    assert claims_of(answer.json()["access_token"])["auth_time"] == claims["auth_time"]


async def test_a_session_that_ended_is_not_confirmed(service: Service, other: Service) -> None:
    """Signed out while the hash ran, or on a worker one has not heard of: 401, and nothing comes to life."""
    browser = await service.registered()
    await other.auth.parts.core.feed.poll()
    shown = dict(browser.cookies)
    await browser.post("/api/auth/logout")
    answer = await other.browser().post(
        "/api/auth/confirm", json={"password": PASSWORD}, headers=bearer(shown["access_token"])
    )
    assert (answer.status_code, answer.json()["code"]) == ENDED
    assert "set-cookie" not in answer.headers
    assert await refreshed(other, shown["refresh_token"]) == ENDED


# --- another password -------------------------------------------------------------------------------------------------


async def change(browser: httpx2.AsyncClient, current: str = PASSWORD, new: str = NEW_PASSWORD) -> httpx2.Response:
    """Changes the password."""
    return await browser.post("/api/auth/password/change", json={"current_password": current, "new_password": new})


async def test_a_changed_password_ends_the_other_sessions(service: Service, other: Service) -> None:
    """204; the caller has a new session, all others are over everywhere (CVE-2023-40273), the new password signs in."""
    here = await service.registered()
    there = await signed_in(other)
    replaced = said(here)["sid"]
    answer = await change(here)
    assert (answer.status_code, answer.content) == (204, b"")
    await assert_dead(there, service, other)
    await assert_alive(here, service, other)
    assert (await here.post("/api/auth/refresh")).status_code == 200
    old = await service.browser().post("/api/auth/login", json=credentials())
    assert (old.status_code, old.json()["code"]) == (400, "invalid_credentials")
    await signed_in(service, NEW_PASSWORD)
    assert await events(service, "password.changed") == [replaced]
    assert await events(service, "session.ended") == ["password_changed", "password_changed"]


async def test_sessions_that_ended_by_themselves_are_left_as_they_are(service: Service) -> None:
    """Who has thousands of them changes the password as quickly as anybody; as evidence they stay what they were."""
    here = await service.registered()
    for _ in range(3):
        await signed_in(service)
    for _ in range(4):
        service.clock.advance(minutes=40)
        assert (await here.post("/api/auth/refresh")).status_code == 200
    there = await signed_in(service)
    assert (await change(here)).status_code == 204
    await assert_dead(there, service)
    assert await events(service, "session.ended") == ["password_changed", "password_changed"]
    async with service.auth.parts.tools.database.reading() as connection:
        reasons = list(await connection.scalars(sa.select(sessions.c.revoked_reason)))
    assert sorted(map(str, reasons)) == ["None"] * 4 + ["password_changed"] * 2


async def test_an_instance_that_is_ahead_ends_what_lives_by_the_others_clock(
    settings: Settings, service: Service, clock: ManualClock
) -> None:
    """Its clock says that a session has ended by itself; by the honest one it could still be renewed."""
    here, there = await service.registered(), await signed_in(service)
    clock.advance(minutes=55)
    assert (await here.post("/api/auth/refresh")).status_code == 200
    fast = ManualClock()
    fast.advance(minutes=65)
    async with running_service(settings, fast) as ahead:
        asked = ahead.browser(headers=bearer(here.cookies["access_token"]))
        assert (await change(asked)).status_code == 200
    assert await refreshed(service, there.cookies["refresh_token"]) == ENDED


@ON_SQLITE
async def test_a_wrong_current_password_changes_nothing(service: Service) -> None:
    """400 as at login, and every session goes on."""
    here, there = await service.registered(), await signed_in(service)
    answer = await change(here, current="not the password")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_credentials")
    await assert_alive(here, service)
    await assert_alive(there, service)
    await signed_in(service)


@contextlib.asynccontextmanager
async def threaded_service(settings: Settings) -> AsyncIterator[Service]:
    """Runs a worker with a thread for each of a few hashes."""
    threaded = settings.model_copy(update={"password_hash_threads": 5})
    clock = ManualClock()
    clock.advance(seconds=1)
    app = quiet_app(threaded, clock)
    service = Service(app=app, auth=app.state.latchstring, clock=clock, settings=threaded)
    await service.auth.parts.core.feed.poll()
    try:
        yield service
    finally:
        await service.auth.close()


async def test_a_sign_in_with_the_old_password_whose_hash_still_runs_opens_nothing(settings: Settings) -> None:
    """The password is changed between its reading and its session: the proof is void."""
    async with threaded_service(settings) as service:
        here = await service.registered()
        with held_hashes():
            changing = asyncio.create_task(change(here))
            await hashing(service.auth.parts.tools.passwords)
            answers = [
                asyncio.create_task(service.browser().post("/api/auth/login", json=credentials())) for _ in range(4)
            ]
            await hashing(service.auth.parts.tools.passwords, 5)
        assert (await changing).status_code == 204
        for answer in await asyncio.gather(*answers):
            if answer.is_success:
                assert await sees(service, answer.cookies["access_token"]) == ENDED
                assert await refreshed(service, answer.cookies["refresh_token"]) == ENDED
            else:
                assert answer.json()["code"] in {"invalid_credentials", "hash_queue_full"}
        assert len((await here.get("/api/auth/sessions")).json()) == 1


async def test_two_changes_at_once_are_one(settings: Settings) -> None:
    """Both know the current password; one is done, the other's proof is void by then."""
    async with threaded_service(settings) as service:
        here = await service.registered()
        there = await signed_in(service)
        with held_hashes():
            first = asyncio.create_task(change(here, new="first horse battery"))
            second = asyncio.create_task(change(there, new="second horse battery"))
            await hashing(service.auth.parts.tools.passwords, 2)
        answers = await asyncio.gather(first, second)
        assert sorted(answer.status_code for answer in answers) in ([204, 400], [204, 401])
        winner = ("first" if answers[0].status_code == 204 else "second") + " horse battery"
        await signed_in(service, winner)


# --- clients that are not browsers ------------------------------------------------------------------------------------


@ON_SQLITE
async def test_a_client_gets_its_tokens_in_the_body(service: Service) -> None:
    """RFC 6749: both tokens, `bearer`, and how long; no cookie is set, nothing is stored by a cache."""
    await service.registered()
    form = {"grant_type": "password", "username": " ADA@Example.com ", "password": PASSWORD, "client_id": "latchstring"}
    answer = await service.browser().post("/api/auth/token", data=form)
    assert answer.status_code == 200
    tokens = answer.json()
    assert tokens.keys() == {"access_token", "token_type", "expires_in", "refresh_token"}
    assert (tokens["token_type"], tokens["expires_in"]) == ("bearer", 900)
    assert "set-cookie" not in answer.headers
    assert (answer.headers["cache-control"], answer.headers["pragma"]) == ("no-store", "no-cache")
    assert await sees(service, tokens["access_token"]) == (200, None)

    service.clock.advance(minutes=1)
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    renewed = await service.browser().post("/api/auth/token", data=form)
    assert renewed.status_code == 200
    assert "set-cookie" not in renewed.headers
    again = await service.browser().post("/api/auth/token", data=form)
    assert again.json()["refresh_token"] == renewed.json()["refresh_token"], "a lost answer is repaired by asking again"
    service.clock.advance(minutes=1)
    assert (await service.browser().post("/api/auth/token", data=form)).json()["code"] == "refresh_token_reused"
    assert await sees(service, renewed.json()["access_token"]) == ENDED


@ON_SQLITE
async def test_a_session_is_one_whatever_carries_it(service: Service) -> None:
    """By cookie or at `/token`, it is the same session and the same generation."""
    browser = await service.registered()
    form = {"grant_type": "refresh_token", "refresh_token": browser.cookies["refresh_token"]}
    tokens = (await service.browser().post("/api/auth/token", data=form)).json()
    assert (await browser.post("/api/auth/refresh")).status_code == 200
    assert browser.cookies["refresh_token"] == tokens["refresh_token"]
    assert len((await browser.get("/api/auth/sessions")).json()) == 1


@ON_SQLITE
@pytest.mark.parametrize(
    ("form", "status", "error", "code"),
    [
        ({"colour": "blue"}, 400, "invalid_request", "validation_failed"),
        ({"grant_type": ""}, 400, "invalid_request", "validation_failed"),
        ({"grant_type": "client_credentials"}, 400, "unsupported_grant_type", "unsupported_grant_type"),
        ({"grant_type": "password", "username": "ada@example.com"}, 400, "invalid_request", "validation_failed"),
        ({"grant_type": "password", "password": PASSWORD}, 400, "invalid_request", "validation_failed"),
        ({"grant_type": "refresh_token"}, 400, "invalid_request", "validation_failed"),
        ({"grant_type": "refresh_token", "refresh_token": "a.b.c"}, 400, "invalid_grant", "invalid_token"),
        ({"grant_type": "password", **credentials()}, 400, "invalid_request", "validation_failed"),
        (
            {"grant_type": "password", "username": "ada@example.com", "password": "not the password"},
            *(400, "invalid_grant", "invalid_credentials"),
        ),
        (
            {"grant_type": "password", "username": "bob@example.com", "password": PASSWORD},
            *(400, "invalid_grant", "invalid_credentials"),
        ),
        (
            {"grant_type": "password", "username": "no address", "password": PASSWORD},
            *(400, "invalid_grant", "invalid_credentials"),
        ),
        (
            {"grant_type": "password", "username": "ada@example.com", "password": PASSWORD, "client_id": "another"},
            *(401, "invalid_client", "invalid_client"),
        ),
        (
            {"grant_type": "password", "username": "ada@example.com", "password": PASSWORD, "scope": "admin"},
            *(400, "invalid_scope", "invalid_scope"),
        ),
    ],
)
async def test_the_token_endpoint_refuses_as_oauth_clients_expect(
    form: dict[str, str], status: int, error: str, code: str, service: Service
) -> None:
    """`error` and `error_description` (RFC 6749, section 5.2) beside the stable code; nothing of what was sent."""
    await service.registered()
    answer = await service.browser().post("/api/auth/token", data=form)
    assert answer.headers["content-type"] == "application/json"
    problem = answer.json()
    assert problem.keys() == {"error", "error_description", "code", "request_id"}
    assert (answer.status_code, problem["error"], problem["code"]) == (status, error, code)
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert "set-cookie" not in answer.headers
    assert PASSWORD not in answer.text


@ON_SQLITE
async def test_an_access_token_buys_no_others(service: Service) -> None:
    """A token of the other kind is no refresh token."""
    browser = await service.registered()
    form = {"grant_type": "refresh_token", "refresh_token": browser.cookies["access_token"]}
    answer = await service.browser().post("/api/auth/token", data=form)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")


# --- how many ---------------------------------------------------------------------------------------------------------


async def test_the_oldest_session_makes_room(settings: Settings, clock: ManualClock) -> None:
    """One sign-in more than the limit ends the oldest, everywhere; ended and expired ones take no room."""
    few = settings.model_copy(update={"sessions_per_user": 3})
    async with running_service(few, clock) as service, running_service(few, clock) as other:
        eve = await service.registered("eve@example.com")
        await service.registered()
        clock.advance(minutes=61)  # that one has expired
        browsers = []
        for turn in range(5):
            clock.advance(seconds=1)
            browsers.append(await signed_in(service))
            if turn == 1:
                await browsers.pop().post("/api/auth/logout")
        # Four have been opened that were not signed out: the first of them had to go.
        await assert_dead(browsers[0], service, other)
        for browser in browsers[1:]:
            await assert_alive(browser, service, other)
        assert (await eve.post("/api/auth/refresh")).status_code == 401, "eve's expired by itself"
        assert sorted(reason or "" for reason in await events(service, "session.ended")) == ["logout", "too_many"]
        async with service.auth.parts.tools.database.reading() as connection:
            living = sa.select(sa.func.count()).where(
                sessions.c.revoked_at.is_(None), sessions.c.expires_at > clock.now()
            )
            assert await connection.scalar(living) == 3


async def test_sign_ins_at_once_keep_the_limit(settings: Settings, clock: ManualClock) -> None:
    """Ten at the same instant on two workers: as many sessions live as may, no more."""
    few = settings.model_copy(update={"sessions_per_user": 3})
    async with running_service(few, clock) as service, running_service(few, clock) as other:
        browser = await service.registered()
        clock.advance(seconds=1)
        answers = await asyncio.gather(
            *(worker.browser().post("/api/auth/login", json=credentials()) for worker in (service, other) * 5)
        )
        assert {answer.status_code for answer in answers} == {200}
        listed = (await (await signed_in(service)).get("/api/auth/sessions")).json()
        assert len(listed) == 3
        await assert_dead(browser, service, other)


# --- by the operator --------------------------------------------------------------------------------------------------


async def test_everyone_is_signed_out(service: Service, other: Service, settings: Settings, clock: ManualClock) -> None:
    """One row ends every session on every worker, on one that starts later too; who signs in again is let in."""
    ada, eve = await service.registered(), await other.registered("eve@example.com")
    for _ in range(2):
        await service.auth.sessions.revoke_everyone(source=OPERATOR)
        for browser in (ada, eve):
            await assert_dead(browser, service, other)
        async with running_service(settings, clock) as late:
            await assert_dead(ada, late)
        assert (await service.auth.sessions.list_sessions(UUID(said(ada)["sub"]))) == []
        ada, eve = await signed_in(other), await signed_in(service, email="eve@example.com")
        for browser in (ada, eve):
            await assert_alive(browser, service, other)
            assert (await browser.post("/api/auth/refresh")).status_code == 200
            await assert_alive(browser, service, other)
    # The clock stands still: the second one is the next number.
    assert said(ada)["epoch"] == int(clock.now().timestamp()) + 1
    assert await events(service, "everyone.signed_out") == ["operator", "operator"]


async def test_two_operators_at_once_begin_two_epochs(service: Service, other: Service) -> None:
    """Neither fails, and nothing opened before either of them lives."""
    ada = await service.registered()
    await asyncio.gather(*(worker.auth.sessions.revoke_everyone(source=OPERATOR) for worker in (service, other) * 2))
    await assert_dead(ada, service, other)
    assert said(await signed_in(service))["epoch"] == int(service.clock.now().timestamp()) + 3


async def test_a_session_opened_at_the_instant_everyone_is_signed_out_is_dead_or_new(
    service: Service, other: Service
) -> None:
    """Whichever commits first: a session of the old epoch is worth nothing, though no statement ever ended its row."""
    await service.registered()
    for turn in range(10):

        async def operator(pause: float = turn * 0.002) -> None:
            await asyncio.sleep(pause)
            await other.auth.sessions.revoke_everyone(source=OPERATOR)

        answer, _ = await asyncio.gather(service.browser().post("/api/auth/login", json=credentials()), operator())
        claims = jwt.decode(answer.cookies["access_token"], options={"verify_signature": False})
        is_new = claims.get("epoch", 0) == int(service.clock.now().timestamp()) + turn
        for worker in (service, other):
            assert (await sees(worker, answer.cookies["access_token"]))[0] == (200 if is_new else 401)
        assert (await refreshed(service, answer.cookies["refresh_token"]))[0] == (200 if is_new else 401)


async def test_a_users_sessions_are_ended_by_the_operator(service: Service, other: Service) -> None:
    """All of one user, who may sign in again at once; nobody else's; and one alone, by its id."""
    ada, eve = await service.registered(), await service.registered("eve@example.com")
    user_id = UUID(said(ada)["sub"])
    ended = await service.auth.sessions.revoke_sessions_of_user(
        user_id, reason=RevocationReason.OPERATOR, source=OPERATOR
    )
    assert ended
    await assert_dead(ada, service, other)
    await assert_alive(eve, service, other)
    ada = await signed_in(other)
    await assert_alive(ada, service, other)
    session_id = UUID(said(ada)["sid"])
    for expected in (True, False):
        revoked = await service.auth.sessions.revoke_session(
            session_id, reason=RevocationReason.OPERATOR, source=OPERATOR
        )
        assert revoked is expected
    await assert_dead(ada, service, other)
    nobody = await service.auth.sessions.revoke_sessions_of_user(
        uuid4(), reason=RevocationReason.OPERATOR, source=OPERATOR
    )
    assert not nobody


# --- rolling settings -------------------------------------------------------------------------------------------------


async def test_a_repeated_answer_is_the_same_whatever_the_instances_settings(
    database_url: str, clock: ManualClock
) -> None:
    """Half-way through a deployment of another lifetime, both tabs still get one and the same pair."""
    short, long = (cheap_settings(database_url, access_token_expire_minutes=minutes) for minutes in (5, 15))
    async with running_service(short, clock) as service, running_service(long, clock) as other:
        browser = await service.registered()
        token = browser.cookies["refresh_token"]
        for first, second in ((service, other), (other, service)):
            clock.advance(minutes=1)
            one = await first.browser().post("/api/auth/refresh", headers=bearer(token))
            two = await second.browser().post("/api/auth/refresh", headers=bearer(token))
            assert dict(one.cookies) == dict(two.cookies)
            token = one.cookies["refresh_token"]
