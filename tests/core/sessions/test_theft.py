"""What a stolen token can still do, and how its owner gets rid of the thief (FOUND.md, T1 to T5, T16 and T23).

The thief has a copy of the browser's cookies. The grace gives them what it gives a second tab, and a proof that the
owner gives is never among it.
"""

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import httpx2
import jwt
import pytest
import sqlalchemy as sa

from latchstring import PasswordChanged, RefreshRepeatedElsewhere, SessionCreated, Settings
from latchstring.core.sessions.tables import sessions
from latchstring.foundation.audit import audit
from latchstring.testing import ManualClock
from tests.support.backends import ON_SQLITE, WITH_PAGES, on_both_once
from tests.support.forge import Genuine
from tests.support.service import PASSWORD, Service, cheap_settings, credentials, registration, running_service

pytestmark = WITH_PAGES

NEW_PASSWORD = "another horse battery"
ENDED = (401, "session_ended")
REUSED = (401, "refresh_token_reused")
GRACE = 30

Pair = tuple[str, str]
"""An access and a refresh token."""


@pytest.fixture
async def other(settings: Settings, service: Service, clock: ManualClock) -> AsyncIterator[Service]:
    """Another worker on the same database."""
    async with running_service(settings, clock) as running:
        yield running


def claims(token: str) -> dict[str, Any]:
    said: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return said


def pair_of(answer: httpx2.Response | httpx2.AsyncClient) -> Pair:
    return answer.cookies["access_token"], answer.cookies["refresh_token"]


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def cookies(pair: Pair) -> dict[str, str]:
    return {"Cookie": f"access_token={pair[0]}; refresh_token={pair[1]}"}


async def ask(
    service: Service, method: str, path: str, pair: Pair, *, json: object = None, headers: dict[str, str] | None = None
) -> httpx2.Response:
    """Sends one request as a browser that holds these two cookies."""
    return await service.browser().request(
        method, f"/api/auth/{path}", json=json, headers=cookies(pair) | (headers or {})
    )


async def refresh(service: Service, pair: Pair, **headers: str) -> httpx2.Response:
    return await ask(
        service, "POST", "refresh", pair, headers={name.replace("_", "-"): v for name, v in headers.items()}
    )


async def confirm(service: Service, pair: Pair, password: str = PASSWORD) -> httpx2.Response:
    return await ask(service, "POST", "confirm", pair, json={"password": password})


async def change(service: Service, pair: Pair) -> httpx2.Response:
    body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    return await ask(service, "POST", "password/change", pair, json=body)


def heard(answer: httpx2.Response) -> tuple[int, str | None]:
    return answer.status_code, answer.json().get("code") if answer.content else None


async def assert_dead(service: Service, pair: Pair) -> None:
    """Neither token is worth anything."""
    await service.auth.parts.core.feed.poll()
    seen = await service.browser().get("/api/dashboard", headers=bearer(pair[0]))
    assert heard(seen)[0] == 401, seen.text
    assert (await refresh(service, pair)).status_code == 401


async def row_of(service: Service, pair: Pair) -> Any:  # noqa: ANN401 -- a row
    async with service.auth.parts.tools.database.reading() as connection:
        rows = await connection.execute(sa.select(sessions).where(sessions.c.id == UUID(claims(pair[1])["sid"])))
        return rows.one()


async def events(service: Service, name: str) -> int:
    async with service.auth.parts.tools.database.reading() as connection:
        return await connection.scalar(sa.select(sa.func.count()).where(audit.c.fact == name)) or 0


async def registered(service: Service, email: str = "ada@example.com") -> Pair:
    return pair_of(await service.registered(email))


# --- T1: a proof belongs to the client that gave it -------------------------------------------------------------------


