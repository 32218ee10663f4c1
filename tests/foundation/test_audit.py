"""Every change leaves its event, in the same transaction, and no event holds a secret."""

import base64
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import UUID

import bcrypt
import jwt
import pytest
import sqlalchemy as sa

from latchstring import Settings
from latchstring.core.accounts.tables import users
from latchstring.core.keys.key_set import make_private_pem
from latchstring.core.keys.settings import Algorithm
from latchstring.core.revocations.tables import revocations
from latchstring.core.sessions.tables import sessions
from latchstring.errors import DatabaseUnavailableError
from latchstring.features.password.tables import passwords
from latchstring.foundation.audit import audit
from latchstring.foundation.database import metadata
from latchstring.foundation.events import OPERATOR
from tests.support.backends import ON_SQLITE
from tests.support.service import PASSWORD, Service, cheap_settings, credentials, registration

WRONG_PASSWORD = "not the password"
EMAIL = "ada@example.com"


PRIVATE_KEY = base64.b64encode(make_private_pem(Algorithm.ES256)).decode()


@pytest.fixture
def settings(database_url: str) -> Settings:
    """Keys that cost little: tokens are not the subject."""
    return cheap_settings(database_url, jwt_algorithm="ES256", jwt_private_key=PRIVATE_KEY)


