"""The database goes away under a running server, and comes back: nobody is signed out, nobody is let in blindly."""

import asyncio
import contextlib
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Self

import httpx2
import pytest

from latchstring.testing import ManualClock
from tests.support.hang import sleep_until
from tests.support.postgres import OwnPostgres
from tests.support.process import CHEAP_HASH, NO_LIMITS, ServerProcess
from tests.support.service import PASSWORD, SECRET, cheap_settings, credentials, registration, running_service

MAX_LAG = 1
"""Seconds that a worker may go without a look at the database; the least that can be set, to keep this short."""


class Heard(NamedTuple):
    """One answer."""

    asked_at: float
    at: float
    status: int
    code: str | None
    is_problem: bool
    retry_after: str | None
    sets_cookies: bool


class Visitor:
    """Somebody signed in who asks for the same thing over and over, on a thread of their own."""

    def __init__(self, server: ServerProcess, method: str, path: str, json: object = None) -> None:
        self.heard: list[Heard] = []
        self._client = server.client()
        self._method, self._path, self._json = method, path, json
        self._stop = threading.Event()
        self._name = secrets.token_hex(4)
        email = f"{self._name}@example.com"
        answer = self._client.post("/api/auth/register", json=registration(email))
        assert answer.status_code == 201, answer.text
        self.cookies = dict(self._client.cookies)
        self._body = credentials(email) if path.endswith("login") else json
        self._thread = threading.Thread(target=self._ask_on)

    def _ask_on(self) -> None:
        turn = 0
        while not self._stop.is_set():
            turn += 1
            body = self._body
            if self._path.endswith("register"):
                body = registration(f"{self._name}.{turn}@example.com")
            asked_at = time.monotonic()
            answer = self._client.request(self._method, self._path, json=body)
            self.heard.append(
                Heard(
                    asked_at=asked_at,
                    at=time.monotonic(),
                    status=answer.status_code,
                    code=answer.json().get("code"),
                    is_problem=answer.headers["content-type"] == "application/problem+json",
                    retry_after=answer.headers.get("retry-after"),
                    sets_cookies="set-cookie" in answer.headers,
                )
            )
            time.sleep(0.05)

    def heard_after(self, moment: float) -> list[Heard]:
        """Returns the answers to what was asked after a moment."""
        return [heard for heard in self.heard if heard.asked_at > moment]

    def succeeds_after(self, moment: float) -> bool:
        """Tells whether one of them was no refusal."""
        return any(heard.status < 300 for heard in self.heard_after(moment))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._client.close()


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[OwnPostgres]:
    """A PostgreSQL that may be stopped."""
    with OwnPostgres() as server:
        yield server


@pytest.fixture(scope="module")
def servers(own_postgres: OwnPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[ServerProcess]]:
    """One server on each driver, so that both live through the same outages."""
    url = own_postgres.create_database()
    with contextlib.ExitStack() as stack:
        started = []
        for driver in ("psycopg", "asyncpg"):
            variables = {
                **CHEAP_HASH,
                **NO_LIMITS,
                "LATCHSTRING_DATABASE_URL": url.replace("postgresql:", f"postgresql+{driver}:"),
                "LATCHSTRING_SECRET": SECRET,
                "LATCHSTRING_REVOCATION_MAX_LAG_SECONDS": str(MAX_LAG),
            }
            home = tmp_path_factory.mktemp(driver)
            started.append(stack.enter_context(ServerProcess(Path(home), variables=variables)))
        yield started


GUARDED = ("GET", "/api/dashboard")
NEED_THE_DATABASE = [
    ("GET", "/api/auth/me"),
    ("POST", "/api/auth/login"),
    ("POST", "/api/auth/register"),
    ("POST", "/api/auth/refresh"),
]


