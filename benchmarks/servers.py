"""A server as a process: started on the cores it may use, timed until it is ready, weighed while it runs."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from tests.support.process import COMMAND, clean_environment

ROOT = Path(__file__).resolve().parents[1]
ALL_CORES = tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()
SERVER_CORE, LOAD_CORE, TWO_CORES = ALL_CORES[:1], ALL_CORES[1:2] or ALL_CORES[:1], ALL_CORES[:2]

SERVE = (COMMAND, "serve")
_START_SECONDS = 60
_STOP_SECONDS = 20


def uvicorn(app: str, *options: str) -> Sequence[str]:
    """Return the command that serves `app` with the software and the options that `latchstring serve` uses."""
    return (
        *(sys.executable, "-m", "uvicorn", app, "--app-dir", str(ROOT), "--loop", "uvloop", "--http", "httptools"),
        *("--no-access-log", "--no-server-header", "--no-proxy-headers", "--log-level", "warning", *options),
    )


@contextlib.contextmanager
def on_cores(cores: Collection[int]) -> Iterator[None]:
    """Keep this thread, and what it starts meanwhile, on these cores, where the system knows how."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Server:
    """One process that serves; ready when the block begins."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        home: Path,
        ready: str,
        variables: Mapping[str, str] | None = None,
        cores: Collection[int] = SERVER_CORE,
    ) -> None:
        self.port = _free_port()
        self._log = home / "server.log"
        began = time.perf_counter()
        with self._log.open("wb") as log, on_cores(cores):
            self._process = psutil.Popen(
                [*command, "--port", str(self.port)],
                cwd=home,
                env=clean_environment(variables or {}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            self._wait_until_ready(ready)
        except BaseException:
            self.stop()
            raise
        self.start_seconds = time.perf_counter() - began

    @property
    def cpu_seconds(self) -> float:
        """The processor time used so far, threads included."""
        times = self._process.cpu_times()
        return float(times.user + times.system)

    @property
    def resident_mib(self) -> float:
        """The memory it holds."""
        return float(self._process.memory_info().rss) / 2**20

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Let it do nothing at all meanwhile."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[bytes, list[str]]:
        """Return the body of an answer, and the cookies it sets, each as `name=value`.

        Raises:
            RuntimeError: the answer is a refusal.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            answer = connection.getresponse()
            content = answer.read()
            if answer.status >= http.HTTPStatus.BAD_REQUEST:
                raise RuntimeError(f"{method} {path}: {answer.status} {content!r}")
            return content, [line.partition(";")[0] for line in answer.headers.get_all("set-cookie", [])]

    def stop(self) -> None:
        """End it, as a service manager does."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_SECONDS)
            except psutil.TimeoutExpired:
                self._process.kill()
                self._process.wait(_STOP_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _wait_until_ready(self, path: str) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            with contextlib.suppress(OSError, http.client.HTTPException, RuntimeError):
                self.ask("GET", path)
                return
            time.sleep(0.002)
        raise RuntimeError(f"the server was never ready:\n{self._log.read_text(errors='replace')}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
