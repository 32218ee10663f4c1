"""The example `examples/two_services`: an issuer and an API that only verifies, as two processes."""

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2

from tests.support.process import CHEAP_HASH, NO_LIMITS, ServerProcess, clean_environment, latchstring
from tests.support.service import credentials, registration

EXAMPLE = Path(__file__).parents[2] / "examples" / "two_services"


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


@contextlib.contextmanager
def orders(issuer: str, feed_token: str) -> Iterator[httpx2.Client]:
    """Starts the API by the README's words, on a free port; gives a client of it."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "--app-dir", str(EXAMPLE), "api:app", "--port", str(port)]
    environment = clean_environment({"ISSUER": issuer, "FEED_TOKEN": feed_token, "PYTHONDONTWRITEBYTECODE": "1"})
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with httpx2.Client(base_url=f"http://localhost:{port}", timeout=30) as client:
            deadline = time.monotonic() + 30
            while True:
                with contextlib.suppress(httpx2.TransportError):
                    client.get("/orders")
                    break
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield client
    finally:
        process.terminate()
        process.wait(20)


def becomes(client: httpx2.Client, token: str, *, status: int, within_seconds: float) -> None:
    """Asks with a token until the answer is as it should be."""
    began = time.monotonic()
    while client.get("/orders", headers={"Authorization": f"Bearer {token}"}).status_code != status:
        assert time.monotonic() - began < within_seconds
        time.sleep(0.02)


def test_the_example(tmp_path: Path) -> None:
    """A caller of one is a caller of the other; what ends at the issuer is over at the API within two seconds."""
    issuer = f"http://localhost:{(port := free_port())}"
    variables = {**CHEAP_HASH, **NO_LIMITS, "LATCHSTRING_PUBLIC_URL": issuer}
    with ServerProcess(tmp_path, variables=variables, arguments=("--port", str(port))) as server:
        made = latchstring("feed-token", "create", "orders", cwd=tmp_path, variables=variables)
        with orders(issuer, made.stdout.strip()) as api, server.client() as browser:
            assert api.get("/orders").status_code == 401
            user = browser.post("/api/auth/register", json=registration())
            token = browser.cookies["access_token"]
            answer = api.get("/orders", headers={"Authorization": f"Bearer {token}"})
            assert answer.json() == {"orders_of": user.json()["id"]}
            assert browser.post("/api/auth/logout").status_code == 200
            becomes(api, token, status=401, within_seconds=2)

            token = browser.post("/api/auth/login", json=credentials()).cookies["access_token"]
            becomes(api, token, status=200, within_seconds=0.5)
            (key,) = browser.get("/.well-known/jwks.json").json()["keys"]
            ended = latchstring("keys", "retire", key["kid"], "--now", "--yes", cwd=tmp_path, variables=variables)
            assert ended.returncode == 0, ended.stderr
            becomes(api, token, status=401, within_seconds=2)

            token = browser.post("/api/auth/login", json=credentials()).cookies["access_token"]
            becomes(api, token, status=200, within_seconds=0.5)
            server.stop()
            becomes(api, token, status=200, within_seconds=0.5)
