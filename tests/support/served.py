"""A host application at a real address: uvicorn in a process of its own, by the words of an example's README."""

import contextlib
import os
import socket
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx2
import uvicorn

from tests.support.hang import HANG_SECONDS
from tests.support.process import FORKED, clean_environment

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
    arguments = ("--app-dir", str(folder), application, "--port", str(port))
    words = cwd / "words"
    # Forked from a process that has imported the library: its imports take longer than the rest of a start.
    process = FORKED.Process(target=_uvicorn, args=(arguments, cwd, clean_environment(variables), words))
    process.start()
    try:
        deadline = time.monotonic() + _START_SECONDS
        with httpx2.Client(base_url=f"http://localhost:{port}", timeout=5) as client:
            while True:
                with contextlib.suppress(httpx2.TransportError):
                    client.get("/.well-known/jwks.json")
                    break
                if process.exitcode is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{application} did not start:\n{words.read_text()}")
                time.sleep(0.02)
        yield f"http://localhost:{port}"
    finally:
        process.terminate()
        process.join(_STOP_SECONDS)
        if process.exitcode is None:
            process.kill()
            process.join(_STOP_SECONDS)


def _uvicorn(arguments: tuple[str, ...], cwd: Path, environment: Mapping[str, str], words: Path) -> None:
    """Becomes `python -W error -m uvicorn`."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    with words.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    warnings.simplefilter("error")
    sys.dont_write_bytecode = True
    sys.argv = ["uvicorn", *arguments]
    uvicorn.main()
