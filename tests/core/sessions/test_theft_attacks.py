"""Attacks on the promises about stolen tokens that are none of the obvious ones (T1, T2, T4, T16)."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from uuid import UUID

import pytest
import sqlalchemy as sa

from latchstring import SessionCreated, Settings
from latchstring.core.sessions.tables import sessions
from latchstring.errors import SubscriberError
from latchstring.foundation.limits import Rate
from latchstring.testing import ManualClock
from tests.core.sessions.test_theft import (
    assert_dead,
    bearer,
    claims,
    confirm,
    cookies,
    events,
    heard,
    pair_of,
    refresh,
    registered,
    row_of,
)
from tests.support.backends import WITH_PAGES
from tests.support.service import PASSWORD, Service, credentials, running_service

pytestmark = WITH_PAGES


@pytest.fixture
async def other(settings: Settings, service: Service, clock: ManualClock) -> AsyncIterator[Service]:
    """Another worker on the same database."""
    async with running_service(settings, clock) as running:
        yield running


async def test_a_subscriber_to_sign_ins_can_not_undo_the_end_of_a_stolen_session(service: Service) -> None:
    """T2: `/confirm` with a reused token ends the session, even where the sign-in that follows fails (decision 16)."""
    stolen = await registered(service)
    thief = pair_of(await refresh(service, pair_of(await refresh(service, stolen))))

    @service.auth.inside(SessionCreated)
    async def fail(event: SessionCreated, connection: object) -> None:
        raise RuntimeError("the application is broken")

    with contextlib.suppress(SubscriberError):
        await confirm(service, stolen)
    assert await events(service, "session.refresh_reused") == 1
    await assert_dead(service, thief)


async def test_a_bearer_client_gets_no_generation_of_the_future(settings: Settings, service: Service) -> None:
    """T16: `/confirm` by an access token alone is refused as well where an instance that is ahead has rotated."""
    fast = ManualClock()
    fast.advance(minutes=10)
    first = await registered(service)
    async with running_service(settings, fast) as ahead:
        assert (await refresh(ahead, first)).status_code == 200
    body = {"password": PASSWORD}
    answer = await service.browser().post("/api/auth/confirm", json=body, headers=bearer(first[0]))
    assert heard(answer) == (401, "invalid_token")
    assert (await row_of(service, first)).revoked_at is None


@pytest.mark.parametrize("backend", ["postgresql"])
@pytest.mark.parametrize("door", ["refresh", "confirm"])
async def test_a_repeat_at_the_instant_of_a_sign_out_has_ended(door: str, service: Service, other: Service) -> None:
    """T4: a session that ends between the judgement of a repeat and its counting is no client that asks too often."""
    first = await registered(service)
    second = pair_of(await refresh(service, first))
    ending = sessions.update().where(sessions.c.id == UUID(claims(second[1])["sid"]))
    async with service.auth.parts.tools.database.transaction() as connection:
        await connection.execute(ending.values(revoked_at=service.clock.now(), revoked_reason="logout"))
        asked = asyncio.create_task(refresh(other, first) if door == "refresh" else confirm(other, first))
        await until_somebody_waits(service)
    assert heard(await asked) == (401, "session_ended")


async def until_somebody_waits(service: Service) -> None:
    """Waits until a statement waits for the lock of another transaction of this database."""
    waiting = sa.text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    async with asyncio.timeout(30):
        while True:
            async with service.auth.parts.tools.database.reading() as connection:
                if await connection.scalar(waiting):
                    return
            await asyncio.sleep(0.01)


async def test_used_up_refreshes_bar_no_confirmation(settings: Settings, clock: ManualClock) -> None:
    """T2, T4: the limit of refreshes is not one of confirmations; a thief's repeats must not keep the owner from one.

    The current generation is confirmed whatever the limit says, and so must the previous one be within the grace.
    """
    limited = settings.model_copy(update={"limits": True, "limit_refresh": Rate(3, 60)})
    async with running_service(limited, clock) as service:
        first = await registered(service)
        for expected in (200, 200, 200, 429):
            second = await refresh(service, first)
            assert second.status_code == expected
        assert (await confirm(service, first)).status_code == 200


async def test_a_repeat_from_elsewhere_at_confirm_can_end_the_session(settings: Settings, clock: ManualClock) -> None:
    """T4: `refresh_repeated_elsewhere=end` holds at `/confirm`: the thief is out, and the owner has a new session."""
    strict = settings.model_copy(update={"refresh_repeated_elsewhere": "end"})
    async with running_service(strict, clock) as service:
        stolen = await registered(service)
        thief = pair_of(await refresh(service, stolen, User_Agent="curl"))
        answer = await confirm(service, stolen)
        assert answer.status_code == 200
        assert claims(pair_of(answer)[0])["sid"] != claims(stolen[0])["sid"]
        await assert_dead(service, thief)
        assert await events(service, "session.refresh_repeated_elsewhere") == 1


async def test_a_form_that_waits_for_a_proof_is_sent_by_the_new_session(settings: Settings, clock: ManualClock) -> None:
    """T2: with a reused token the proof signs in anew, and the form that waited for it is that session's."""
    async with running_service(settings.model_copy(update={"fresh_minutes": 1.0}), clock) as service:
        stolen = await registered(service)
        third = pair_of(await service.browser().post("/api/auth/login", json=credentials()))
        thief = pair_of(await refresh(service, pair_of(await refresh(service, stolen))))
        clock.advance(minutes=3)
        answer = await service.browser().post(
            "/account/sessions/end-others",
            data={"confirm_password": PASSWORD},
            headers=cookies(stolen) | {"Sec-Fetch-Site": "same-origin"},
        )
        assert (answer.status_code, answer.headers["location"]) == (303, "/account/sessions?done=others")
        for pair in (thief, third):
            await assert_dead(service, pair)
        assert claims(pair_of(answer)[0])["sid"] != claims(stolen[0])["sid"]
        assert (await refresh(service, pair_of(answer))).status_code == 200
