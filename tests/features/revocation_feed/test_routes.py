"""The revocation feed over HTTP: for whoever shows a feed token, page by page, and never from a cursor made up."""

import re
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import httpx2
import pytest
import sqlalchemy as sa

from latchstring.core.revocations import feed
from latchstring.features.revocation_feed.actions import PREFIX, FeedTokens
from latchstring.features.revocation_feed.tables import feed_tokens
from latchstring.foundation.audit import audit
from latchstring.foundation.events import OPERATOR
from tests.support.backends import ON_SQLITE
from tests.support.service import Service

FEED = "/api/auth/revocations"


@pytest.fixture
async def follower(service: Service) -> AsyncIterator[httpx2.AsyncClient]:
    token = await tokens_of(service).create("orders", source=OPERATOR)
    async with service.browser(headers={"Authorization": f"Bearer {token}"}) as client:
        yield client


def tokens_of(service: Service) -> FeedTokens:
    return FeedTokens(service.auth.parts.tools.database, service.clock)


async def read(follower: httpx2.AsyncClient, after: str | None = None) -> dict[str, Any]:
    answer = await follower.get(FEED, params={} if after is None else {"after": after})
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    page: dict[str, Any] = answer.json()
    assert page.keys() == {"cursor", "resync", "more", "entries", "retired_keys"}
    return page


async def test_a_follower_hears_of_every_end(service: Service, follower: httpx2.AsyncClient) -> None:
    """First everything, then only what is new; a session's, a user's and everyone's entries say whom they mean."""
    start = await read(follower)
    assert (start["resync"], start["more"], start["entries"], start["retired_keys"]) == (True, False, [], [])
    ada, bob = await service.registered(), await service.registered("bob@example.com")
    (ada_session,) = (await ada.get("/api/auth/sessions")).json()
    bob_id = (await bob.get("/api/auth/me")).json()["id"]
    await ada.post("/api/auth/logout")
    page = await read(follower, start["cursor"])
    assert page["resync"] is False
    (entry,) = page["entries"]
    assert (entry["kind"], entry["session_id"], entry["reason"]) == ("session", ada_session["id"], "logout")
    assert entry["expires_at"].endswith("Z")
    await service.auth.users.disable(UUID(bob_id), source=OPERATOR)
    await service.auth.sessions.revoke_everyone(source=OPERATOR)
    page = await read(follower, page["cursor"])
    told = [(e["kind"], e["user_id"], e["below_version"], e["reason"]) for e in page["entries"][-2:]]
    epoch = int(service.clock.now().timestamp())
    assert told == [("user", bob_id, 2, "user_disabled"), ("everyone", None, epoch, "operator")]
    everything = await read(follower)
    assert everything["resync"]
    assert [e["kind"] for e in everything["entries"]] == ["session", "user", "everyone"]
    assert (await read(follower, everything["cursor"]))["entries"] in ([], everything["entries"][-1:])


