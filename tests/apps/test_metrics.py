"""The metrics port of `latchstring serve`: one scrape speaks for all workers, whatever becomes of them."""

import os
import re
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import psutil
import pytest

from latchstring.apps.cli import main as command_line
from tests.journeys.test_workers import client_of_each_worker, worker_of
from tests.support.backends import ON_SQLITE
from tests.support.hang import HANG_SECONDS, sleep_until
from tests.support.metrics import Samples, samples_of
from tests.support.process import CHEAP_HASH, COMMAND, NO_LIMITS, ServerProcess, forked, latchstring
from tests.support.service import SECRET, credentials, registration

SIGN_INS = 'latchstring_sign_ins_total{method="pwd",outcome="succeeded"}'


@pytest.fixture
def variables(database_url: str, tmp_path: Path) -> dict[str, str]:
    """The variables of a server with a metrics port, on a database that is prepared."""
    return {
        **CHEAP_HASH,
        **NO_LIMITS,
        "LATCHSTRING_DATABASE_URL": database_url,
        "LATCHSTRING_SECRET": SECRET,
        "LATCHSTRING_METRICS_PORT": "0",
        "TMPDIR": str(tmp_path),  # a forked process leaves what its last steps would remove
    }


def address_of(server: ServerProcess) -> str:
    """Returns the URL of a server's metrics, as it says it."""
    found = re.search(r"metrics are at (\S+)", server.words())
    assert found is not None, server.words()
    return found[1]


def scrape(server: ServerProcess) -> Samples:
    """Returns what a server's metrics say."""
    response = httpx2.get(address_of(server), timeout=HANG_SECONDS)
    assert response.status_code == 200, response.text
    return samples_of(response.text)


def sign_in(client: httpx2.Client, times: int) -> None:
    """Signs in so many times, at the worker that holds the client's connection."""
    for _ in range(times):
        assert client.post("/api/auth/login", json=credentials()).status_code == 200
        client.cookies.clear()


@ON_SQLITE
def test_one_scrape_speaks_for_all_workers(variables: dict[str, str], tmp_path: Path) -> None:
    """Also after one was killed and another one has taken its place: no count is lost, and none is there twice."""
    with ServerProcess(tmp_path, variables=variables, workers=2) as server:
        with client_of_each_worker(server) as (one, other):
            one.post("/api/auth/register", json=registration())
            one.cookies.clear()
            sign_in(one, 3)
            sign_in(other, 4)
            samples = scrape(server)
            assert (samples[SIGN_INS], samples["latchstring_workers"]) == (7, 2)
            assert samples["latchstring_revocation_lag_seconds"] < HANG_SECONDS
            killed = worker_of(server, other)
            os.kill(killed, signal.SIGKILL)
            sleep_until(lambda: not psutil.pid_exists(killed) or psutil.Process(killed).status() == "zombie")
            assert scrape(server)[SIGN_INS] == 7
        sleep_until(lambda: scrape(server)["latchstring_workers"] == 2)
        with client_of_each_worker(server) as clients:
            for client in clients:
                sign_in(client, 1)
        assert scrape(server)[SIGN_INS] == 9
        assert server.stop() == 0