@pytest.mark.parametrize("grace", [0.0, 30.0])
async def test_a_thief_never_gets_the_owners_proof(grace: float, settings: Settings, clock: ManualClock) -> None:
    """T1: what was issued before `/confirm` never leads to the new `auth_time`, with the grace or without it."""
    changes = {"refresh_grace_seconds": grace, "fresh_minutes": 5.0}
    async with running_service(settings.model_copy(update=changes), clock) as service:
        stolen = await registered(service)
        proven_at = claims(stolen[0])["auth_time"]
        clock.advance(minutes=14)
        owner = pair_of(await confirm(service, stolen))
        assert claims(owner[0])["auth_time"] == claims(owner[1])["auth_time"] == int(clock.now().timestamp())
        clock.advance(seconds=1)
        shadow = await refresh(service, stolen)
        if not grace:
            assert heard(shadow) == REUSED
            return
        assert shadow.status_code == 200
        for token in pair_of(shadow):
            assert claims(token)["auth_time"] == proven_at
        assert claims(pair_of(shadow)[1])["gen"] == claims(owner[1])["gen"]
        refused = await ask(service, "DELETE", "sessions", pair_of(shadow))
        assert heard(refused) == (401, "insufficient_user_authentication")
        # However often the thief refreshes what the grace gave them, and whoever rotates: the proof stays the owner's.
        for _ in range(3):
            clock.advance(seconds=1)
            shadow = await refresh(service, pair_of(shadow))
            assert claims(pair_of(shadow)[0])["auth_time"] == proven_at
        assert heard(await ask(service, "DELETE", "sessions", pair_of(shadow)))[0] == 401


async def test_a_proof_goes_on_with_the_tokens_it_was_given_for(service: Service) -> None:
    """T1: refreshed again and again, at every door, the owner's tokens say when and how it was proven."""
    pair = await registered(service)
    service.clock.advance(minutes=14)
    proven_at = int(service.clock.now().timestamp())
    pair = pair_of(await confirm(service, pair))
    for door in ("refresh", "token", "refresh"):
        service.clock.advance(minutes=5)
        if door == "refresh":
            pair = pair_of(await refresh(service, pair))
        else:
            form = {"grant_type": "refresh_token", "refresh_token": pair[1]}
            body = (await service.browser().post("/api/auth/token", data=form)).json()
            pair = (body["access_token"], body["refresh_token"])
        for token in pair:
            assert (claims(token)["auth_time"], claims(token)["amr"]) == (proven_at, ["pwd"])


@ON_SQLITE
async def test_a_refresh_token_of_version_0_1_0_counts_from_the_sign_in(service: Service) -> None:
    """T1: without the claims it goes on working, and stands for the sign-in that its session began with."""
    owner = await registered(service)
    created_at = claims(owner[0])["auth_time"]
    old = Genuine.of(owner[1], service).without("auth_time", "amr")
    service.clock.advance(minutes=14)
    assert (await confirm(service, owner)).status_code == 200
    renewed = await refresh(service, (owner[0], old))
    assert renewed.status_code == 200, renewed.text
    for token in pair_of(renewed):
        assert (claims(token)["auth_time"], claims(token)["amr"]) == (created_at, ["pwd"])


@ON_SQLITE
async def test_half_a_proof_is_no_token_of_ours(service: Service) -> None:
    """T1: a refresh token says both when and how, or is of version 0.1.0 and says neither."""
    pair = await registered(service)
    for missing in ("auth_time", "amr"):
        half = Genuine.of(pair[1], service).without(missing)
        assert heard(await refresh(service, (pair[0], half))) == (401, "invalid_token")


async def test_a_confirmation_merges_proofs(service: Service) -> None:
    """T1, T38: `/confirm` adds `pwd` to what the caller's own tokens say, and takes no method away (SECURITY 17)."""
    pair = await registered(service)
    strong = Genuine.of(pair[0], service).with_claims(amr=["otp"])
    service.clock.advance(minutes=1)
    confirmed = pair_of(await confirm(service, (strong, pair[1])))
    for token in confirmed:
        assert claims(token)["amr"] == ["otp", "pwd"]
    shadow = pair_of(await refresh(service, pair))
    for token in shadow:
        assert claims(token)["amr"] == ["pwd"], "not those that another client gave"
    again = pair_of(await confirm(service, confirmed))
    assert claims(again[0])["amr"] == ["otp", "pwd"]
    listed = (await ask(service, "GET", "sessions", again)).json()
    assert listed[0]["methods"] == ["otp", "pwd"]


