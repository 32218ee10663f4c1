"""The ready server as a stranger runs it: `latchstring serve`, real processes, a real socket."""

import contextlib
import multiprocessing
import os
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx2
import pytest

from latchstring.apps import supervisor
from latchstring.apps.cli import main as command_line
from tests.support.hang import HANG_SECONDS

COMMAND = str(Path(sys.executable).with_name("latchstring"))
# A start takes a second, and on a busy machine ten.
_START_SECONDS = 2 * HANG_SECONDS
_STOP_SECONDS = HANG_SECONDS
_COMMAND_SECONDS = 2 * HANG_SECONDS
_LOOK_SECONDS = 0.02

_PRELOADED = [
    "latchstring.apps.cli.app",
    "latchstring.apps.server",
    "latchstring.foundation.web.pages.templates",
    "latchstring.migrations",
    "aiosqlite",
    "alembic.command",
    "alembic.config",
    "cryptography.hazmat.backends.openssl.backend",
    "fastapi.telemetry._runtime",
    "psycopg",
    "pydantic.v1",
    "pythonjsonlogger.json",
    "uvicorn.lifespan.on",
    "uvicorn.loops.uvloop",
]
"""What a server has imported by the time that it has answered; one that is not found is left to the server."""

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For clients of plain http: making a context of their own takes each longer than a request."""

NO_LIMITS = {"LATCHSTRING_LIMITS": "off"}
CHEAP_HASH = {"LATCHSTRING_PASSWORD_HASH_MEMORY_KIB": "8", "LATCHSTRING_PASSWORD_HASH_PASSES": "1"}


def clean_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Returns this process's environment without any setting of ours, and with `variables`; a server stops at once."""
    ours = ("LATCHSTRING_", "JWT_", "POSTGRES_", "ACCESS_TOKEN_", "REFRESH_TOKEN_", "CLIENT_ORIGIN")
    others = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return others | {"LATCHSTRING_SHUTDOWN_DRAIN_SECONDS": "0"} | dict(variables)


# Most of a command's time goes into imports. A process that has done them is forked for each: a process of its own all
# the same, with a folder, an environment and an end of its own.
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload([*_PRELOADED, __name__])


def end_forks() -> None:
    """Ends the process that is forked, so that its time, and that of its children, counts as the test run's."""
    forkserver._forkserver._stop()  # type: ignore[attr-defined]


def latchstring(
    *arguments: str, cwd: Path, variables: Mapping[str, str] | None = None, stdin: str = ""
) -> "subprocess.CompletedProcess[str]":
    """Runs one command to its end."""
    return forked(command_line, "latchstring", *arguments, cwd=cwd, variables=variables, stdin=stdin)


def run_pytest() -> None:
    """Runs pytest on what the command line names."""
    sys.exit(pytest.main(sys.argv[1:]))


def run_source() -> None:
    """Runs the Python source that the command line begins with, as `python -c` does."""
    exec(compile(sys.argv.pop(1), "<source>", "exec"), {"__name__": "__main__"})  # noqa: S102 -- a test's own


def forked(
    program: Callable[[], None], *words: str, cwd: Path, variables: Mapping[str, str] | None = None, stdin: str = ""
) -> "subprocess.CompletedProcess[str]":
    """Runs `program` with a command line to its end, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        files = _Files(Path(folder))
        files.stdin.write_text(stdin)
        process = FORKED.Process(target=_run, args=(program, words, cwd, clean_environment(variables or {}), files))
        process.start()
        process.join(_COMMAND_SECONDS)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(words, _COMMAND_SECONDS)
        said = [file.read_text() for file in (files.stdout, files.stderr)]
        return subprocess.CompletedProcess(words, process.exitcode, *said)


@dataclass(frozen=True)
class _Files:
    """What a process reads and writes instead of a terminal."""

    folder: Path

    @property
    def stdin(self) -> Path:
        return self.folder / "stdin"

    @property
    def stdout(self) -> Path:
        return self.folder / "stdout"

    @property
    def stderr(self) -> Path:
        return self.folder / "stderr"

    def take(self) -> None:
        """Makes them this process's own."""
        writing = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        for number, file in enumerate((self.stdin, self.stdout, self.stderr)):
            opened = os.open(file, writing if number else os.O_RDONLY | os.O_CREAT)
            os.dup2(opened, number)
            os.close(opened)
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 -- for as long as the process lives


