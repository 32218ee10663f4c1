"""`latchstring serve`: what it says, what it makes once, what it refuses, and how it ends."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx2
import psutil
import pytest
import sqlalchemy as sa
from fastapi import FastAPI

from latchstring import Settings
from latchstring.apps import server as server_module
from latchstring.migrations import HEAD, VERSION_TABLE
from tests.support.hang import sleep_until
from tests.support.postgres import Postgres
from tests.support.process import CHEAP_HASH, COMMAND, NO_TLS, ServerProcess, forked, latchstring, serve
from tests.support.service import PASSWORD, SECRET, credentials, registration, running_service

# An elliptic key is made in no time; the default's RSA key is made in the one test that starts with nothing set.
QUICK = {**CHEAP_HASH, "LATCHSTRING_JWT_ALGORITHM": "ES256"}


def jwks(server: ServerProcess) -> list[dict[str, str]]:
    keys: list[dict[str, str]] = httpx2.get(f"{server.url}/.well-known/jwks.json", verify=NO_TLS).json()["keys"]
    return keys


def test_a_first_start_a_stop_and_a_second_start(tmp_path: Path) -> None:
    """With nothing set a home is made, once: users, sessions, keys and schema are there after a restart."""
    home = tmp_path / "latchstring-data"
    with ServerProcess(tmp_path) as server, server.client() as browser:
        assert re.fullmatch(r"\S.* http://localhost:\d+\n", server.first_line)
        words = server.words()
        assert str(home) in words
        assert "development only" in words
        user = browser.post("/api/auth/register", json=registration()).json()
        assert browser.get("/healthz").status_code == 200
        keys, tokens = jwks(server), dict(browser.cookies)
    assert [key["alg"] for key in keys] == ["RS256"]
    assert home.stat().st_mode & 0o777 == 0o700
    secret = (home / "secret").read_text()
    assert (home / "secret").stat().st_mode & 0o777 == 0o600
    assert secret.strip() not in words
    schema = sqlite_schema_cookie(home / "latchstring.db")

    # By the command that a stranger types, in which every worker imports for itself.
    with ServerProcess(tmp_path, workers=2, command=(COMMAND, "serve")) as server:
        assert jwks(server) == keys
        headers = {"Authorization": f"Bearer {tokens['access_token']}"}
        for _ in range(8):  # a connection each, so that both workers are met
            assert httpx2.get(f"{server.url}/api/auth/me", headers=headers, verify=NO_TLS).json() == user
        with server.client() as browser:
            renewed = browser.post("/api/auth/refresh", headers={"Cookie": f"refresh_token={tokens['refresh_token']}"})
            assert renewed.json() == user
            assert browser.post("/api/auth/login", json=credentials()).json() == user
            assert browser.get("/sign-up?token=from-a-link").status_code in {200, 303}
        assert "from-a-link" not in server.words()
        workers = psutil.Process(server.pid).children()
        assert len(workers) >= 2
        # T15: killed, it can tell them nothing; they notice, and are gone before the block ends those that are not.
        os.kill(server.pid, signal.SIGKILL)
        assert_gone(workers)
    assert (home / "secret").read_text() == secret
    assert sqlite_schema_cookie(home / "latchstring.db") == schema


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stop_that_was_asked_for_is_no_failure(workers: int, on_sqlite: dict[str, str], tmp_path: Path) -> None:
    """SIGTERM is how a service manager says goodbye: everything ends, and the exit code is 0."""
    with ServerProcess(tmp_path, variables=on_sqlite, workers=workers) as server:
        children = psutil.Process(server.pid).children(recursive=True)
        code = server.stop()
    assert_gone(children)
    assert code == 0


def assert_gone(processes: list[psutil.Process]) -> None:
    """Multiprocessing's own tracker ends a moment after the workers; where nobody reaps orphans, zombies stay."""
    sleep_until(lambda: not any(map(is_running, processes)))