SERVED = ("confirm", "refresh")
ORDERS = list(itertools.product(SERVED, SERVED, (None, *SERVED)))
"""Who is served first, whose response arrives last, and which one is lost."""


@on_both_once("transport", ["cookies", "bearer"])
@pytest.mark.parametrize("times", [1, 2], ids=["once", "submitted twice"])
async def test_two_tabs_are_never_signed_out(transport: str, times: int, service: Service) -> None:
    """T1: one tab at `/confirm`, one at `/refresh`, served and answered in every order, one response lost.

    Whatever the client holds then is good for ten minutes and more, as it is for the next refresh.
    """
    for number, (first, last_to_arrive, lost) in enumerate(ORDERS):
        held = pair_of(await service.registered(f"ada{number}@example.com"))
        service.clock.advance(minutes=10)
        order = sorted(SERVED, key=lambda what, first=first: what != first)  # type: ignore[misc]
        answers: dict[str, Pair] = {}
        for what in order:
            for _ in range(times if what == "confirm" else 1):
                answers[what] = await by[transport](service, what, held)
                service.clock.advance(seconds=1)
        arriving = [what for what in order if what not in {lost, last_to_arrive}]
        arriving += [last_to_arrive] if last_to_arrive != lost else []
        browser = answers[arriving[-1]]
        for _ in range(2):
            service.clock.advance(minutes=10)
            renewed = await refresh(service, browser)
            assert renewed.status_code == 200, (first, last_to_arrive, lost, renewed.text)
            browser = pair_of(renewed)
    assert await events(service, "session.refresh_reused") == 0


async def by_cookie(service: Service, what: str, held: Pair) -> Pair:
    """Confirms or refreshes as a browser does."""
    answer = await (confirm(service, held) if what == "confirm" else refresh(service, held))
    assert answer.status_code == 200, answer.text
    return pair_of(answer)


async def by_bearer(service: Service, what: str, held: Pair) -> Pair:
    """Confirms or refreshes as a client does that keeps its tokens itself."""
    if what == "confirm":
        body = {"password": PASSWORD}
        answer = await service.browser().post("/api/auth/confirm", json=body, headers=bearer(held[0]))
    else:
        form = {"grant_type": "refresh_token", "refresh_token": held[1]}
        answer = await service.browser().post("/api/auth/token", data=form)
    assert answer.status_code == 200, answer.text
    return answer.json()["access_token"], answer.json()["refresh_token"]


by = {"cookies": by_cookie, "bearer": by_bearer}


# --- T2: what is shown at /confirm is judged --------------------------------------------------------------------------


@pytest.mark.parametrize("door", ["json", "page"])
async def test_a_reused_token_at_confirm_ends_the_session_and_signs_in(door: str, service: Service) -> None:
    """T2: two generations old, with the right password: theft is recorded, and the password is that of a sign-in."""
    first = await registered(service)
    second = pair_of(await refresh(service, first))
    newest = pair_of(await refresh(service, second))
    shown = (newest[0], first[1])
    if door == "json":
        answer = await confirm(service, shown)
        assert answer.status_code == 200
    else:
        answer = await service.browser().post(
            "/account/confirm",
            data={"confirm_password": PASSWORD},
            headers=cookies(shown) | {"Sec-Fetch-Site": "same-origin"},
        )
        assert answer.status_code == 303, answer.text
    fresh = pair_of(answer)
    assert claims(fresh[0])["sid"] != claims(newest[0])["sid"]
    assert claims(fresh[1])["gen"] == 1
    await assert_dead(service, newest)
    assert (await refresh(service, fresh)).status_code == 200
    assert (await row_of(service, newest)).revoked_reason == "refresh_reused"
    counts = [await events(service, f"session.{name}") for name in ("refresh_reused", "proven", "created")]
    assert counts == [1, 0, 2]


