"""The example `examples/two_services`: an issuer and an API that only verifies, as two processes."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import httpx2

from tests.support.hang import HANG_SECONDS, sleep_until
from tests.support.process import CHEAP_HASH, NO_LIMITS, NO_TLS, ServerProcess, latchstring
from tests.support.served import EXAMPLES, free_port, served
from tests.support.service import credentials, registration


@contextlib.contextmanager
def orders(issuer: str, feed_token: str, cwd: Path) -> Iterator[httpx2.Client]:
    """Starts the API by the README's words, on a free port; gives a client of it."""
    variables = {"ISSUER": issuer, "FEED_TOKEN": feed_token}
    with (
        served(EXAMPLES / "two_services", "api:app", cwd=cwd, variables=variables) as address,
        httpx2.Client(base_url=address, timeout=HANG_SECONDS, verify=NO_TLS) as client,
    ):
        yield client


def becomes(client: httpx2.Client, token: str, *, status: int) -> None:
    """Asks with a token until the answer is as it should be."""
    headers = {"Authorization": f"Bearer {token}"}
    sleep_until(lambda: client.get("/orders", headers=headers).status_code == status)


def test_the_example(tmp_path: Path) -> None:
    """A caller of one is a caller of the other; what ends at the issuer is soon over at the API."""
    issuer = f"http://localhost:{(port := free_port())}"
    variables = {**CHEAP_HASH, **NO_LIMITS, "LATCHSTRING_PUBLIC_URL": issuer}
    with ServerProcess(tmp_path, variables=variables, arguments=("--port", str(port))) as server:
        made = latchstring("feed-token", "create", "orders", cwd=tmp_path, variables=variables)
        with orders(issuer, made.stdout.strip(), tmp_path) as api, server.client() as browser:
            assert api.get("/orders").status_code == 401
            user = browser.post("/api/auth/register", json=registration())
            token = browser.cookies["access_token"]
            answer = api.get("/orders", headers={"Authorization": f"Bearer {token}"})
            assert answer.json() == {"orders_of": user.json()["id"]}
            assert browser.post("/api/auth/logout").status_code == 200
            becomes(api, token, status=401)

            token = browser.post("/api/auth/login", json=credentials()).cookies["access_token"]
            becomes(api, token, status=200)
            (key,) = browser.get("/.well-known/jwks.json").json()["keys"]
            ended = latchstring("keys", "retire", key["kid"], "--now", "--yes", cwd=tmp_path, variables=variables)
            assert ended.returncode == 0, ended.stderr
            becomes(api, token, status=401)

            token = browser.post("/api/auth/login", json=credentials()).cookies["access_token"]
            becomes(api, token, status=200)
            server.stop()
            becomes(api, token, status=200)