def is_running(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def sqlite_schema_cookie(path: Path) -> int:
    """Returns SQLite's own count of changes to the schema."""
    with sqlite3.connect(path) as database:
        return int(database.execute("PRAGMA schema_version").fetchone()[0])


@pytest.fixture
def on_sqlite(sqlite_template: Path, tmp_path: Path) -> dict[str, str]:
    """The variables of an installation that is ready."""
    shutil.copy(sqlite_template, tmp_path / "prepared.db")
    return {**CHEAP_HASH, "LATCHSTRING_DATABASE_URL": "sqlite:///prepared.db", "LATCHSTRING_SECRET": SECRET}


@pytest.fixture
def unmigrated(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The variables of an installation whose database is empty."""
    variables = {**QUICK, "LATCHSTRING_SECRET": SECRET}
    if backend == "sqlite":
        yield variables | {"LATCHSTRING_DATABASE_URL": f"sqlite:///{tmp_path}/empty.db"}
        return
    postgres: Postgres = request.getfixturevalue("postgres")
    url = postgres.create_database()
    yield variables | {"LATCHSTRING_DATABASE_URL": url}
    postgres.drop_database(url)


def test_instances_that_start_at_once_share_schema_and_key(unmigrated: dict[str, str], tmp_path: Path) -> None:
    """Of two on an empty database one migrates and makes the key; both serve, and trust each other's tokens."""
    with ExitStack() as stack, ThreadPoolExecutor() as pool:
        starting = [pool.submit(ServerProcess, tmp_path, variables=unmigrated, workers=n) for n in (1, 2)]
        one, other = (stack.enter_context(started.result()) for started in starting)
        assert jwks(one) == jwks(other)
        assert len(jwks(one)) == 1
        with one.client() as browser:
            assert browser.post("/api/auth/register", json=registration()).status_code == 201
            assert browser.get(f"{other.url}/api/dashboard").status_code == 200


def test_no_migrate_leaves_the_schema(unmigrated: dict[str, str], tmp_path: Path) -> None:
    """`--no-migrate` on a database that is not ready serves nothing, changes nothing, and says what to run."""
    run = latchstring("serve", "--no-migrate", "--port", "0", cwd=tmp_path, variables=unmigrated)
    assert (run.returncode, run.stdout) == (1, "")
    assert "latchstring migrate" in run.stderr
    assert "Traceback" not in run.stderr
    assert latchstring("migrate", "--check", cwd=tmp_path, variables=unmigrated).returncode == 1


async def test_another_schema_is_not_ready(settings: Settings) -> None:
    """A worker on a schema that is not this program's says so to the load balancer, and is alive all the same."""
    async with running_service(settings) as service:
        browser = service.browser()
        assert (await browser.get("/readyz")).status_code == 200
        async with service.auth.parts.tools.database.transaction() as connection:
            await connection.execute(sa.text(f"UPDATE {VERSION_TABLE} SET version_num = '0000'"))  # noqa: S608 -- a constant
        answer = await browser.get("/readyz")
        assert answer.status_code == 503
        state = {"database": True, "schema_current": False, "keys": True, "revocations": True}
        assert answer.json() == {"status": "unavailable", **state, "sign_in": True, "draining": False}
        assert (await browser.get("/healthz")).status_code == 200
    assert HEAD != "0000"


@pytest.mark.parametrize(
    ("host", "public_url"),
    [("0.0.0.0", ""), ("::", "http://localhost:8000")],  # noqa: S104 -- to be refused before it is bound
)
def test_development_settings_are_refused_in_public(host: str, public_url: str, tmp_path: Path) -> None:
    """Beyond this machine nothing is served without https: exit 3, what to set, and nothing made."""
    variables = {"LATCHSTRING_PUBLIC_URL": public_url}
    run = latchstring("serve", "--host", host, "--port", "0", cwd=tmp_path, variables=variables)
    assert (run.returncode, run.stdout) == (3, "")
    assert "LATCHSTRING_PUBLIC_URL must be set to" in run.stderr
    assert not list(tmp_path.iterdir())


def test_a_port_in_use_exits_with_1(on_sqlite: dict[str, str], tmp_path: Path) -> None:
    """A sentence with the port; exit code 3 would blame the settings."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        run = latchstring("serve", "--port", port, cwd=tmp_path, variables=on_sqlite)
    assert (run.returncode, run.stdout) == (1, "")
    assert port in run.stderr
    assert run.stderr.startswith("error: ")


def _fails(_app: FastAPI) -> contextlib.AbstractAsyncContextManager[None]:
    raise OSError("some disk")


def serve_what_does_not_start() -> None:
    """Runs `latchstring serve` of an application whose start fails."""
    vars(server_module)["create_app"] = lambda: FastAPI(lifespan=_fails)
    serve()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_application_that_does_not_start_exits_with_1(
    workers: str, on_sqlite: dict[str, str], tmp_path: Path
) -> None:
    """The code for that is 3 with uvicorn, by which we would blame the settings."""
    words = ("latchstring", "--port", "0", "--workers", workers)
    run = forked(serve_what_does_not_start, *words, cwd=tmp_path, variables=on_sqlite)
    assert run.returncode == 1
    assert re.fullmatch(r"error: .* the log above says why", run.stderr.splitlines()[-1])


def test_a_database_that_is_away_at_the_start_exits_with_1(tmp_path: Path) -> None:
    """Translations instead of a traceback, and the URL's password is not among them."""
    url = "postgresql://ada:lovelace@127.0.0.1:1/auth"
    variables = {"LATCHSTRING_DATABASE_URL": url, "LATCHSTRING_SECRET": SECRET}
    run = latchstring("serve", "--port", "0", cwd=tmp_path, variables=variables)
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith("error: ")
    assert "database" in run.stderr
    assert "lovelace" not in run.stderr


def test_what_a_server_says_holds_no_secret(tmp_path: Path) -> None:
    """Translations and logs of a whole visit name no address, no password, no token and no secret."""
    variables = {**QUICK, "LATCHSTRING_SECRET": SECRET}
    with ServerProcess(tmp_path, variables=variables) as server, server.client() as browser:
        browser.post("/api/auth/register", json=registration())
        browser.post("/api/auth/login", json=credentials(password="not the password"))
        browser.post("/api/auth/login", content=json.dumps(credentials()) + "}")
        tokens = list(browser.cookies.values())
        server.stop()
        said = server.first_line + server.words()
    assert not any(secret in said for secret in [*tokens, SECRET, PASSWORD, "not the password", "ada@example.com"])