async def test_a_reused_token_at_confirm_with_a_wrong_password_does_nothing(service: Service) -> None:
    """T2: whoever can't prove it learns nothing and ends nothing: at /refresh the same token would."""
    first = await registered(service)
    newest = pair_of(await refresh(service, pair_of(await refresh(service, first))))
    answer = await confirm(service, (newest[0], first[1]), password="not the password")
    assert heard(answer) == (400, "invalid_credentials")
    assert (await refresh(service, newest)).status_code == 200


async def test_a_previous_token_after_the_grace_is_reuse_at_confirm_too(service: Service) -> None:
    """T2: one generation old counts as a repeat within the grace and no longer."""
    first = await registered(service)
    second = pair_of(await refresh(service, first))
    service.clock.advance(seconds=GRACE)
    repeated = await confirm(service, first)
    assert claims(pair_of(repeated)[0])["sid"] == claims(first[0])["sid"]
    assert claims(pair_of(repeated)[1])["gen"] == claims(second[1])["gen"]
    service.clock.advance(seconds=1)
    late = await confirm(service, first)
    assert claims(pair_of(late)[0])["sid"] != claims(first[0])["sid"]
    assert await events(service, "session.refresh_reused") == 1


async def test_a_new_sign_in_at_confirm_counts_as_one(settings: Settings, clock: ManualClock) -> None:
    """T2: it goes through the same door as `/login`: the limit of sessions ends the oldest."""
    async with running_service(settings.model_copy(update={"sessions_per_user": 2}), clock) as service:
        oldest = await registered(service)
        clock.advance(seconds=1)
        first = pair_of(await service.browser().post("/api/auth/login", json=credentials()))
        newest = pair_of(await refresh(service, pair_of(await refresh(service, first))))
        clock.advance(seconds=1)
        third = pair_of(await service.browser().post("/api/auth/login", json=credentials()))
        await assert_dead(service, oldest)
        assert (await confirm(service, (newest[0], first[1]))).status_code == 200
        assert (await refresh(service, third)).status_code == 200, "the stolen one made room"


async def test_a_disabled_user_confirms_nothing(service: Service, other: Service) -> None:
    """T2: a worker that has not heard yet refuses as `/login` does."""
    first = await registered(service)
    newest = pair_of(await refresh(service, pair_of(await refresh(service, first))))
    await other.auth.parts.core.feed.poll()
    user_id = UUID(claims(first[0])["sub"])
    await service.auth.users.disable(user_id)
    assert (await confirm(other, (newest[0], first[1]))).status_code in {400, 401}
    assert await events(service, "session.created") == 1


@ON_SQLITE
async def test_another_sessions_cookie_is_not_judged(service: Service) -> None:
    """T2: by its header the caller is one session; the refresh cookie of another one is neither used up nor reused."""
    ada = await registered(service)
    elsewhere = pair_of(await service.browser().post("/api/auth/login", json=credentials()))
    answer = await service.browser().post(
        "/api/auth/confirm", json={"password": PASSWORD}, headers=bearer(ada[0]) | cookies(elsewhere)
    )
    assert answer.status_code == 200
    assert claims(answer.json()["access_token"])["sid"] == claims(ada[0])["sid"]
    assert "set-cookie" not in answer.headers
    assert (await refresh(service, elsewhere)).status_code == 200


@ON_SQLITE
async def test_a_cookie_of_the_callers_session_is_replaced_with_its_header(service: Service) -> None:
    """T2: a front end that sends its access token in a header as well keeps cookies that must not be left behind."""
    ada = await registered(service)
    service.clock.advance(minutes=1)
    answer = await ask(service, "POST", "confirm", ada, json={"password": PASSWORD}, headers=bearer(ada[0]))
    assert (answer.json()["access_token"], answer.json()["refresh_token"]) == pair_of(answer)
    service.clock.advance(minutes=1)
    assert (await refresh(service, pair_of(answer))).status_code == 200


