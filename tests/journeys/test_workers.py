"""`latchstring serve --workers 2` as real processes: what one knows all know, and what was answered stays."""

import contextlib
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import httpx2
import jwt
import psutil
import psycopg
import pytest

from tests.support.hang import HANG_SECONDS, sleep_until
from tests.support.postgres import Postgres
from tests.support.process import CHEAP_HASH, NO_LIMITS, ServerProcess
from tests.support.service import SECRET, registration

PEOPLE = 20


def bearer(token: str) -> dict[str, str]:
    """Returns the header that shows a token."""
    return {"Authorization": f"Bearer {token}"}


def wait_for(client: httpx2.Client, headers: dict[str, str], status: int) -> None:
    """Asks the guarded route until it answers so."""
    sleep_until(lambda: client.get("/api/dashboard", headers=headers).status_code == status)


def workers_of(server: ServerProcess) -> list[psutil.Process]:
    """Returns every process below the one that was started."""
    return psutil.Process(server.pid).children(recursive=True)


def worker_of(server: ServerProcess, client: httpx2.Client) -> int:
    """Returns the id of the process that holds a client's connection."""
    stream = client.get("/healthz").extensions["network_stream"]
    _, mine = stream.get_extra_info("client_addr")
    for process in workers_of(server):
        with contextlib.suppress(psutil.AccessDenied, psutil.NoSuchProcess):
            for connection in process.net_connections("tcp"):
                if getattr(connection.raddr, "port", None) == mine and connection.status == psutil.CONN_ESTABLISHED:
                    return process.pid
    raise AssertionError("no worker holds this connection")


@contextlib.contextmanager
def client_of_each_worker(server: ServerProcess, workers: int = 2) -> Iterator[list[httpx2.Client]]:
    """Gives one client for each worker, whose connection stays with it."""
    with contextlib.ExitStack() as stack:
        found: dict[int, httpx2.Client] = {}
        deadline = time.monotonic() + HANG_SECONDS
        while len(found) < workers:
            assert time.monotonic() < deadline, f"only {len(found)} of {workers} workers take connections"
            client = stack.enter_context(server.client())
            found.setdefault(worker_of(server, client), client)
        yield list(found.values())


# --- two workers, on either database ----------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server for several tests; every one of them registers people of its own."""
    home = tmp_path_factory.mktemp("server")
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("sqlite_template"), home / "latchstring.db")
        url = f"sqlite:///{home / 'latchstring.db'}"
    else:
        postgres: Postgres = request.getfixturevalue("postgres")
        url = postgres.create_database(template=request.getfixturevalue("postgres_template"))
    variables = {**CHEAP_HASH, **NO_LIMITS, "LATCHSTRING_DATABASE_URL": url, "LATCHSTRING_SECRET": SECRET}
    with ServerProcess(Path(home), variables=variables, workers=2) as running:
        yield running


class Crowd(NamedTuple):
    """People with a connection each."""

    clients: list[httpx2.Client]
    threads: ThreadPoolExecutor

    def at_once(self, ask: Callable[[httpx2.Client], httpx2.Response], people: int = PEOPLE) -> list[httpx2.Response]:
        """Returns what so many of them hear who ask the same at the same instant."""
        ready = threading.Barrier(people)

        def person(client: httpx2.Client) -> httpx2.Response:
            client.cookies.clear()
            ready.wait(HANG_SECONDS)
            return ask(client)

        return list(self.threads.map(person, self.clients[:people]))


