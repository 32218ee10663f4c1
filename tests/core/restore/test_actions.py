"""After a restore: what ended after the copy was taken lives again, until `Auth.restored` ends everything of before.

The copy is put back while both workers run. Their memory is of a time that the database does not know any more.
"""

import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import jwt
import pytest
import sqlalchemy as sa
from fastapi import APIRouter

from latchstring import OPERATOR, Auth, ConfigurationError, Core, FeatureParts, Settings, Source, Tools
from latchstring.core.keys.rotation import KeyChange
from latchstring.core.restore.actions import Restored
from latchstring.core.restore.stored import StoredData
from latchstring.core.revocations.store import epoch
from latchstring.foundation.audit import audit
from latchstring.foundation.database import Connection
from latchstring.testing import ManualClock
from tests.support.backends import ON_SQLITE
from tests.support.backups import backup_of, put_back
from tests.support.forge import Genuine, new_key, private_pem
from tests.support.service import (
    Service,
    cheap_settings,
    credentials,
    quiet_service,
    registration,
    running_service,
)

Browser = httpx2.AsyncClient


@pytest.fixture
async def other(service: Service, clock: ManualClock) -> AsyncIterator[Service]:
    """A worker that polls only when it is told."""
    async with quiet_service(service.settings, clock) as running:
        yield running


async def signed_in(service: Service, email: str = "ada@example.com") -> Browser:
    browser = service.browser()
    answer = await browser.post("/api/auth/login", json=credentials(email))
    assert answer.status_code == 200, answer.text
    return browser


def said(browser: Browser) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(browser.cookies["access_token"], options={"verify_signature": False})
    return claims


async def sees(worker: Service, browser: Browser) -> tuple[int, int]:
    """Returns the statuses of a guarded route and of a refresh, with a browser's tokens, at another worker."""
    statuses = []
    for method, path, token in (("GET", "/api/dashboard", "access"), ("POST", "/api/auth/refresh", "refresh")):
        headers = {"Authorization": f"Bearer {browser.cookies[f'{token}_token']}"}
        statuses.append((await worker.browser(headers=headers).request(method, path)).status_code)
    return statuses[0], statuses[1]


async def restored(service: Service, *workers: Service) -> Restored:
    """Runs the step, and lets the workers poll once."""
    result = await service.auth.restored(source=OPERATOR)
    for worker in workers:
        await worker.auth.parts.core.feed.poll()
    return result


@dataclass(frozen=True)
class Story:
    """What happened before and after a copy was taken."""

    copy: Path
    signed_out: Browser
    """Its session was in the copy, and ended after it."""
    disabled: Browser
    """Its user was disabled after the copy."""
    later: Browser
    """Its session is not in the copy."""
    newcomer: Browser
    """Its user is not in the copy."""

    @property
    def browsers(self) -> tuple[Browser, ...]:
        return self.signed_out, self.disabled, self.later, self.newcomer


async def lived(service: Service, url: str, folder: Path) -> Story:
    """Takes a copy, and lets things happen after it."""
    ada = await service.registered()
    bob = await service.registered("bob@example.com")
    copy = backup_of(url, folder)
    kept = service.browser()
    kept.cookies = httpx2.Cookies(ada.cookies)
    assert (await ada.post("/api/auth/logout")).status_code == 200
    later, eve = await signed_in(service), await service.registered("eve@example.com")
    await service.auth.users.disable(UUID(said(bob)["sub"]), source=OPERATOR)
    return Story(copy=copy, signed_out=kept, disabled=bob, later=later, newcomer=eve)