# --- T3: a changed password replaces every session --------------------------------------------------------------------


@pytest.mark.parametrize("door", ["json", "page"])
async def test_a_thief_who_shares_the_session_is_out_after_a_password_change(
    door: str, service: Service, other: Service
) -> None:
    """T3: no token of before is taken anywhere, the owner goes on with new ones, and the event names both sessions."""
    changed: list[PasswordChanged] = []

    @service.auth.after(PasswordChanged)
    async def hear(event: PasswordChanged) -> None:
        changed.append(event)

    stolen = await registered(service)
    service.clock.advance(minutes=5)
    if door == "json":
        answer = await change(service, stolen)
        assert (answer.status_code, answer.content) == (204, b"")
    else:
        answer = await service.browser().post(
            "/account/password",
            data={"current_password": PASSWORD, "new_password": NEW_PASSWORD},
            headers=cookies(stolen) | {"Sec-Fetch-Site": "same-origin"},
        )
        assert (answer.status_code, answer.headers["location"]) == (303, "/account/password?done=changed")
    owner = pair_of(answer)
    for worker in (service, other):
        await assert_dead(worker, stolen)
    old, new = (claims(pair[0]) for pair in (stolen, owner))
    assert new["sid"] != old["sid"]
    assert (new["auth_time"], new["amr"]) == (old["auth_time"], old["amr"]), "a new password is no new proof"
    assert claims(owner[1])["auth_time"] == old["auth_time"]
    assert (await row_of(service, owner)).ends_at == (await row_of(service, stolen)).ends_at
    await service.auth.drained()
    assert [(str(event.replaced_session_id), str(event.session_id)) for event in changed] == [(old["sid"], new["sid"])]
    service.clock.advance(minutes=5)
    assert (await refresh(service, owner)).status_code == 200
    assert len((await ask(service, "GET", "sessions", owner)).json()) == 1


@ON_SQLITE
async def test_a_bearer_client_that_changes_the_password_gets_the_next_pair(service: Service) -> None:
    """T3: 200 with the body of `/token`, and no cookie."""
    stolen = await registered(service)
    body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    answer = await service.browser().post("/api/auth/password/change", json=body, headers=bearer(stolen[0]))
    assert answer.status_code == 200
    assert answer.json().keys() == {"access_token", "token_type", "expires_in", "refresh_token"}
    assert "set-cookie" not in answer.headers
    await assert_dead(service, stolen)
    form = {"grant_type": "refresh_token", "refresh_token": answer.json()["refresh_token"]}
    assert (await service.browser().post("/api/auth/token", data=form)).status_code == 200


async def test_a_new_session_does_not_outlive_the_one_it_replaces(settings: Settings, clock: ManualClock) -> None:
    """T3: changing the password every month does not make a session eternal."""
    short = settings.model_copy(update={"session_max_days": 1 / 24, "refresh_token_expire_minutes": 60.0})
    async with running_service(short, clock) as service:
        pair = await registered(service)
        clock.advance(minutes=14)
        owner = pair_of(await change(service, pair))
        assert claims(owner[1])["exp"] == claims(pair[1])["exp"]
        clock.advance(minutes=46)
        assert (await refresh(service, owner)).status_code == 401


async def test_a_subscriber_to_sign_ins_can_not_undo_a_password_change(service: Service) -> None:
    """T3: nobody signed in, so nobody's code takes part in what shuts a thief out (decision 16)."""
    stolen = await registered(service)

    @service.auth.inside(SessionCreated)
    async def fail(event: SessionCreated, connection: object) -> None:
        raise RuntimeError("the application is broken")

    assert (await change(service, stolen)).status_code == 204
    await assert_dead(service, stolen)


