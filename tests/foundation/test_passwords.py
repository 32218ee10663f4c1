"""Password hashes: what verifies, what is made better in passing, what a refusal costs, and how many run at once."""

import asyncio
import threading
from collections.abc import AsyncIterator

import argon2
import bcrypt
import pytest
import sqlalchemy as sa
from httpx2 import AsyncClient

from latchstring import Settings
from latchstring.errors import HashQueueFullError
from latchstring.features.password.tables import passwords
from latchstring.foundation.passwords import PasswordHasher, PasswordHashSettings
from tests.support.backends import ON_SQLITE
from tests.support.hang import HANG_SECONDS
from tests.support.hashes import hashing, held_hashes
from tests.support.service import PASSWORD, Service, cheap_settings, credentials, registration, running_service

CHEAP = PasswordHashSettings(password_hash_memory_kib=8, password_hash_passes=1, password_hash_threads=1)
REAL = PasswordHashSettings(password_hash_threads=1)
NO_QUEUE = CHEAP.model_copy(update={"password_hash_queue": 0})


def tutorial_hash(password: str) -> str:
    """Returns what the tutorial stored: passlib's bcrypt, which cut at 72 bytes in silence."""
    return bcrypt.hashpw(password.encode()[:72], bcrypt.gensalt(4)).decode()


async def stored_hash(service: Service) -> str:
    """Reads the one hash there is."""
    async with service.auth.parts.tools.database.reading() as connection:
        return str((await connection.execute(sa.select(passwords.c.password_hash))).scalar_one())


async def store_hash(service: Service, encoded_hash: str) -> None:
    """Puts a hash in the place of the one there is, as an import of the tutorial's users would."""
    async with service.auth.parts.tools.database.transaction() as connection:
        await connection.execute(passwords.update().values(password_hash=encoded_hash))


async def login(service: Service, password: str = PASSWORD) -> int:
    """Returns what a login is answered with."""
    async with service.browser() as browser:
        return (await browser.post("/api/auth/login", json=credentials(password=password))).status_code


@pytest.fixture
async def hasher(request: pytest.FixtureRequest) -> AsyncIterator[PasswordHasher]:
    hasher = PasswordHasher(getattr(request, "param", CHEAP))
    yield hasher
    hasher.close()


@ON_SQLITE
@pytest.mark.parametrize(
    ("password", "wrong"),
    [
        pytest.param("the tutorial's", "the tutorial's ", id="short"),
        pytest.param("p" * 72, "p" * 71, id="72 bytes"),
        pytest.param("p" * 73, "p" * 71, id="73 bytes, at which bcrypt 5 raises"),
        pytest.param("p" * 256, "p" * 71, id="the longest"),
        pytest.param("\u00fc" * 40, "\u00fc" * 35, id="cut in the middle of a letter"),
    ],
)
async def test_a_hash_of_the_tutorial_is_upgraded(service: Service, password: str, wrong: str) -> None:
    """Who registered with the tutorial's server signs in here, and from then on has an Argon2id hash of all of it."""
    await service.registered()
    old = tutorial_hash(password)
    await store_hash(service, old)

    assert await login(service, wrong) == 400
    assert await stored_hash(service) == old

    assert await login(service, password) == 200
    upgraded = await stored_hash(service)
    assert upgraded.startswith("$argon2id$")
    assert await login(service, password) == 200
    assert await stored_hash(service) == upgraded
    # The old hash knew 72 bytes of the password; the new one knows it whole.
    shortened = password.encode()[:72].decode(errors="ignore")
    assert await login(service, shortened) == (200 if shortened == password else 400)


async def test_outdated_parameters_are_upgraded(service: Service) -> None:
    """A hash made under cheaper settings is replaced at the sign-in that proves the password, and at no other."""
    await service.registered()
    before = await stored_hash(service)
    assert "$m=8,t=1,p=1$" in before
    stronger = service.settings.model_copy(update={"password_hash_memory_kib": 32, "password_hash_passes": 2})
    async with running_service(stronger, service.clock) as upgrading:
        assert await login(upgrading, "not the password") == 400
        assert await stored_hash(service) == before
        assert await login(upgrading) == 200
        after = await stored_hash(service)
        assert "$m=32,t=2,p=1$" in after
        assert await login(upgrading) == 200
        assert await stored_hash(service) == after