@ON_SQLITE
def test_the_port_is_its_own_and_on_loopback(variables: dict[str, str], tmp_path: Path) -> None:
    """Nothing but `/metrics` is there, nothing of it on the port that visitors reach, and nothing is left behind."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    variables |= {"TMPDIR": str(temporary)}
    # What a stranger types: a forked process ends without Python's own last steps.
    with (
        ServerProcess(tmp_path, variables=variables, command=(COMMAND, "serve")) as server,
        server.client() as visitor,
    ):
        (directory,) = temporary.glob("latchstring-metrics-*")
        assert directory.stat().st_mode & 0o777 == 0o700
        address = address_of(server)
        assert address.startswith("http://127.0.0.1:")
        assert visitor.get("/metrics").status_code == 404
        for path in ("/", "/metrics/", "/metricsx", "/api/auth/me"):
            assert httpx2.get(address.removesuffix("/metrics") + path, timeout=HANG_SECONDS).status_code == 404
        assert httpx2.post(address, timeout=HANG_SECONDS).status_code == 405
        response = httpx2.get(address, timeout=HANG_SECONDS)
        assert "server" not in response.headers
        with ThreadPoolExecutor(8) as threads:
            heard = threads.map(lambda _: httpx2.get(address, timeout=HANG_SECONDS).status_code, range(16))
            assert set(heard) == {200}
        assert server.stop() == 0
        assert list(temporary.iterdir()) == []


@ON_SQLITE
def test_it_listens_where_it_is_told(variables: dict[str, str], tmp_path: Path) -> None:
    """`LATCHSTRING_METRICS_HOST`, and a directory that is given stays, with its counters."""
    shared = tmp_path / "shared"
    variables |= {"LATCHSTRING_METRICS_HOST": "127.0.0.2", "LATCHSTRING_METRICS_DIR": str(shared)}
    for number in (1, 2):
        with ServerProcess(tmp_path, variables=variables) as server, server.client() as client:
            assert address_of(server).startswith("http://127.0.0.2:")
            client.post("/api/auth/register", json=registration(f"ada{number}@example.com"))
            assert scrape(server)['latchstring_events_total{event="user.registered"}'] == number
    assert list(shared.glob("*.values"))


@ON_SQLITE
def test_without_a_port_there_is_none(variables: dict[str, str], tmp_path: Path) -> None:
    """And nothing of prometheus_client in the server."""
    del variables["LATCHSTRING_METRICS_PORT"]
    with ServerProcess(tmp_path, variables=variables) as server:
        assert "metrics" not in server.words()
        maps = Path(f"/proc/{server.pid}/maps")
        if maps.exists():
            assert ".values" not in maps.read_text()


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@ON_SQLITE
def test_a_port_in_use_is_one_sentence(variables: dict[str, str], taken: int, tmp_path: Path) -> None:
    """Before any worker has started."""
    run = latchstring(
        "serve", "--port", "0", cwd=tmp_path, variables=variables | {"LATCHSTRING_METRICS_PORT": str(taken)}
    )
    assert (run.returncode, run.stdout) == (1, "")
    assert f"can't listen on 127.0.0.1, port {taken}" in run.stderr
    assert "Traceback" not in run.stderr


@ON_SQLITE
@pytest.mark.parametrize("port", ["65536", "-1", "nine"])
def test_a_port_that_is_none_is_one_sentence(port: str, variables: dict[str, str], tmp_path: Path) -> None:
    """By the variable's name, and without its value."""
    run = latchstring("serve", cwd=tmp_path, variables=variables | {"LATCHSTRING_METRICS_PORT": port})
    assert run.returncode == 3
    assert "LATCHSTRING_METRICS_PORT" in run.stderr
    assert "Traceback" not in run.stderr


def without_a_temporary_directory() -> None:
    """Runs a command where no temporary directory can be written, also as root."""
    tempfile.tempdir = "/dev/null/nowhere"
    command_line()


@ON_SQLITE
def test_without_a_temporary_directory_it_is_one_sentence(variables: dict[str, str], tmp_path: Path) -> None:
    """And a directory of one's own is the way out."""
    run = forked(
        without_a_temporary_directory, "latchstring", "serve", "--port", "0", cwd=tmp_path, variables=variables
    )
    assert (run.returncode, run.stdout) == (3, "")
    assert "LATCHSTRING_METRICS_DIR" in run.stderr
    assert "Traceback" not in run.stderr


def without_the_extra() -> None:
    """Runs a command where prometheus_client is not installed."""
    sys.modules["prometheus_client"] = None  # type: ignore[assignment]  # how Python says that there is none
    command_line()


@ON_SQLITE
def test_a_directory_that_others_may_write_to_is_refused(variables: dict[str, str], tmp_path: Path) -> None:
    """They could plant a link in place of a file of ours, and have another file overwritten."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    given = {**variables, "LATCHSTRING_METRICS_PORT": "0", "LATCHSTRING_METRICS_DIR": str(shared)}
    run = latchstring("serve", "--port", "0", cwd=tmp_path, variables=given)
    assert (run.returncode, run.stdout) == (3, "")
    assert run.stderr.splitlines()[-1] == (
        "error: LATCHSTRING_METRICS_DIR can't be used: other users may write to the metrics directory"
    )


def test_without_the_extra_the_server_does_not_start(variables: dict[str, str], tmp_path: Path) -> None:
    """Exit code 3, and what to install; without a port nobody misses it."""
    run = forked(without_the_extra, "latchstring", "serve", "--port", "0", cwd=tmp_path, variables=variables)
    assert (run.returncode, run.stdout) == (3, "")
    assert run.stderr == "error: metrics need prometheus-client: pip install 'latchstring[metrics]'\n"
    del variables["LATCHSTRING_METRICS_PORT"]
    run = forked(without_the_extra, "latchstring", "keys", "list", cwd=tmp_path, variables=variables)
    assert run.returncode == 0, run.stderr