async def test_nothing_of_before_is_let_in(
    service: Service, other: Service, database_url: str, tmp_path: Path, clock: ManualClock
) -> None:
    """By access and refresh tokens, at workers that ran on and one that starts; everyone signs in. Twice in a row."""
    story = await lived(service, database_url, tmp_path)
    await other.auth.parts.core.feed.poll()
    epochs = []
    for _ in range(2):
        put_back(database_url, story.copy)
        async with quiet_service(service.settings, clock) as started:
            # What the step is for: who had signed out is let in, and who is not in the database.
            for browser in (story.signed_out, story.newcomer):
                assert (await sees(started, browser))[0] == 200
            for _ in range(2):
                epochs.append((await restored(service, service, other, started)).epoch)
                for worker in (service, other, started):
                    for browser in story.browsers:
                        assert await sees(worker, browser) == (401, 401)
                # Bob, too, whom the workers that ran on know as disabled: he is enabled in the copy.
                anew = [await signed_in(service, email) for email in ("ada@example.com", "bob@example.com")]
                for browser in anew:
                    assert said(browser)["epoch"] == epochs[-1]
                    assert [await sees(worker, browser) for worker in (service, other, started)] == [(200, 200)] * 3
                story = replace(story, later=anew[0])
        # The copy knows nothing of the first epochs: the clock alone makes the next ones higher.
        clock.advance(seconds=2)
    assert epochs == sorted(set(epochs))
    assert epochs[-2] == int(clock.now().timestamp()) - 2 + 3600


async def test_what_is_recorded(service: Service, database_url: str, tmp_path: Path) -> None:
    """Why everyone was signed out, and which keys ended and began."""
    assert database_url
    before = service.auth.parts.ring.current.signing.kid
    result = await restored(service, service)
    assert (result.ended_keys, result.new_key) == ((before,), service.auth.parts.ring.current.signing.kid)
    async with service.auth.parts.tools.database.reading() as connection:
        found = await connection.execute(sa.select(audit.c.fact, audit.c.reason, audit.c.actor))
        rows = {tuple(row) for row in found}
    assert {
        ("everyone.signed_out", "restored", "operator"),
        ("key.retired_at_once", before, "operator"),
        ("key.created", result.new_key, "operator"),
    } <= rows


async def test_a_key_that_was_stolen_after_the_copy_signs_nothing(
    service: Service, other: Service, database_url: str, tmp_path: Path
) -> None:
    """It was retired at once, and the copy does not know. With it any epoch can be written."""
    browser = await service.registered()
    stolen = Genuine.of(browser.cookies["access_token"], service)
    copy = backup_of(database_url, tmp_path)
    await service.auth.sessions.retire_key_at_once(stolen.header["kid"], source=OPERATOR)
    put_back(database_url, copy)
    result = await restored(service, service, other)
    assert result.ended_keys == (stolen.header["kid"],)
    headers = {"Authorization": f"Bearer {stolen.with_claims(epoch=result.epoch + 10)}"}
    for worker in (service, other):
        assert (await worker.browser(headers=headers).get("/api/dashboard")).status_code == 401


async def test_keys_are_read_although_their_revision_was_given_before(
    service: Service, other: Service, database_url: str, tmp_path: Path
) -> None:
    """A worker remembers a revision of after the copy: of what has changed since then it must not be reminded by it."""
    copy = backup_of(database_url, tmp_path)
    # As many changes as `restored` makes: the old key is changed, and a new one inserted.
    assert isinstance(await service.auth.parts.keys.rotate(source=OPERATOR), KeyChange)
    await other.auth.parts.core.feed.poll()
    put_back(database_url, copy)
    result = await restored(service, other)
    assert other.auth.parts.ring.current.signing.kid == result.new_key


async def test_a_worker_whose_cursor_is_of_the_future_sees_the_epoch(
    service: Service, other: Service, database_url: str, tmp_path: Path
) -> None:
    """It polled after the copy was taken, and then not before it was put back and more had ended."""
    ada = await service.registered()
    copy = backup_of(database_url, tmp_path)
    for _ in range(5):
        await (await signed_in(service)).post("/api/auth/logout")
    await other.auth.parts.core.feed.poll()
    put_back(database_url, copy)
    await restored(service, other)
    assert await sees(other, ada) == (401, 401)


