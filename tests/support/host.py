"""A host's own FastAPI application, with two guarded routes, into which the library is installed."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

import httpx2
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from latchstring import Auth, CallerDep, CurrentUser, Settings
from latchstring.testing import ManualClock
from tests.support.hang import HANG_SECONDS
from tests.support.service import registration

HOST = "http://localhost:9000"


class Report(BaseModel):
    title: str
    pages: int


def host_app() -> FastAPI:
    """Returns what a host wrote before it heard of us, and two guarded routes."""
    app = FastAPI()
    app.state.reports = []

    @app.get("/open")
    async def read_open() -> str:
        return "for everyone"

    @app.get("/reports")
    async def read_reports(caller: CallerDep) -> dict[str, object]:
        return {"for": str(caller.user_id), "methods": caller.methods}

    @app.post("/reports")
    async def write_report(report: Report, caller: CallerDep) -> int:
        app.state.reports.append(report)
        return len(app.state.reports)

    @app.get("/profile")
    async def read_profile(user: CurrentUser) -> dict[str, str]:
        return {"email": user.email}

    @app.get("/own-refusal")
    async def refuse(caller: CallerDep) -> None:
        raise HTTPException(402, f"not yet, {caller.methods[0]}")

    return app


class Host:
    """A host application that is running, and its Auth."""

    def __init__(self, settings: Settings, clock: ManualClock) -> None:
        self.app, self.clock = host_app(), clock
        self.auth = Auth.from_settings(settings, clock=clock)
        self.auth.install(self.app, prefix="/auth")

    def browser(self, **headers: str) -> httpx2.AsyncClient:
        return browser_for(self.app, **headers)

    async def signed_in(self, email: str = "ada@example.com") -> httpx2.AsyncClient:
        browser = self.browser()
        answer = await browser.post("/auth/register", json=registration(email))
        assert answer.status_code == 201, answer.text
        return browser


def browser_for(app: FastAPI, **headers: str) -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    return httpx2.AsyncClient(transport=transport, base_url=HOST, headers=headers)


class Line:
    """A WebSocket's two ends, with no server between them that would know when it is over."""

    def __init__(self, app: FastAPI, path: str, token: str | None, *, denial: bool = True) -> None:
        headers = [(b"host", b"localhost:9000")]
        if token:
            headers.append((b"authorization", f"Bearer {token}".encode()))
        self.scope = {
            "type": "websocket",
            "path": path,
            "headers": headers,
            "query_string": b"",
            "scheme": "ws",
            "root_path": "",
            "subprotocols": [],
            "asgi": {"version": "3.0"},
            "client": ("127.0.0.1", 1),
            "extensions": {"websocket.http.response": {}} if denial else {},
        }
        self._there: asyncio.Queue[MutableMapping[str, Any]] = asyncio.Queue()
        self._here: asyncio.Queue[MutableMapping[str, Any]] = asyncio.Queue()
        self._there.put_nowait({"type": "websocket.connect"})
        self.task = asyncio.create_task(app(self.scope, self._there.get, self._here.put))

    async def heard(self) -> MutableMapping[str, Any]:
        async with asyncio.timeout(HANG_SECONDS):
            return await self._here.get()

    @property
    def is_silent(self) -> bool:
        """Whether nothing more has come."""
        return self._here.empty()

    def say(self, **message: Any) -> None:  # noqa: ANN401 -- ASGI's own
        self._there.put_nowait(message)
