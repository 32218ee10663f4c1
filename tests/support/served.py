"""A host application at a real address: uvicorn in a process of its own, by the words of an example's README."""

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx2

from tests.support.hang import HANG_SECONDS
from tests.support.process import clean_environment

EXAMPLES = Path(__file__).parents[2] / "examples"
_START_SECONDS, _STOP_SECONDS = 2 * HANG_SECONDS, HANG_SECONDS


def free_port() -> int:
    """Returns a port that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


@contextlib.contextmanager
def served(folder: Path, application: str, *, cwd: Path, variables: Mapping[str, str]) -> Iterator[str]:
    """Serves `application` of a folder, as `uvicorn --app-dir folder application` does; gives its address."""
    port = free_port()
    command = [sys.executable, "-W", "error", "-m", "uvicorn", "--app-dir", str(folder), application]
    environment = clean_environment({**variables, "PYTHONDONTWRITEBYTECODE": "1"})
    with (cwd / "words").open("w+") as words:
        process = subprocess.Popen(
            [*command, "--port", str(port)], cwd=cwd, env=environment, stdout=words, stderr=words
        )
        try:
            deadline = time.monotonic() + _START_SECONDS
            while True:
                with contextlib.suppress(httpx2.TransportError):
                    httpx2.get(f"http://localhost:{port}/.well-known/jwks.json", timeout=5)
                    break
                if process.poll() is not None or time.monotonic() > deadline:
                    words.seek(0)
                    raise RuntimeError(f"{application} did not start:\n{words.read()}")
                time.sleep(0.02)
            yield f"http://localhost:{port}"
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(_STOP_SECONDS)
