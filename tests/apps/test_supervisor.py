"""T14 and T15: several workers as real processes. They stop without a loss, and none ends without a word."""

import contextlib
import errno
import json
import multiprocessing
import os
import resource
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.util import register_after_fork
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import httpx2
import psutil
import pytest
import uvicorn

from latchstring.apps import supervisor
from latchstring.apps.supervisor import cause_of, restart_delay
from latchstring.apps.worker import READY
from tests.support.hang import HANG_SECONDS, sleep_until
from tests.support.process import CHEAP_HASH, NO_TLS, ServerProcess, forked, serve
from tests.support.service import SECRET

LONG_PAUSE = {"LATCHSTRING_SHUTDOWN_DRAIN_SECONDS": "600"}


@pytest.fixture
def variables(sqlite_template: Path, tmp_path: Path) -> dict[str, str]:
    """The variables of an installation that is ready."""
    shutil.copy(sqlite_template, tmp_path / "prepared.db")
    return {**CHEAP_HASH, "LATCHSTRING_DATABASE_URL": "sqlite:///prepared.db", "LATCHSTRING_SECRET": SECRET}


def workers_of(server: ServerProcess) -> set[int]:
    """Returns the processes that have the port, without their parent; with one worker it is the server itself."""
    children = psutil.Process(server.pid).children()
    return {child.pid for child in children if is_running(child.pid)} or {server.pid}


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def lines(server: ServerProcess, event: str) -> list[dict[str, Any]]:
    """Returns the lines of the log with that event."""
    parsed = [json.loads(line) for line in server.words().splitlines() if line.startswith("{") and line.endswith("}")]
    return [line for line in parsed if line.get("event") == event]


def readiness(server: ServerProcess) -> tuple[int, bool]:
    """Returns what `/readyz` says to somebody new."""
    response = httpx2.get(f"{server.url}/readyz", verify=NO_TLS, timeout=HANG_SECONDS)
    return response.status_code, response.json()["draining"]


def is_free(server: ServerProcess) -> bool:
    """Tells whether another process could listen on the server's port."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            other.bind(("127.0.0.1", urlsplit(server.url).port or 0))
            other.listen()
        except OSError:
            return False
    return True


# --- stopping ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def ready(
    folder: Path, variables: dict[str, str], *, workers: int = 2, program: Callable[[], None] = serve
) -> Iterator[tuple[ServerProcess, socket.socket]]:
    """Gives a server all of whose workers serve, and the service manager's socket, which has been told so."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(folder / "notify"))
        manager.settimeout(HANG_SECONDS)
        variables = variables | {"NOTIFY_SOCKET": str(folder / "notify")}
        with ServerProcess(folder, variables=variables, workers=workers, program=program) as server:
            assert manager.recv(100) == b"READY=1"
            assert len(workers_of(server)) == workers
            yield server, manager


@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_drains_and_ctrl_c_does_not_wait(workers: int, variables: dict[str, str], tmp_path: Path) -> None:
    """T14: 503 with `draining` for the whole pause, told to the service manager; SIGINT ends the pause, exit code 0."""
    with ready(tmp_path, variables | LONG_PAUSE, workers=workers) as (server, manager):
        assert readiness(server) == (200, False)
        os.kill(server.pid, signal.SIGTERM)
        assert manager.recv(100) == b"STOPPING=1"
        sleep_until(lambda: len(lines(server, "server.draining")) == workers)
        for _ in range(4 * workers):
            assert readiness(server) == (503, True)
        os.kill(server.pid, signal.SIGTERM)
        assert readiness(server) == (503, True)
        os.kill(server.pid, signal.SIGINT)
        assert server.stop() == 0
        assert is_free(server)
        assert lines(server, "worker.exited") == []
        manager.settimeout(0)
        with pytest.raises(BlockingIOError):
            manager.recv(100)