@ON_SQLITE
async def test_everyone_is_signed_out_once_more_after_it(service: Service, other: Service) -> None:
    """`sessions revoke --all` and `keys retire --now` count on from an epoch that is ahead of the clock."""
    first = (await restored(service, service, other)).epoch
    await service.registered()
    browser = await signed_in(service)
    await service.auth.sessions.revoke_everyone(source=OPERATOR)
    await other.auth.parts.core.feed.poll()
    assert await sees(other, browser) == (401, 401)
    async with service.auth.parts.tools.database.reading() as connection:
        assert await epoch(connection) == first + 1


async def test_keys_of_the_environment(database_url: str, tmp_path: Path, clock: ManualClock) -> None:
    """The epoch alone does it, and the result names the variables; twice in a row."""
    pem = base64.b64encode(private_pem(new_key("P-256"))).decode()
    given = cheap_settings(database_url, jwt_private_key=pem, jwt_algorithm="ES256")
    async with running_service(given, clock) as service, quiet_service(given, clock) as other:
        story = await lived(service, database_url, tmp_path)
        for _ in range(2):
            put_back(database_url, story.copy)
            result = await restored(service, service, other)
            assert (result.ended_keys, result.new_key) == ((), None)
            assert "JWT_PRIVATE_KEY" in result.notes[-1]
            for worker in (service, other):
                for browser in story.browsers:
                    assert await sees(worker, browser) == (401, 401)
            anew = await signed_in(other, "bob@example.com")
            assert [await sees(worker, anew) for worker in (service, other)] == [(200, 200)] * 2
            story = replace(story, later=anew)
            clock.advance(seconds=1)


@ON_SQLITE
async def test_another_secret_changes_nothing(service: Service, settings: Settings, clock: ManualClock) -> None:
    """No worker could open the new key."""
    browser = await service.registered()
    wrong = Auth.from_settings(
        Settings.model_validate(
            settings.model_dump(exclude_unset=True) | {"secret": "another secret of the suite, long"}
        ),
        clock=clock,
    )
    with pytest.raises(ConfigurationError, match="LATCHSTRING_SECRET is not the one"):
        await wrong.restored(source=OPERATOR)
    await wrong.close()
    await service.auth.parts.core.feed.poll()
    assert (await sees(service, browser))[0] == 200


class Counting:
    """A feature that stores something which a restore must void."""

    def __init__(self, *, fails: bool) -> None:
        self.voided: list[str] = []
        self._fails = fails

    async def _void(self, connection: Connection, source: Source) -> None:
        assert connection.in_transaction()
        self.voided.append(source.actor)
        if self._fails:
            raise ConfigurationError("it can't be voided")

    def build(self, tools: Tools, core: Core) -> FeatureParts:
        stored = [StoredData(void=self._void), StoredData(note="Letters are as in the copy.")]
        return FeatureParts(name="counting", router=APIRouter(), stored=stored)


@ON_SQLITE
@pytest.mark.parametrize("fails", [False, True])
async def test_a_feature_voids_what_it_stores(settings: Settings, clock: ManualClock, *, fails: bool) -> None:
    """In the same transaction: all of it is void, or nothing is, and the command failed."""
    feature = Counting(fails=fails)
    auth = Auth.from_settings(settings, features=[feature], clock=clock)
    if fails:
        with pytest.raises(ConfigurationError):
            await auth.restored(source=OPERATOR)
    else:
        assert "Letters are as in the copy." in (await auth.restored(source=OPERATOR)).notes
    assert feature.voided == ["operator"]
    async with auth.parts.tools.database.reading() as connection:
        assert (await epoch(connection) == 0) is fails
    await auth.close()


@ON_SQLITE
async def test_whoever_registers_after_it_is_let_in(service: Service) -> None:
    """An email of a user who is not in the copy is free."""
    await restored(service, service)
    browser = service.browser()
    assert (await browser.post("/api/auth/register", json=registration())).status_code == 201
    assert await sees(service, browser) == (200, 200)
