"""Servers as processes, which tests and drills start: where a start or a test fails, nothing goes on (S3)."""

import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from tests.support.hang import HANG_SECONDS, sleep_until
from tests.support.postgres import OwnPostgres
from tests.support.process import FORKED, ServerProcess

SERVER_WITH_A_WORKER = """
import os, subprocess, sys, time
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
with open("pids being written", "w") as file:
    file.write(f"{os.getpid()} {worker.pid}")
os.rename("pids being written", "pids")
"""
SAYS_AN_ADDRESS = "print('serves at http://127.0.0.1:9', flush=True)\n"  # the port of `discard`: nobody answers there
GOES_ON = "time.sleep(600)\n"


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(
    ("rest", "words", "start_seconds"),
    [
        pytest.param("sys.exit(3)", "ended with 3", 120, id="ends without a word, its worker does not"),
        pytest.param(SAYS_AN_ADDRESS + "sys.exit(3)", "ended with 3", 120, id="ends before it is ready"),
        pytest.param(GOES_ON, "said nothing", 2, id="says nothing"),
        pytest.param(SAYS_AN_ADDRESS + GOES_ON, "was not ready", 2, id="is never ready"),
    ],
)
def test_where_a_start_fails_nothing_is_left_running(
    tmp_path: Path, rest: str, words: str, start_seconds: float
) -> None:
    """S3: neither the server nor its workers, in whichever way it fails; the error tells which."""
    command, said = (sys.executable, "-c", SERVER_WITH_A_WORKER + rest), ""
    # On a busy machine it may take longer until there is a worker: then it is given more time.
    while words not in said or not (tmp_path / "pids").exists():
        with pytest.raises(RuntimeError) as failure:
            ServerProcess(tmp_path, command=command, start_seconds=start_seconds)
        said, start_seconds = str(failure.value), start_seconds * 2
        assert start_seconds < 300, said
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    # What was killed is gone a moment later.
    sleep_until(lambda: not any(map(is_running, pids)))


def _die_beside_a_hung_postgres(folder: Path) -> None:
    server = OwnPostgres()
    server.hang()
    assert server._server is not None
    started = psutil.Process(server._server.pid)
    family = [started, *started.children(recursive=True)]
    (folder / "pids").write_text(" ".join(str(each.pid) for each in family))
    (folder / "home").write_text(str(server.data_directory.parent))
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_hung_postgres_ends_with_the_tests(tmp_path: Path) -> None:
    """A test process that is killed between `hang` and `go_on` can no longer let it go on."""
    process = FORKED.Process(target=_die_beside_a_hung_postgres, args=(tmp_path,))
    process.start()
    process.join(2 * HANG_SECONDS)
    assert process.exitcode == -signal.SIGKILL
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) > 1
    sleep_until(lambda: not any(map(is_running, pids)))
    sleep_until(lambda: not Path((tmp_path / "home").read_text()).exists())