def test_a_worker_that_stops_alone_drains_and_is_replaced(variables: dict[str, str], tmp_path: Path) -> None:
    """SIGTERM to one worker: the others serve on, its place is filled, and the log says so without alarm."""
    short_pause = {"LATCHSTRING_SHUTDOWN_DRAIN_SECONDS": "0.01"}
    with ready(tmp_path, variables | short_pause) as (server, _):
        stopped = min(workers_of(server))
        os.kill(stopped, signal.SIGTERM)
        sleep_until(lambda: lines(server, "worker.exited"))
        sleep_until(lambda: len(workers_of(server)) == 2)
        assert stopped not in workers_of(server)
        assert readiness(server) == (200, False)
        (line,) = lines(server, "worker.exited")
        assert (line["level"], line["cause"], line["worker"]) == ("INFO", "exit code 0", stopped)
        assert len(lines(server, "server.draining")) == 1


# --- workers that end -------------------------------------------------------------------------------------------------


def test_a_killed_worker_is_logged_and_replaced(variables: dict[str, str], tmp_path: Path) -> None:
    """T15: one line with process and signal, and another worker at once."""
    with ready(tmp_path, variables) as (server, _):
        killed = min(workers_of(server))
        os.kill(killed, signal.SIGKILL)
        sleep_until(lambda: lines(server, "worker.exited"))
        sleep_until(lambda: len(workers_of(server)) == 2)
        assert killed not in workers_of(server)
        assert readiness(server) == (200, False)
        assert server.stop() == 0
        (line,) = lines(server, "worker.exited")
    assert (line["level"], line["cause"], line["worker"], line["restart_seconds"]) == ("ERROR", "SIGKILL", killed, 0)
    assert str(killed) in line["message"]


def serve_impatiently() -> None:
    """Runs `latchstring serve`, whose workers have 2 s to answer, and not 10."""
    supervisor.PING_SECONDS = 0.2
    serve()


def test_a_hung_worker_is_logged_and_replaced(variables: dict[str, str], tmp_path: Path) -> None:
    """T15: one line, and the process is gone, though it can't notice a signal."""
    with ready(tmp_path, variables, program=serve_impatiently) as (server, _):
        hung = min(workers_of(server))
        os.kill(hung, signal.SIGSTOP)
        sleep_until(lambda: hung in {line["worker"] for line in lines(server, "worker.hung")})
        sleep_until(lambda: not is_running(hung) and len(workers_of(server)) == 2)
        sleep_until(lambda: readiness(server) == (200, False))
        assert hung not in {line["worker"] for line in lines(server, "worker.exited")}


def serve_from_clean_forks() -> None:
    """Runs `latchstring serve`; a worker that is forked gives up the parent's ends, which no started one ever has."""
    pipe = multiprocessing.Pipe

    def clean_pipe() -> tuple[Connection, Connection]:
        ours, theirs = pipe()
        register_after_fork(ours, Connection.close)
        return ours, theirs

    multiprocessing.Pipe = clean_pipe  # type: ignore[assignment]
    serve()


def test_workers_end_with_their_parent_and_leave_the_port(variables: dict[str, str], tmp_path: Path) -> None:
    """T15: a parent that was killed can tell nobody. They complete their requests, and do not wait out the pause."""
    with ready(tmp_path, variables | LONG_PAUSE, program=serve_from_clean_forks) as (server, _):
        family = workers_of(server)
        os.kill(server.pid, signal.SIGKILL)
        sleep_until(lambda: not any(map(is_running, family)))
        assert is_free(server)
        assert {"worker.orphaned"} == {line["event"] for line in lines(server, "worker.orphaned")}


# --- workers that do not start ----------------------------------------------------------------------------------------


def _cannot_start(_config: uvicorn.Config, _listener: socket.socket, _control: Connection, _seconds: float) -> None:
    os._exit(3)


def _crashes(_config: uvicorn.Config, _listener: socket.socket, control: Connection, _seconds: float) -> None:
    control.send_bytes(READY)
    control.recv_bytes()
    os.kill(os.getpid(), signal.SIGSEGV)


def _serve_with(worker: Callable[..., None]) -> None:
    vars(supervisor)["run_worker"] = worker
    supervisor.PING_SECONDS = 0.01
    supervisor.restart_delay = lambda failures: failures / 1000
    serve()