def _run(
    program: Callable[[], None] | None,
    words: tuple[str, ...],
    cwd: Path,
    environment: Mapping[str, str],
    files: _Files,
) -> None:
    """Becomes what was asked for: `program`, called with `words`, or the program that the first of them names."""
    os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    files.take()
    if program is None:
        os.execv(words[0], words)  # noqa: S606 -- a test's own
    # The supervisor would start workers that import everything once more: four fifths of a server's start.
    supervisor.PROCESSES = multiprocessing.get_context("fork")
    sys.argv = list(words)
    program()


def serve() -> None:
    """Runs `latchstring serve`."""
    sys.argv.insert(1, "serve")
    command_line()


class StartedTooLateError(RuntimeError):
    """A server that neither became ready nor ended: the machine may have too much else to do."""


class ServerProcess:
    """`latchstring serve` in a working folder of its own, on a free port; ready when the block begins.

    It is forked from a process that has imported what it needs, and so are its workers. Another `program` that takes
    the same options and says its address in the same way may be called instead, or a `command` run, such as
    `(COMMAND, "serve")`: what a stranger types. Where it does not become ready, nothing of it is left running.
    """

    def __init__(
        self,
        cwd: Path,
        *,
        variables: Mapping[str, str] | None = None,
        workers: int = 1,
        arguments: tuple[str, ...] = (),
        program: Callable[[], None] = serve,
        command: tuple[str, ...] = (),
        start_seconds: float = _START_SECONDS,
    ) -> None:
        self._start_seconds = start_seconds
        self._folder = tempfile.TemporaryDirectory()
        self._files = _Files(Path(self._folder.name))
        words = (*(command or ("latchstring",)), "--port", "0", "--workers", str(workers), *arguments)
        self._process = FORKED.Process(
            target=_run,
            args=(None if command else program, words, cwd, clean_environment(variables or {}), self._files),
        )
        self._process.start()
        try:
            deadline = time.monotonic() + start_seconds
            self.first_line = self._read_first_line(deadline)
            self.url = self.first_line.split()[-1]
            self._wait_until_ready(deadline)
        except BaseException:
            self.kill()
            self._folder.cleanup()
            raise

    @property
    def pid(self) -> int:
        """The process that was started; with several workers, their parent."""
        assert self._process.pid is not None
        return self._process.pid

    def client(self) -> httpx2.Client:
        """Returns a client with cookies and connections of its own."""
        return httpx2.Client(base_url=self.url, timeout=HANG_SECONDS, verify=NO_TLS)

    def words(self) -> str:
        """Returns what was said on stderr so far."""
        return self._files.stderr.read_text() if self._files.stderr.exists() else ""

    def stop(self) -> int:
        """Asks it to end, as a terminal or a service manager does, and returns its exit code."""
        self._process.terminate()
        self._process.join(_STOP_SECONDS)
        if self._process.exitcode is None:
            self.kill()
        assert self._process.exitcode is not None
        return self._process.exitcode

    def kill(self) -> None:
        """Ends it and its workers at once, with no chance to finish anything."""
        # Where it has ended already, its workers may go on: the group is theirs as well.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.kill()  # before it has a group of its own
        self._process.join(_STOP_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        self.kill()  # whatever outlived its parent
        self._folder.cleanup()

    def _read_first_line(self, deadline: float) -> str:
        while time.monotonic() < deadline:
            has_ended = self._process.exitcode is not None
            said = self._files.stdout.read_text() if self._files.stdout.exists() else ""
            if "\n" in said:
                return said[: said.index("\n") + 1]
            if has_ended:
                raise self._failure(f"ended with {self._process.exitcode}")
            time.sleep(_LOOK_SECONDS)
        raise StartedTooLateError(str(self._failure(f"said nothing for {self._start_seconds:.0f} s")))

    def _wait_until_ready(self, deadline: float) -> None:
        with self.client() as client:
            while time.monotonic() < deadline:
                if self._process.exitcode is not None:
                    raise self._failure(f"ended with {self._process.exitcode}")
                with contextlib.suppress(httpx2.TransportError):
                    if client.get("/readyz").status_code == httpx2.codes.OK:
                        return
                time.sleep(_LOOK_SECONDS)
        raise StartedTooLateError(str(self._failure(f"was not ready after {self._start_seconds:.0f} s")))

    def _failure(self, what: str) -> RuntimeError:
        return RuntimeError(f"latchstring serve {what}:\n{self.words()}")
