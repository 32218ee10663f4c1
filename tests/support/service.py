"""The ready server inside the test's own process: the real application, over HTTP without a socket."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

import httpx2
from fastapi import FastAPI

from latchstring import Auth, Settings
from latchstring.apps.server import build_app
from latchstring.errors import UnavailableError
from latchstring.foundation.background import Background
from latchstring.testing import ManualClock

ADDRESS = "http://localhost:8000"
SECRET = "a secret of the test suite, long enough"
PASSWORD = "correct horse battery"


@dataclass(frozen=True)
class Service:
    """One worker."""

    app: FastAPI
    auth: Auth
    clock: ManualClock
    settings: Settings

    def browser(self, address: str | None = None, headers: Mapping[str, str] | None = None) -> httpx2.AsyncClient:
        """Returns a client with cookies of its own. It sends neither Origin nor Fetch metadata unless told."""
        return httpx2.AsyncClient(
            transport=httpx2.ASGITransport(self.app),
            base_url=address or self.settings.public_url or ADDRESS,
            headers=headers,
        )

    async def registered(self, email: str = "ada@example.com") -> httpx2.AsyncClient:
        """Returns a browser that has just registered, and is signed in."""
        browser = self.browser()
        answer = await browser.post("/api/auth/register", json=registration(email))
        assert answer.status_code == 201, answer.text
        return browser

    async def somebody(self) -> httpx2.AsyncClient:
        """Returns a browser that has just registered, under an address that is nobody else's."""
        return await self.registered(f"{secrets.token_hex(8)}@example.com")


def quiet_app(settings: Settings, clock: ManualClock) -> FastAPI:
    """Returns the application with nothing going on beside the requests: a test looks at the database when it likes."""
    app = build_app(settings, clock=clock)
    background: Background = app.state.latchstring.parts.background
    background._loop = asyncio.get_running_loop()
    return app


@contextlib.asynccontextmanager
async def quiet_service(settings: Settings, clock: ManualClock) -> AsyncIterator[Service]:
    """Runs one worker that has polled once and polls when told: it sends no statements of its own, to be counted."""
    app = quiet_app(settings, clock)
    service = Service(app=app, auth=app.state.latchstring, clock=clock, settings=settings)
    try:
        await service.auth.parts.core.feed.poll()
        yield service
    finally:
        await service.auth.close()


@contextlib.asynccontextmanager
async def running_service(settings: Settings, clock: ManualClock | None = None) -> AsyncIterator[Service]:
    """Runs one worker on a database that is prepared already; several may run on one."""
    clock = clock or ManualClock()
    app = build_app(settings, clock=clock)
    async with app.router.lifespan_context(app):
        service = Service(app=app, auth=app.state.latchstring, clock=clock, settings=settings)
        # A machine that stalls for two seconds just then is no outage, and one that is will be seen again.
        with contextlib.suppress(UnavailableError):
            await service.auth.parts.core.feed.poll()
        yield service


def registration(email: str = "ada@example.com", **changes: object) -> dict[str, object]:
    """Returns the body of a registration, with changes."""
    return {
        "first_name": "Ada",
        "last_name": "Lovelace",
        "email": email,
        "password": PASSWORD,
        "passwordConfirm": PASSWORD,
    } | changes


def credentials(email: str = "ada@example.com", password: str = PASSWORD) -> dict[str, str]:
    """Returns the body of a login."""
    return {"email": email, "password": password}


def cheap_settings(database_url: str, **changes: object) -> Settings:
    """Returns settings for `database_url` with password hashes that cost next to nothing, and without limits."""
    return Settings.model_validate(
        {
            "database_url": database_url,
            "secret": SECRET,
            "password_hash_memory_kib": 8,
            "password_hash_passes": 1,
            "limits": False,
        }
        | changes
    )