def serve_what_cannot_start() -> None:
    """Runs `latchstring serve`, whose workers end before they serve."""
    _serve_with(_cannot_start)


def serve_what_crashes() -> None:
    """Runs `latchstring serve`, whose workers crash as soon as they serve."""
    _serve_with(_crashes)


@pytest.mark.parametrize(
    ("program", "most", "cause"), [(serve_what_cannot_start, 2, "exit code 3"), (serve_what_crashes, 100, "SIGSEGV")]
)
def test_workers_that_fail_again_and_again_end_the_server(
    program: Callable[[], None], most: int, cause: str, variables: dict[str, str], tmp_path: Path
) -> None:
    """Exit code 1 and a sentence: a service manager notices that, but not a port behind which nobody serves.

    How many crash first depends on whether another one serves at that moment, and so on the machine.
    """
    run = forked(program, "latchstring", "--port", "0", "--workers", "2", cwd=tmp_path, variables=variables)
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1].startswith("error: no worker can serve")
    assert "Traceback" not in run.stderr
    causes = [json.loads(line)["cause"] for line in run.stderr.splitlines() if '"worker.exited"' in line]
    assert 1 <= len(causes) <= most
    assert set(causes) == {cause}


def serve_and_retry_at_once() -> None:
    """Runs `latchstring serve`, which does not wait between two tries to start a worker."""
    supervisor.restart_delay = lambda failures: failures / 1000
    serve()


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux takes descriptors from a running process")
def test_a_start_that_the_system_refuses_ends_nobody(variables: dict[str, str], tmp_path: Path) -> None:
    """No descriptor is left: the other worker serves on, and the place is filled as soon as there are some."""
    with ready(tmp_path, variables, program=serve_and_retry_at_once) as (server, _):
        soft, hard = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
        # Not less: the system also refuses to wait for more descriptors than that.
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (5, hard))
        killed, serving = sorted(workers_of(server))
        os.kill(killed, signal.SIGKILL)
        sleep_until(lambda: len(lines(server, "worker.start_failed")) > supervisor.FAILURES)
        assert workers_of(server) == {serving}
        assert readiness(server) == (200, False)
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (soft, hard))
        sleep_until(lambda: len(workers_of(server)) == 2)
        assert serving in workers_of(server)
        assert server.stop() == 0
        failed = lines(server, "worker.start_failed")
    assert {(line["level"], line["cause"]) for line in failed} == {("ERROR", "Too many open files")}
    delays = [line["restart_seconds"] for line in failed]
    assert delays == [each / 1000 for each in range(2, len(failed) + 2)]


class _NoProcessLeft(multiprocessing.process.BaseProcess):
    """A process that the system has no room for."""

    def start(self) -> None:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def serve_without_processes() -> None:
    """Runs `latchstring serve`, where no process can be started."""
    vars(supervisor)["PROCESSES"] = SimpleNamespace(Process=_NoProcessLeft)
    serve_and_retry_at_once()


def test_a_server_that_can_start_no_worker_ends(variables: dict[str, str], tmp_path: Path) -> None:
    """After as many tries as with workers that end by themselves."""
    run = forked(
        serve_without_processes, "latchstring", "--port", "0", "--workers", "2", cwd=tmp_path, variables=variables
    )
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1].startswith("error: no worker can serve")
    assert "Traceback" not in run.stderr
    assert run.stderr.count('"worker.start_failed"') == 2 * supervisor.FAILURES - 1


def test_each_replacement_waits_longer() -> None:
    """The first at once, and none longer than half a minute."""
    assert [restart_delay(failures) for failures in range(9)] == [0, 0, 1, 2, 4, 8, 16, 30, 30]


def test_a_cause_is_a_code_or_the_name_of_a_signal() -> None:
    """SIGKILL is what the kernel sends when memory runs out: operators search for it by name."""
    assert [cause_of(code) for code in (0, 3, -9, -15, -63)] == [
        "exit code 0",
        "exit code 3",
        "SIGKILL",
        "SIGTERM",
        "signal 63",
    ]