async def test_a_refresh_at_the_instant_of_a_password_change_is_worth_nothing(service: Service, other: Service) -> None:
    """T3: whichever commits first, what the thief was answered is dead."""
    for turn in range(6):
        email = f"ada{turn}@example.com"
        stolen = pair_of(await service.browser().post("/api/auth/register", json=registration(email)))
        changing, stealing = await asyncio.gather(change(service, stolen), refresh(other, stolen))
        assert changing.status_code == 204
        await assert_dead(service, stolen)
        if stealing.is_success:
            await assert_dead(service, pair_of(stealing))
        assert (await refresh(other, pair_of(changing))).status_code == 200


# --- T4: repeats within the grace -------------------------------------------------------------------------------------


async def test_each_repeat_is_counted(service: Service) -> None:
    """T4: in the session's row, whoever asks."""
    first = await registered(service)
    for _ in range(4):
        assert (await refresh(service, first)).status_code == 200
    row = await row_of(service, first)
    assert (row.repeats, row.repeated_elsewhere_at) == (3, None)
    assert await events(service, "session.refresh_repeated_elsewhere") == 0


async def test_a_repeat_from_elsewhere_is_recorded_and_shown(service: Service) -> None:
    """T4: a thief who shadows the owner within the grace, generation after generation, is on record each time."""
    told: list[RefreshRepeatedElsewhere] = []

    @service.auth.after(RefreshRepeatedElsewhere)
    async def hear(event: RefreshRepeatedElsewhere) -> None:
        told.append(event)

    stolen = await registered(service)
    owner, thief = stolen, stolen
    for _ in range(10):
        service.clock.advance(seconds=20)
        owner = pair_of(await refresh(service, owner, User_Agent="Firefox"))
        thief = pair_of(await refresh(service, thief, User_Agent="curl"))
    assert claims(owner[1])["jti"] == claims(thief[1])["jti"], "the grace gives a thief what it gives a second tab"
    await service.auth.drained()
    assert {str(event.session_id) for event in told} == {claims(owner[1])["sid"]}
    assert [event.source.user_agent for event in told] == ["curl"] * 10
    row = await row_of(service, owner)
    assert (row.repeats, row.repeated_elsewhere_at) == (10, service.clock.now())
    listed = (await ask(service, "GET", "sessions", owner)).json()
    assert listed[0]["repeated_elsewhere_at"] == service.clock.now().isoformat().replace("+00:00", "Z")
    page = await service.browser().get("/account/sessions", headers=cookies(owner))
    assert "another network or browser" in page.text


@ON_SQLITE
async def test_another_network_is_elsewhere(database_url: str, clock: ManualClock) -> None:
    """T4: an IPv4 /24 is one network; the hint is not shown where nothing happened."""
    settings = cheap_settings(database_url, trusted_proxies="127.0.0.1")
    async with running_service(settings, clock) as service:
        first = await registered(service)
        assert "another network" not in (await service.browser().get("/account/sessions", headers=cookies(first))).text
        assert (await refresh(service, first, X_Forwarded_For="203.0.113.7")).status_code == 200
        assert (await refresh(service, first, X_Forwarded_For="203.0.113.99")).status_code == 200
        assert await events(service, "session.refresh_repeated_elsewhere") == 0
        assert (await refresh(service, first, X_Forwarded_For="198.51.100.7")).status_code == 200
        assert await events(service, "session.refresh_repeated_elsewhere") == 1


async def test_a_setting_ends_the_session_instead(settings: Settings, clock: ManualClock) -> None:
    """T4: `LATCHSTRING_REFRESH_REPEATED_ELSEWHERE=end`; a repeat from the same browser goes on being answered."""
    strict = settings.model_copy(update={"refresh_repeated_elsewhere": "end"})
    async with running_service(strict, clock) as service:
        stolen = await registered(service)
        owner = pair_of(await refresh(service, stolen, User_Agent="Firefox"))
        assert (await refresh(service, stolen, User_Agent="Firefox")).status_code == 200
        assert heard(await refresh(service, stolen, User_Agent="curl")) == REUSED
        await assert_dead(service, owner)
        assert (await row_of(service, owner)).revoked_reason == "refresh_repeated_elsewhere"
        names = ("refresh_repeated_elsewhere", "ended", "refresh_reused")
        assert [await events(service, f"session.{name}") for name in names] == [1, 1, 0]