@pytest.mark.parametrize(
    "broken",
    [
        "",
        "!",
        "plain",
        PASSWORD,
        "$2b$",
        "$2b$04$short",
        "$2b$99$" + "a" * 53,
        "$argon2id$",
        "$argon2id$v=19$m=8",
        "$6$salt$hash",
    ],
)
async def test_a_broken_hash_lets_nobody_in(hasher: PasswordHasher, broken: str) -> None:
    """What is no hash of a kind we know matches no password, and is no error that would tell it apart."""
    verdict = await hasher.verify(PASSWORD, broken)
    assert (verdict.matches, verdict.upgraded_hash) == (False, None)


@pytest.mark.parametrize("prefix", ["$2a$", "$2b$", "$2y$"])
async def test_every_name_of_bcrypt(hasher: PasswordHasher, prefix: str) -> None:
    """Hashes of other bcrypt libraries differ in the name only, and are worth the same upgrade."""
    hashed = prefix + tutorial_hash(PASSWORD)[4:]
    assert not (await hasher.verify("not the password", hashed)).matches
    verdict = await hasher.verify(PASSWORD, hashed)
    assert verdict.matches
    assert (await hasher.verify(PASSWORD, verdict.upgraded_hash)).matches


@ON_SQLITE
@pytest.mark.parametrize(
    ("typed", "typed_elsewhere"),
    [
        pytest.param("\u00c5ngstr\u00f6m-pass", "A\u030angstro\u0308m-pass", id="composed and decomposed"),
        pytest.param("o\ufb03ce-pass", "office-pass", id="ligature"),
        pytest.param("\uff50\uff41\uff53\uff53\uff57\uff4f\uff52\uff44", "password", id="full width"),
        pytest.param("pass\u00a0word", "pass word", id="no-break space"),
    ],
)
async def test_one_password_on_two_keyboards(service: Service, typed: str, typed_elsewhere: str) -> None:
    """The same password as another keyboard sends it is the same password (NIST SP 800-63B-4, NFKC)."""
    body = registration(password=typed, passwordConfirm=typed)
    assert (await service.browser().post("/api/auth/register", json=body)).status_code == 201
    assert await login(service, typed_elsewhere) == 200
    assert await login(service, typed) == 200
    assert await login(service, typed_elsewhere.upper()) == 400


async def test_equal_hashes_are_never_stored(hasher: PasswordHasher) -> None:
    """Two users with one password can't be told from their hashes."""
    assert await hasher.hash(PASSWORD) != await hasher.hash(PASSWORD)


@pytest.mark.parametrize("hasher", [pytest.param(REAL, id="the default cost")], indirect=True)
async def test_nobody_costs_what_somebody_costs(hasher: PasswordHasher, monkeypatch: pytest.MonkeyPatch) -> None:
    """CVE-2016-2513, CVE-2024-39329: no such user, no password and a wrong one are equal work for the processor."""
    encoded, checked = await hasher.hash(PASSWORD), list[argon2.Parameters]()
    verify = argon2.PasswordHasher.verify

    def counted(itself: argon2.PasswordHasher, against: str, password: str) -> bool:
        checked.append(argon2.extract_parameters(against))
        return verify(itself, against, password)

    monkeypatch.setattr(argon2.PasswordHasher, "verify", counted)
    for known in (encoded, None):
        assert not (await hasher.verify("not the password", known)).matches
    # One computation each; passes, memory, lanes and the lengths of salt and hash are all that its cost depends on.
    wrong, nobody = checked
    assert nobody == wrong
    assert (wrong.memory_cost, wrong.time_cost) == (19_456, 2)


async def test_the_loop_goes_on_while_hashes_run(hasher: PasswordHasher) -> None:
    """Hashes run on the pool's threads, never on the event loop's."""
    here = threading.get_ident()
    assert await hasher._run(threading.get_ident) != here


