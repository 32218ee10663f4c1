"""The ready server as a stranger runs it: `latchstring serve`, real processes, a real socket."""

import contextlib
import multiprocessing
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx2

from latchstring.apps.cli import main as command_line
from tests.support.hang import HANG_SECONDS

COMMAND = str(Path(sys.executable).with_name("latchstring"))
# A start takes a second, and on a busy machine ten.
_START_SECONDS = 2 * HANG_SECONDS
_STOP_SECONDS = HANG_SECONDS
_COMMAND_SECONDS = 2 * HANG_SECONDS

NO_LIMITS = {"LATCHSTRING_LIMITS": "off"}
CHEAP_HASH = {"LATCHSTRING_PASSWORD_HASH_MEMORY_KIB": "8", "LATCHSTRING_PASSWORD_HASH_PASSES": "1"}


def clean_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Returns this process's environment without any setting of ours, and with `variables`."""
    ours = ("LATCHSTRING_", "JWT_", "POSTGRES_", "ACCESS_TOKEN_", "REFRESH_TOKEN_", "CLIENT_ORIGIN")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)} | dict(variables)


# Most of a command's time goes into imports. A process that has done them is forked for each: a process of its own all
# the same, with a folder, an environment and an end of its own.
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(
    ["latchstring.apps.cli.app", "latchstring.migrations", "alembic.command", "aiosqlite", "psycopg", __name__]
)


def latchstring(
    *arguments: str, cwd: Path, variables: Mapping[str, str] | None = None, stdin: str = ""
) -> "subprocess.CompletedProcess[str]":
    """Runs one command to its end."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("stdin", "stdout", "stderr")]
        files[0].write_text(stdin)
        process = FORKED.Process(target=_command, args=(arguments, cwd, clean_environment(variables or {}), files))
        process.start()
        process.join(_COMMAND_SECONDS)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(arguments, _COMMAND_SECONDS)
        said = [file.read_text() for file in files[1:]]
        return subprocess.CompletedProcess(arguments, process.exitcode, *said)


def _command(arguments: Sequence[str], cwd: Path, environment: Mapping[str, str], files: Sequence[Path]) -> None:
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    for number, (file, flags) in enumerate(zip(files, (os.O_RDONLY, *[os.O_WRONLY | os.O_CREAT] * 2), strict=True)):
        os.dup2(os.open(file, flags), number)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 -- for as long as the process lives
    sys.argv = ["latchstring", *arguments]
    command_line()


class ServerProcess:
    """`latchstring serve` in a working folder of its own, on a free port; ready when the block begins.

    `command` may name another program that takes the same options and says its address in the same way. Where it does
    not become ready, nothing of it is left running.
    """

    def __init__(
        self,
        cwd: Path,
        *,
        variables: Mapping[str, str] | None = None,
        workers: int = 1,
        arguments: tuple[str, ...] = (),
        command: tuple[str, ...] = (COMMAND, "serve"),
        start_seconds: float = _START_SECONDS,
    ) -> None:
        self._start_seconds = start_seconds
        self._words = tempfile.TemporaryFile("w+")  # noqa: SIM115 -- closed by stop()
        self._process = subprocess.Popen(
            [*command, "--port", "0", "--workers", str(workers), *arguments],
            cwd=cwd,
            env=clean_environment(variables or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._words,
            text=True,
            start_new_session=True,
        )
        try:
            deadline = time.monotonic() + start_seconds
            self.first_line = self._read_first_line(deadline)
            self.url = self.first_line.split()[-1]
            self._wait_until_ready(deadline)
        except BaseException:
            self.kill()
            self._close()
            raise

    @property
    def pid(self) -> int:
        """The process that was started; with several workers, their parent."""
        return self._process.pid

    def client(self) -> httpx2.Client:
        """Returns a client with cookies and connections of its own."""
        return httpx2.Client(base_url=self.url, timeout=HANG_SECONDS)

    def words(self) -> str:
        """Returns what was said on stderr so far."""
        self._words.seek(0)
        return self._words.read()

    def stop(self) -> int:
        """Asks it to end, as a terminal or a service manager does, and returns its exit code."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
        return self._process.returncode

    def kill(self) -> None:
        """Ends it and its workers at once, with no chance to finish anything."""
        # Where it has ended already, its workers may go on: the group is theirs as well.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(_STOP_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        self.kill()  # whatever outlived its parent
        self._close()

    def _close(self) -> None:
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._words.close()

    def _read_first_line(self, deadline: float) -> str:
        assert self._process.stdout is not None
        while time.monotonic() < deadline:
            has_ended = self._process.poll() is not None
            if select.select([self._process.stdout], [], [], 0.1)[0]:
                line = self._process.stdout.readline()
                if line:
                    return line
            # A worker that outlives its parent keeps the pipe open: an end of file may never come.
            if has_ended:
                raise self._failure(f"ended with {self._process.returncode}")
        raise self._failure(f"said nothing for {self._start_seconds:.0f} s")

    def _wait_until_ready(self, deadline: float) -> None:
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise self._failure(f"ended with {self._process.returncode}")
            try:
                if httpx2.get(f"{self.url}/readyz", timeout=HANG_SECONDS).status_code == httpx2.codes.OK:
                    return
            except httpx2.TransportError:
                pass
            time.sleep(0.02)
        raise self._failure(f"was not ready after {self._start_seconds:.0f} s")

    def _failure(self, what: str) -> RuntimeError:
        return RuntimeError(f"latchstring serve {what}:\n{self.words()}")