async def test_a_repeat_at_confirm_is_counted_too(service: Service) -> None:
    """T4: `/confirm` answers the previous generation as a refresh does."""
    first = await registered(service)
    await refresh(service, first, User_Agent="Firefox")
    answer = await ask(service, "POST", "confirm", first, json={"password": PASSWORD}, headers={"User-Agent": "Chrome"})
    assert answer.status_code == 200
    row = await row_of(service, first)
    assert (row.repeats, row.repeated_elsewhere_at) == (1, service.clock.now())


# --- T5, T16: clocks --------------------------------------------------------------------------------------------------


@ON_SQLITE
@pytest.mark.parametrize("door", ["/api/auth/logout", "/sign-out"])
async def test_a_sign_out_ends_the_session_whatever_the_clocks_say(
    door: str, settings: Settings, service: Service
) -> None:
    """T5: a token that an instance ahead or behind has issued; the answer is not 200 with a session that lives on."""
    for minutes in (0.2, 10, 24 * 60, -10, -24 * 60):
        far = ManualClock()
        far.advance(minutes=minutes)
        async with running_service(settings, far) as elsewhere:
            for kind, name in enumerate(("access_token", "refresh_token")):
                pair = pair_of(await elsewhere.somebody())
                answer = await service.browser().post(
                    door, headers={"Cookie": f"{name}={pair[kind]}", "Sec-Fetch-Site": "same-origin"}
                )
                assert answer.status_code in {200, 303}
                row = await row_of(service, pair)
                assert (row.revoked_reason, row.revoked_at) == ("logout", service.clock.now()), (minutes, name)
                await assert_dead(elsewhere, pair)


@ON_SQLITE
@pytest.mark.parametrize("body", [b"", b"{}", b"without_script=yes", b"\xff%zz=" * 10])
async def test_a_sign_out_on_the_page_reads_its_form_last(body: bytes, service: Service) -> None:
    """T5: whatever is sent along, the session ends; a browser without JavaScript is asked to forget its pages."""
    pair = await registered(service)
    headers = cookies(pair) | {"Sec-Fetch-Site": "same-origin", "Content-Type": "application/x-www-form-urlencoded"}
    answer = await service.browser().post("/sign-out", content=body, headers=headers)
    assert answer.status_code == 303
    assert ("clear-site-data" in answer.headers) is body.startswith(b"without")
    await assert_dead(service, pair)


@ON_SQLITE
async def test_a_forged_token_signs_nobody_out(service: Service) -> None:
    """T5: signature, kind, issuer and audience still count."""
    pair = await registered(service)
    genuine = Genuine.of(pair[0], service)
    for forged in (
        pair[0][:-4] + "AAAA",
        genuine.with_claims(iss="https://elsewhere.example"),
        genuine.with_claims(aud="https://elsewhere.example"),
        genuine.with_claims(type="refresh"),
        genuine.with_header(typ="rt+jwt"),
    ):
        answer = await service.browser().post("/api/auth/logout", headers=bearer(forged))
        assert answer.status_code == 200
    assert (await refresh(service, pair)).status_code == 200