@dataclass
class Ada:
    """Somebody registered, her tokens, and what she can do."""

    service: Service
    access: str
    refresh: str
    user_id: UUID
    session_id: UUID

    async def post(self, path: str, *, token: str | None = None, json: object = None) -> int:
        """Returns the status of a request that carries a token, or a body."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return (await self.service.browser().post(f"/api/auth/{path}", headers=headers, json=json)).status_code

    async def rename(self, name: str) -> int:
        """Returns the status of a change of the first name."""
        headers = {"Authorization": f"Bearer {self.access}"}
        answer = await self.service.browser().patch("/api/auth/me", headers=headers, json={"first_name": name})
        return answer.status_code


@pytest.fixture
async def ada(service: Service) -> Ada:
    """She has registered, and refreshed once, half a minute ago."""
    browser = await service.registered(EMAIL)
    first = browser.cookies["refresh_token"]
    said = jwt.decode(first, options={"verify_signature": False})
    await browser.post("/api/auth/refresh")
    service.clock.advance(seconds=31)
    return Ada(service, browser.cookies["access_token"], first, UUID(said["sub"]), UUID(said["sid"]))


async def rows(service: Service) -> list[sa.RowMapping]:
    """Returns the trail."""
    async with service.auth.parts.tools.database.reading() as connection:
        return list((await connection.execute(sa.select(audit).order_by(audit.c.id))).mappings())


Act = Callable[[Ada], Awaitable[int]]


async def register(ada: Ada) -> int:
    return await ada.post("register", json=registration("bob@example.com"))


async def register_again(ada: Ada) -> int:
    return await ada.post("register", json=registration(EMAIL))


async def log_in(ada: Ada) -> int:
    return await ada.post("login", json=credentials(EMAIL))


async def log_in_wrongly(ada: Ada) -> int:
    return await ada.post("login", json=credentials(EMAIL, WRONG_PASSWORD))


async def log_in_as_nobody(ada: Ada) -> int:
    return await ada.post("login", json=credentials("nobody@example.com"))


async def log_in_with_bcrypt(ada: Ada) -> int:
    encoded = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    async with ada.service.auth.parts.tools.database.transaction() as connection:
        await connection.execute(passwords.update().values(password_hash=encoded))
    return await log_in(ada)


async def log_out(ada: Ada) -> int:
    return await ada.post("logout", token=ada.access)


async def log_out_twice(ada: Ada) -> int:
    return await log_out(ada) + await log_out(ada) - 200


async def reuse(ada: Ada) -> int:
    return await ada.post("refresh", token=ada.refresh)


async def reuse_twice(ada: Ada) -> int:
    return await reuse(ada) + await reuse(ada) - 401


async def rename(ada: Ada) -> int:
    return await ada.rename("Augusta")


async def rename_to_the_same(ada: Ada) -> int:
    return await ada.rename("Ada")


async def _as_operator(work: Awaitable[object]) -> int:
    try:
        await work
    except DatabaseUnavailableError:
        return 503
    return 200


async def disable(ada: Ada) -> int:
    return await _as_operator(ada.service.auth.users.disable(ada.user_id, source=OPERATOR))


async def disable_twice(ada: Ada) -> int:
    return await disable(ada) + await disable(ada) - 200


async def enable(ada: Ada) -> int:
    return await _as_operator(ada.service.auth.users.enable(ada.user_id, source=OPERATOR))


async def disable_and_enable(ada: Ada) -> int:
    return await disable(ada) + await enable(ada) - 200


async def delete(ada: Ada) -> int:
    return await _as_operator(ada.service.auth.users.delete(ada.user_id, source=OPERATOR))


OF_ADA, OF_NOBODY, OF_BOB = "ada", "nobody", "somebody else"
HERS, NONE, NEW = "hers", "none", "a new one"


@pytest.mark.parametrize(
    ("act", "status", "expected"),
    [
        (
            register,
            201,
            {("user.registered", None, "visitor", OF_BOB, NONE), ("session.created", None, "visitor", OF_BOB, NEW)},
        ),
        (register_again, 409, set()),
        (log_in, 200, {("session.created", None, "visitor", OF_ADA, NEW)}),
        (log_in_wrongly, 400, {("sign_in.refused", "pwd", "visitor", OF_ADA, NONE)}),
        (log_in_as_nobody, 400, {("sign_in.refused", "pwd", "visitor", OF_NOBODY, NONE)}),
        (
            log_in_with_bcrypt,
            200,
            {("session.created", None, "visitor", OF_ADA, NEW), ("password.upgraded", None, "visitor", OF_ADA, NONE)},
        ),
        (log_out_twice, 200, {("session.ended", "logout", "visitor", OF_ADA, HERS)}),
        (reuse_twice, 401, {("session.refresh_reused", None, "visitor", OF_ADA, HERS)}),
        (rename, 200, {("user.renamed", None, "visitor", OF_ADA, NONE)}),
        (rename_to_the_same, 200, set()),
        (disable_twice, 200, {("user.disabled", None, "operator", OF_ADA, NONE)}),
        (enable, 200, set()),
        (
            disable_and_enable,
            200,
            {("user.disabled", None, "operator", OF_ADA, NONE), ("user.enabled", None, "operator", OF_ADA, NONE)},
        ),
        (delete, 200, {("user.deleted", None, "operator", OF_ADA, NONE)}),
    ],
)
async def test_what_happened_is_on_record_once(
    act: Act, status: int, expected: set[tuple[str | None, ...]], ada: Ada
) -> None:
    """Each change is one event that says who, whose session, by whom and why; what changed nothing leaves none."""
    before = {row["id"] for row in await rows(ada.service)}
    assert await act(ada) == status
    new = [row for row in await rows(ada.service) if row["id"] not in before]
    told = [
        (
            row["fact"],
            row["reason"],
            row["actor"],
            {ada.user_id: OF_ADA, None: OF_NOBODY}.get(row["user_id"], OF_BOB),
            {ada.session_id: HERS, None: NONE}.get(row["session_id"], NEW),
        )
        for row in new
    ]
    assert sorted(told, key=str) == sorted(expected, key=str)
    for row in new:
        assert row["at"] == ada.service.clock.now()
        of_a_visitor = (row["address"], bool(row["user_agent"]), bool(row["request_id"]))
        assert of_a_visitor == (("127.0.0.1", True, True) if row["actor"] == "visitor" else (None, False, False))


_FULL_DISK = """
CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'no space left' USING ERRCODE = 'disk_full'; END $$
"""


async def make_the_trail_unwritable(service: Service) -> None:
    """Makes every event fail, as a full disk would."""
    async with service.auth.parts.tools.database.transaction() as connection:
        if service.auth.parts.tools.database.is_sqlite:
            await connection.execute(sa.text("ALTER TABLE latchstring_audit RENAME TO audit_is_gone"))
            return
        trigger = "TRIGGER full_disk BEFORE INSERT ON latchstring_audit FOR EACH ROW EXECUTE FUNCTION full_disk()"
        await connection.execute(sa.text(_FULL_DISK))
        await connection.execute(sa.text(f"CREATE {trigger}"))


async def make_every_commit_fail(service: Service) -> None:
    """Makes all but events fail, at the very end of their transaction."""
    async with service.auth.parts.tools.database.transaction() as connection:
        await connection.execute(sa.text(_FULL_DISK))
        for table in (users, passwords, sessions, revocations):
            trigger = (
                f"TRIGGER full_disk AFTER INSERT OR UPDATE OR DELETE ON {table.name} "
                "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION full_disk()"
            )
            await connection.execute(sa.text(f"CREATE CONSTRAINT {trigger}"))


async def everything_but_the_trail(service: Service) -> dict[str, list[str]]:
    """Returns all there is to change."""
    async with service.auth.parts.tools.database.reading() as connection:
        return {
            table.name: sorted(str(row) for row in await connection.execute(sa.select(table)))
            for table in (users, passwords, sessions, revocations)
        }


@pytest.mark.parametrize(
    "act", [register, log_in, log_in_wrongly, log_in_as_nobody, log_out, reuse, rename, disable, delete]
)
async def test_what_can_not_be_recorded_does_not_happen(act: Act, ada: Ada) -> None:
    """The event and the change are one transaction: without the one, the answer is 503 and the other is undone."""
    await make_the_trail_unwritable(ada.service)
    before = await everything_but_the_trail(ada.service)
    assert await act(ada) == 503
    assert await everything_but_the_trail(ada.service) == before
    # And memory knows no more than the table: what did not happen is not told to anybody either.
    headers = {"Authorization": f"Bearer {ada.access}"}
    assert (await ada.service.browser().get("/api/dashboard", headers=headers)).status_code == 200


@pytest.mark.parametrize("backend", ["postgresql"])
@pytest.mark.parametrize("act", [register, log_in, log_out, reuse, rename, disable, delete])
async def test_what_does_not_happen_is_not_recorded(act: Act, ada: Ada) -> None:
    """A change that fails at its commit takes its event along, and this worker's memory does not believe it."""
    await make_every_commit_fail(ada.service)
    before = await everything_but_the_trail(ada.service), await rows(ada.service)
    assert await act(ada) == 503
    assert (await everything_but_the_trail(ada.service), await rows(ada.service)) == before
    headers = {"Authorization": f"Bearer {ada.access}"}
    assert (await ada.service.browser().get("/api/dashboard", headers=headers)).status_code == 200


@ON_SQLITE
async def test_no_fact_holds_a_secret(ada: Ada, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the trail nor the log has a password, a hash, a token, an address or a name in it."""
    acts = (register, register_again, log_in, log_in_wrongly, log_in_as_nobody, rename, log_in_with_bcrypt)
    for act in (*acts, reuse, log_out, disable_and_enable, delete):
        await act(ada)
    trail = " ".join(str(dict(row)) for row in await rows(ada.service)) + caplog.text
    async with ada.service.auth.parts.tools.database.reading() as connection:
        hashes = list(await connection.scalars(sa.select(passwords.c.password_hash)))
    assert hashes
    for secret in (PASSWORD, WRONG_PASSWORD, EMAIL, "example.com", "Lovelace", "Augusta", "eyJ", "argon2", *hashes):
        assert secret not in trail
    assert {row["fact"] for row in await rows(ada.service)} >= {"user.deleted", "session.refresh_reused"}


def test_the_trail_outlives_what_it_speaks_of() -> None:
    """No key leads from the trail, or from ended sessions, to a user: deleting one takes no evidence along."""
    for table in (audit, sessions, revocations):
        assert not metadata.tables[table.name].foreign_keys