def test_a_database_that_goes_away_and_comes_back(own_postgres: OwnPostgres, servers: list[ServerProcess]) -> None:
    """503 while it is down, the dashboard too once the lag is over; soon after its return everything is as before."""
    with contextlib.ExitStack() as stack:
        visitors = [
            stack.enter_context(Visitor(server, *request))
            for server in servers
            for request in (GUARDED, *NEED_THE_DATABASE)
        ]
        leaver = [stack.enter_context(server.client()) for server in servers]
        for number, client in enumerate(leaver):
            client.post("/api/auth/register", json=registration(f"leaver{number}@example.com"))
        sleep_until(lambda: all(visitor.succeeds_after(0) for visitor in visitors))
        own_postgres.stop()
        down = time.monotonic()
        sleep_until(lambda: all(client.get("/readyz").status_code == 503 for client in leaver))
        for client in leaver:
            kept = dict(client.cookies)
            answer = client.post("/api/auth/logout")
            assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
            assert answer.headers["retry-after"]
            assert dict(client.cookies) == kept, "what could not be recorded must not look like a sign-out"
            assert client.get("/readyz").status_code == 503
            assert client.get("/healthz").status_code == 200
        # From then on nobody is let in on what was known before it went down.
        blind = down + MAX_LAG
        sleep_until(lambda: all(len(visitor.heard_after(blind)) > 2 for visitor in visitors))
        coming_up = time.monotonic()
        own_postgres.start()
        up = time.monotonic()
        sleep_until(lambda: all(visitor.succeeds_after(up) for visitor in visitors))
        for client in leaver:
            assert answered(client, "GET", "/readyz").status_code == 200
            assert answered(client, "GET", "/api/dashboard").status_code == 200, "nobody was signed out"
            assert answered(client, "POST", "/api/auth/logout").status_code == 200
            assert answered(client, "GET", "/api/dashboard").status_code == 401

    for visitor in visitors:
        where = (visitor._path, visitor.heard)
        statuses = {heard.status for heard in visitor.heard}
        assert statuses <= {200, 201, 503}, where
        for heard in visitor.heard:
            if heard.status == 503:
                assert (heard.is_problem, bool(heard.retry_after), heard.sets_cookies) == (True, True, False), where
                assert heard.code in {"database_unavailable", "revocations_unknown"}, where
        refused_from = blind if (visitor._method, visitor._path) == GUARDED else down
        while_down = [heard for heard in visitor.heard_after(refused_from) if heard.at < coming_up]
        assert while_down, where
        assert {heard.status for heard in while_down} == {503}, where
    for server in servers:
        assert "Traceback" not in server.words()
        assert PASSWORD not in server.words()


def answered(client: httpx2.Client, method: str, path: str) -> httpx2.Response:
    """Asks again while the answer is 503: with the least lag, a busy machine makes a worker refuse at times."""
    answers = []

    def is_answered() -> bool:
        answers.append(client.request(method, path))
        return answers[-1].status_code != 503

    sleep_until(is_answered)
    return answers[-1]


def test_a_quick_restart_is_hardly_noticed(own_postgres: OwnPostgres, servers: list[ServerProcess]) -> None:
    """Every pooled connection breaks at once: a few 503, never a 500 or a 401, and it goes on."""
    with contextlib.ExitStack() as stack:
        visitors = [
            stack.enter_context(Visitor(server, *request))
            for server in servers
            for request in (GUARDED, *NEED_THE_DATABASE)
        ]
        for _ in range(2):
            now = time.monotonic()
            sleep_until(lambda now=now: all(visitor.succeeds_after(now) for visitor in visitors))  # type: ignore[misc]
            own_postgres.restart()
        up = time.monotonic()
        sleep_until(lambda: all(visitor.succeeds_after(up) for visitor in visitors))
    for visitor in visitors:
        assert {heard.status for heard in visitor.heard} <= {200, 201, 503}, (visitor._path, visitor.heard)


_HOLD_THE_LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def locked_by_another_process(path: str) -> Iterator[None]:
    """Keeps everybody from writing to a SQLite file while the block runs."""
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD_THE_LOCK, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        yield
    finally:
        holder.communicate()


@pytest.mark.usefixtures("as_shipped")
@pytest.mark.parametrize("backend", ["sqlite"])
async def test_a_locked_sqlite_file_is_an_outage_for_writers(database_url: str, clock: ManualClock) -> None:
    """Every writer hears 503, whoever waits before it; readers go on; unlocked, all is well."""
    clock.advance(seconds=1)
    writes = [
        ("register", registration("bob@example.com")),
        ("login", credentials()),
        ("refresh", None),
        ("logout", None),
    ]
    async with running_service(cheap_settings(database_url), clock) as service:
        browser = await service.registered()

        async def write(number: int) -> httpx2.Response:
            await asyncio.sleep(number * 1.2)
            path, body = writes[number]
            return await browser.post(f"/api/auth/{path}", json=body)

        with locked_by_another_process(database_url.removeprefix("sqlite:///")):
            writing = asyncio.gather(*(write(number) for number in range(len(writes))))
            for _ in range(10):
                await asyncio.sleep(0.1)
                assert (await browser.get("/api/dashboard")).status_code == 200
                assert (await browser.get("/api/auth/me")).status_code == 200
            heard = await writing
        for answer in heard:
            assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
            assert answer.headers["retry-after"]
            assert "set-cookie" not in answer.headers
        for path, body in reversed(writes[:3]):
            assert (await browser.post(f"/api/auth/{path}", json=body)).is_success, path
        assert (await browser.post("/api/auth/logout")).status_code == 200