@pytest.fixture(scope="module")
def crowd(server: ServerProcess) -> Iterator[Crowd]:
    """Twenty people, all connected."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.client()) for _ in range(PEOPLE)]
        people = Crowd(clients, stack.enter_context(ThreadPoolExecutor(PEOPLE)))
        people.at_once(lambda client: client.get("/healthz"))
        yield people


def test_two_registrations_of_one_address(crowd: Crowd) -> None:
    """One is 201 and the other 409, every time, on whichever workers they land."""
    for turn in range(20):

        def ask(client: httpx2.Client, email: str = f"twin{turn}@example.com") -> httpx2.Response:
            return client.post("/api/auth/register", json=registration(email))

        won, lost = sorted(crowd.at_once(ask, 2), key=lambda answer: answer.status_code)
        assert (won.status_code, lost.status_code) == (201, 409), (won.text, lost.text)
        assert lost.json()["detail"] == "An account by that email already registered!"
        assert "set-cookie" not in lost.headers


def test_refreshes_of_one_token(crowd: Crowd) -> None:
    """Twenty at once, ten rounds: all the same successor, and it is good for the next round."""
    answers = [crowd.clients[0].post("/api/auth/register", json=registration("tabs@example.com"))]
    for generation in range(2, 12):

        def ask(client: httpx2.Client, token: str = answers[0].cookies["refresh_token"]) -> httpx2.Response:
            return client.post("/api/auth/refresh", headers=bearer(token))

        answers = crowd.at_once(ask)
        assert {answer.status_code for answer in answers} == {200}, {answer.text for answer in answers}
        ((_, refresh),) = {(answer.cookies["access_token"], answer.cookies["refresh_token"]) for answer in answers}
        assert jwt.decode(refresh, options={"verify_signature": False})["gen"] == generation


def test_a_sign_out_reaches_every_worker(server: ServerProcess) -> None:
    """The worker that is told knows at once, the other soon, and neither ever takes the token again."""
    with client_of_each_worker(server) as (here, there):
        for turn in range(5):
            answer = here.post("/api/auth/register", json=registration(f"visitor{turn}@example.com"))
            headers = bearer(answer.cookies["access_token"])
            for client in (here, there):
                client.cookies.clear()
                assert client.get("/api/dashboard", headers=headers).status_code == 200
            assert here.post("/api/auth/logout", headers=headers).status_code == 200
            assert here.get("/api/dashboard", headers=headers).json()["code"] == "session_ended"
            wait_for(there, headers, 401)
            for client in (here, there) * 3:
                assert client.get("/api/dashboard", headers=headers).json()["code"] == "session_ended"


# --- starting and ending ----------------------------------------------------------------------------------------------


def test_a_home_is_made_once_and_no_worker_outlives_its_parent(tmp_path: Path) -> None:
    """With nothing set, both workers have the same keys; asked to end, all of them do. (Killed: tests/drills.)"""
    with ServerProcess(tmp_path, variables=CHEAP_HASH, workers=2) as server:
        with client_of_each_worker(server) as clients:
            key_sets = [client.get("/.well-known/jwks.json").json()["keys"] for client in clients]
            assert len(key_sets[0]) == 1
            assert key_sets[0] == key_sets[1]
        workers = workers_of(server)
        assert server.stop() == 0
        _, alive = psutil.wait_procs(workers, timeout=HANG_SECONDS)
        assert alive == [], "a worker outlived its parent"
        assert "Traceback" not in server.words()


def test_two_instances_start_at_once_on_an_empty_database(tmp_path: Path, postgres: Postgres) -> None:
    """Schema and key are made once: both instances publish and accept the same."""
    url = postgres.create_database()
    variables = {**CHEAP_HASH, **NO_LIMITS, "LATCHSTRING_DATABASE_URL": url, "LATCHSTRING_SECRET": SECRET}
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(2) as threads:
        started = [threads.submit(ServerProcess, tmp_path, variables=variables) for _ in range(2)]
        servers = [stack.enter_context(future.result()) for future in started]
        one, two = (stack.enter_context(server.client()) for server in servers)
        assert one.get("/.well-known/jwks.json").json() == two.get("/.well-known/jwks.json").json()
        answer = one.post("/api/auth/register", json=registration())
        assert two.get("/api/dashboard", headers=bearer(answer.cookies["access_token"])).status_code == 200
    with psycopg.connect(url) as connection:
        for table in ("latchstring_keys", "latchstring_secrets", "latchstring_schema_version"):
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (1,)  # noqa: S608
    postgres.drop_database(url)


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_a_paused_worker_lets_nobody_in_on_what_it_knew(database_url: str, tmp_path: Path) -> None:
    """Stopped while another instance ends a session, it refuses the very first request after it goes on."""
    variables = {
        **CHEAP_HASH,
        "LATCHSTRING_DATABASE_URL": database_url,
        "LATCHSTRING_SECRET": SECRET,
        "LATCHSTRING_REVOCATION_MAX_LAG_SECONDS": "1",
    }
    with (
        ServerProcess(tmp_path, variables=variables) as paused,
        ServerProcess(tmp_path, variables=variables) as other,
        paused.client() as here,
        other.client() as there,
        ThreadPoolExecutor(1) as threads,
    ):
        for turn in range(3):
            answer = here.post("/api/auth/register", json=registration(f"visitor{turn}@example.com"))
            headers = bearer(answer.cookies["access_token"])
            here.cookies.clear()
            # With the least lag that can be set, a busy machine makes a worker refuse now and then.
            wait_for(here, headers, 200)
            os.kill(paused.pid, signal.SIGSTOP)
            try:
                assert there.post("/api/auth/logout", headers=headers).status_code == 200
                asked = threads.submit(here.get, "/api/dashboard", headers=headers)
                time.sleep(1.2)
            finally:
                os.kill(paused.pid, signal.SIGCONT)
            heard = asked.result(HANG_SECONDS)
            assert heard.status_code in {401, 503}, heard.text
            assert heard.json()["code"] in {"session_ended", "revocations_unknown"}
            # It goes on by itself.
            wait_for(here, headers, 401)