async def test_a_clock_that_is_ahead_does_not_lengthen_the_grace_elsewhere(
    settings: Settings, service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    """T16: rotated in this instance's future: 401, the session lives, and a warning names the clocks."""
    fast = ManualClock()
    fast.advance(minutes=10)
    first = await registered(service)
    async with running_service(settings, fast) as ahead:
        assert (await refresh(ahead, first)).status_code == 200
        with caplog.at_level(logging.WARNING, logger="latchstring"):
            answer = await refresh(service, first)
        assert heard(answer) == (401, "invalid_token")
        assert any("clock" in record.getMessage() for record in caplog.records)
        assert (await row_of(service, first)).revoked_at is None
        confirmed = await confirm(service, first)
        assert heard(confirmed) == (401, "invalid_token")
        service.clock.advance(minutes=10)
        assert (await refresh(service, first)).status_code == 200, "inside the grace again"


# --- T23: signing in again --------------------------------------------------------------------------------------------


async def send_sign_in(
    service: Service, door: str, email: str, password: str, headers: dict[str, str]
) -> httpx2.Response:
    """Signs in, or up, at one of the doors that set cookies."""
    browser = service.browser(headers=headers | {"Sec-Fetch-Site": "same-origin"})
    match door:
        case "login":
            return await browser.post("/api/auth/login", json=credentials(email, password))
        case "register":
            return await browser.post(
                "/api/auth/register", json=registration(email, password=password, passwordConfirm=password)
            )
        case "sign-in":
            return await browser.post("/sign-in", data={"email": email, "password": password})
        case _:
            names = {"first_name": "Ada", "last_name": "Lovelace"}
            return await browser.post("/sign-up", data={"email": email, "password": password, **names})


DOORS = ("login", "register", "sign-in", "sign-up")
NEW = ("register", "sign-up")


@on_both_once("door", [*DOORS])
async def test_a_sign_in_ends_the_browsers_former_session(door: str, service: Service) -> None:
    """T23: of the genuine tokens in its cookies, whoever's they are (ASVS 5.0, 7.2.4)."""
    await registered(service)
    for number, names in enumerate((("access_token", "refresh_token"), ("access_token",), ("refresh_token",))):
        for former_email in (f"eve{number}@example.com", "ada@example.com"):
            if door in NEW and former_email == "ada@example.com":
                continue
            former = pair_of(
                await service.browser().post("/api/auth/login", json=credentials())
                if former_email == "ada@example.com"
                else await service.registered(former_email)
            )
            shown = dict(zip(("access_token", "refresh_token"), former, strict=True))
            headers = {"Cookie": "; ".join(f"{name}={shown[name]}" for name in names)}
            email = f"new{number}@example.com" if door in NEW else "ada@example.com"
            answer = await send_sign_in(service, door, email, PASSWORD, headers)
            assert answer.status_code in {200, 201, 303}, answer.text
            await assert_dead(service, former)
            assert (await row_of(service, former)).revoked_reason == "signed_in_again"
            assert (await refresh(service, pair_of(answer))).status_code == 200


@ON_SQLITE
@pytest.mark.parametrize("door", DOORS)
async def test_a_sign_in_that_fails_ends_nothing(door: str, service: Service) -> None:
    """T23: the former session ends once the new one is there, and not before."""
    former = await registered(service)
    password = "not the password" if door not in NEW else PASSWORD
    answer = await send_sign_in(service, door, "ada@example.com", password, cookies(former))
    assert answer.status_code in {400, 409, 422}
    assert (await refresh(service, former)).status_code == 200


@ON_SQLITE
async def test_a_header_and_the_token_endpoint_end_nothing(service: Service) -> None:
    """T23: gateways, and applications with several accounts, hold other sessions on purpose."""
    former = await registered(service)
    login = await service.browser().post("/api/auth/login", json=credentials(), headers=bearer(former[0]))
    form = {"grant_type": "password", "username": "ada@example.com", "password": PASSWORD}
    token = await service.browser().post("/api/auth/token", data=form, headers=cookies(former))
    assert (login.status_code, token.status_code) == (200, 200)
    assert (await refresh(service, former)).status_code == 200
    assert await events(service, "session.ended") == 0


@ON_SQLITE
async def test_an_expired_cookie_names_its_session_too(settings: Settings, clock: ManualClock) -> None:
    """T23: by its access token alone, which is over, the session could be refreshed for long."""
    async with running_service(settings, clock) as service:
        former = await registered(service)
        clock.advance(minutes=16)
        answer = await send_sign_in(service, "login", "ada@example.com", PASSWORD, cookies(former))
        assert answer.status_code == 200
        assert (await row_of(service, former)).revoked_reason == "signed_in_again"