async def test_many_entries_come_in_pages(
    service: Service, follower: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page holds so many; `more` says to go on at once, and what ends meanwhile is not missed."""
    monkeypatch.setattr(feed, "PAGE_SIZE", 2)
    standing = (await read(follower))["cursor"]
    ended = []
    for number in range(5):
        browser = await service.registered(f"{number}@example.com")
        ((session),) = (await browser.get("/api/auth/sessions")).json()
        ended.append(session["id"])
        await browser.post("/api/auth/logout")
    late = await service.registered("late@example.com")
    ((session),) = (await late.get("/api/auth/sessions")).json()

    page = await read(follower, standing)
    assert (page["resync"], page["more"]) == (True, True), "too much is new: everything is told, in pages"
    heard = [e["session_id"] for e in page["entries"]]
    await late.post("/api/auth/logout")
    while page["more"]:
        page = await read(follower, page["cursor"])
        assert page["resync"] is False
        assert len(page["entries"]) <= 2
        heard += [e["session_id"] for e in page["entries"]]
    page = await read(follower, page["cursor"])
    heard += [e["session_id"] for e in page["entries"]]
    assert heard[: len(ended)] == ended
    assert session["id"] in heard


async def test_a_cursor_of_another_database_begins_anew(service: Service, follower: httpx2.AsyncClient) -> None:
    """Ahead of all that is here, as after a restore from an older copy: everything is told, instead of nothing."""
    browser = await service.registered()
    await browser.post("/api/auth/logout")
    page = await read(follower, "9" * 18)
    assert page["resync"]
    assert len(page["entries"]) == 1


@ON_SQLITE
@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "-1",
        "1-",
        "1-2-3",
        "1.",
        ".5",
        "1..5",
        "9" + ".1" * 101,
        "1.5-",
        "1 OR 1=1",
        "1;DROP TABLE latchstring_users",
        "9" * 19,
        "\u0661",
        "1\n",
    ],
)
async def test_cve_2026_33503_a_forged_cursor_is_refused(follower: httpx2.AsyncClient, cursor: str) -> None:
    """CVE-2026-33503, -33504, -33505: a cursor is a number, or two; all else is 422 before a database sees it."""
    answer = await follower.get(FEED, params={"after": cursor})
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")
    assert "DROP" not in answer.text


async def test_nobody_else_may_follow(service: Service, follower: httpx2.AsyncClient) -> None:
    """Neither a visitor, nor a user, nor a service whose token was revoked or cut short; refused alike."""
    token = follower.headers["Authorization"].removeprefix("Bearer ")
    user = await service.registered()

    async def refused(headers: dict[str, str]) -> tuple[int, str, str]:
        answer = await service.browser(headers=headers).get(FEED)
        return answer.status_code, answer.json()["code"], answer.headers["www-authenticate"]

    unknown = (401, "feed_token_required", 'Bearer error="invalid_token"')
    assert await refused({}) == (401, "feed_token_required", "Bearer")
    assert (await user.get(FEED)).json()["code"] == "feed_token_required"
    for wrong in (user.cookies["access_token"], token[:-1], token + "A", token.swapcase(), PREFIX, "A"):
        assert await refused({"Authorization": f"Bearer {wrong}"}) == unknown
    assert (await service.browser(headers={"Authorization": "Bearer"}).get(FEED)).status_code == 403
    assert (await follower.get(FEED)).status_code == 200
    assert await tokens_of(service).revoke("orders", source=OPERATOR)
    assert await refused({"Authorization": f"Bearer {token}"}) == unknown
    assert not await tokens_of(service).revoke("orders", source=OPERATOR)


async def test_feed_tokens_are_kept_as_hashes(service: Service, follower: httpx2.AsyncClient) -> None:
    """Whoever reads the database reads no token; a name is taken once; making and revoking are on record."""
    token = follower.headers["Authorization"].removeprefix("Bearer ")
    assert re.fullmatch(PREFIX + r"[\w-]{43}", token)
    tokens = tokens_of(service)
    assert await tokens.create("orders", source=OPERATOR) is None
    service.clock.advance(seconds=1)
    assert await tokens.create("billing", source=OPERATOR) not in (None, token)
    assert [each.name for each in await tokens.tokens()] == ["orders", "billing"]
    await tokens.revoke("billing", source=OPERATOR)
    async with service.auth.parts.tools.database.reading() as connection:
        (row,) = (await connection.execute(sa.select(feed_tokens))).all()
        events = (await connection.scalars(sa.select(audit.c.fact).where(audit.c.fact.startswith("feed")))).all()
    assert token not in repr(row)
    assert token.encode() not in row.token_hash
    assert sorted(events) == ["feed_token.created", "feed_token.created", "feed_token.revoked"]


async def test_keys_that_were_retired_at_once_are_told(service: Service, follower: httpx2.AsyncClient) -> None:
    """By name, in every page from then on; a calm rotation tells none."""
    await service.auth.parts.keys.rotate(source=OPERATOR)
    await service.auth.parts.core.feed.poll()
    page = await read(follower)
    assert page["retired_keys"] == []
    kid = service.auth.parts.ring.current.signing.kid
    await service.auth.sessions.retire_key_at_once(kid, source=OPERATOR)
    await service.auth.parts.core.feed.poll()
    page = await read(follower, page["cursor"])
    assert kid in page["retired_keys"]
    assert [e["kind"] for e in page["entries"]][-1:] == ["everyone"]


async def test_a_worker_that_does_not_know_says_so(service: Service, follower: httpx2.AsyncClient) -> None:
    """A worker that could not follow the database itself answers 503, and passes nothing stale on."""
    service.clock.suspend(seconds=6)
    answer = await follower.get(FEED)
    assert (answer.status_code, answer.json()["code"]) == (503, "revocations_unknown")
