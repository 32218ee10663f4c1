"""What the library costs the application that has it: its import, a route that is not guarded, the ASGI guard.

No server takes part: applications are called in this process, in turn with and without, and processor time is compared.
"""

import contextlib
import subprocess
import sys
import time
from collections.abc import AsyncIterator, MutableMapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from latchstring import Auth, testing
from tests.support.service import SECRET, cheap_settings

ROUNDS, REQUESTS, IMPORTS = 15, 5000, 9
_TIMED = "import time; began = time.process_time(); {}; print(time.process_time() - began)"
_HOST = "import fastapi, sqlalchemy.ext.asyncio"
_US = "from latchstring import Auth, CurrentUser"


def import_seconds(*, times: int = IMPORTS) -> list[float]:
    """Return what `Auth` adds to an application that imports FastAPI and SQLAlchemy, each time in new processes."""
    return [_imported(f"{_HOST}; {_US}") - _imported(_HOST) for _ in range(times)]


def import_seconds_alone() -> list[float]:
    """Return what it adds to one that imports FastAPI and nothing else."""
    return [_imported(f"import fastapi; {_US}") - _imported("import fastapi") for _ in range(IMPORTS)]


def _imported(what: str) -> float:
    done = subprocess.run([sys.executable, "-c", _TIMED.format(what)], capture_output=True, text=True, check=True)
    return float(done.stdout)


@contextlib.asynccontextmanager
async def signed_in(folder: Path) -> AsyncIterator[tuple[Auth, str]]:
    """Give an Auth that runs, and an access token."""
    auth = Auth.from_settings(cheap_settings(f"sqlite:///{folder}/library.db"))
    async with auth.running():
        yield auth, (await testing.signed_in(auth, "ada@example.com")).tokens.access


def hosts(folder: Path) -> tuple[FastAPI, FastAPI]:
    """Return an application without us, and the same with us installed before its route."""
    bare, installed = FastAPI(), FastAPI()
    Auth(f"sqlite:///{folder}/never.db", secret=SECRET).install(installed)
    for app in (bare, installed):

        @app.get("/open")
        async def read() -> str:
            return "for everyone"

    return bare, installed


async def plain(_scope: Scope, _receive: Receive, send: Send) -> None:
    """Answer as little as an application can."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"for your eyes only"})


async def microseconds(app: ASGIApp, path: str, token: str = "", *, times: int = REQUESTS) -> float:
    """Return the processor time of one request of many."""
    headers = _headers(token)
    began = time.process_time()
    for _ in range(times):
        await app(_request(path, headers), _receive, _send)
    return (time.process_time() - began) / times * 1e6


async def requested(app: ASGIApp, path: str, token: str = "") -> None:
    """Make one such request."""
    await app(_request(path, _headers(token)), _receive, _send)


def _headers(token: str) -> list[tuple[bytes, bytes]]:
    headers = [(b"host", b"localhost"), (b"user-agent", b"Mozilla/5.0"), (b"sec-fetch-site", b"same-origin")]
    if token:
        headers.append((b"cookie", f"access_token={token}".encode()))
    return headers


def _request(path: str, headers: list[tuple[bytes, bytes]]) -> Scope:
    return {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": headers,
        "root_path": "",
        "scheme": "http",
        "http_version": "1.1",
        "asgi": {"version": "3.0"},
        "server": ("localhost", 80),
        "client": ("127.0.0.1", 1),
    }


async def _receive() -> MutableMapping[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _send(message: MutableMapping[str, Any]) -> None:
    assert message.get("status", 200) == 200