@pytest.mark.parametrize("hasher", [pytest.param(NO_QUEUE, id="no queue")], indirect=True)
async def test_an_abandoned_hash_keeps_its_place(hasher: PasswordHasher) -> None:
    """Who hangs up and asks again gets no second thread: the place is free when the work is done, not before."""
    started, finish = threading.Event(), threading.Event()

    def work() -> bool:
        started.set()
        return finish.wait(HANG_SECONDS)

    request = asyncio.create_task(hasher._run(work))
    await asyncio.to_thread(started.wait, HANG_SECONDS)
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    with pytest.raises(HashQueueFullError):
        await hasher.hash(PASSWORD)
    finish.set()
    await _when_idle(hasher)
    assert await hasher.hash(PASSWORD)


async def test_a_hash_nobody_waits_for_is_not_begun(hasher: PasswordHasher) -> None:
    """One who hangs up while waiting gives the place in the queue back, and costs nothing."""
    finish = threading.Event()
    begun: list[str] = []
    running = asyncio.create_task(hasher._run(lambda: finish.wait(HANG_SECONDS)))
    waiting = asyncio.create_task(hasher._run(lambda: begun.append("abandoned")))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert hasher._pending == 1
    finish.set()
    assert await running
    await _when_idle(hasher)
    assert begun == []


async def test_a_failing_hash_gives_its_place_back(hasher: PasswordHasher) -> None:
    """An error inside the work is the caller's to see, and takes no place for ever."""

    def fail() -> None:
        raise MemoryError

    for _ in range(3):
        with pytest.raises(MemoryError):
            await hasher._run(fail)
    await _when_idle(hasher)
    assert hasher._pending == 0


@pytest.fixture
async def narrow_service(settings: Settings) -> AsyncIterator[Service]:
    """One thread, and nobody may wait."""
    narrow = settings.model_copy(update={"password_hash_threads": 1, "password_hash_queue": 0})
    async with running_service(narrow) as running:
        yield running


@ON_SQLITE
@pytest.mark.parametrize(
    ("path", "body"), [("/api/auth/login", credentials()), ("/api/auth/register", registration("bob@example.com"))]
)
async def test_beyond_the_queue_is_503(narrow_service: Service, path: str, body: dict[str, object]) -> None:
    """A full queue is told at once, with when to try again; nothing is written, and the next attempt succeeds."""
    browser = await narrow_service.registered()
    finish = threading.Event()
    occupied = asyncio.create_task(narrow_service.auth.parts.tools.passwords._run(lambda: finish.wait(HANG_SECONDS)))
    await asyncio.sleep(0)
    answer = await browser.post(path, json=body)
    assert (answer.status_code, answer.json()["code"]) == (503, "hash_queue_full")
    assert int(answer.headers["retry-after"]) >= 1
    assert (await browser.get("/api/dashboard")).status_code == 200, "who is signed in needs no hash"
    finish.set()
    await occupied
    await _when_idle(narrow_service.auth.parts.tools.passwords)
    assert (await browser.post(path, json=body)).is_success


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_hanging_up_does_not_open_the_queue(database_url: str) -> None:
    """A client that hangs up in the middle of its login leaves the thread as busy as it was."""
    narrow = cheap_settings(database_url, password_hash_threads=1, password_hash_queue=0)
    async with running_service(narrow) as service, service.browser() as browser:
        hasher = service.auth.parts.tools.passwords
        with held_hashes():
            request = asyncio.create_task(browser.post("/api/auth/login", json=credentials()))
            await hashing(hasher)
            request.cancel()
            with pytest.raises(asyncio.CancelledError):
                await request
            assert await _code(browser) == "hash_queue_full"
        await _when_idle(hasher)
        assert await _code(browser) == "invalid_credentials"


async def _code(browser: AsyncClient) -> str:
    return str((await browser.post("/api/auth/login", json=credentials())).json()["code"])


async def _when_idle(hasher: PasswordHasher) -> None:
    """Returns when the one thread has finished all that was handed to it before, and its places are free."""
    assert hasher._threads is not None
    await asyncio.wrap_future(hasher._threads.submit(lambda: None))
