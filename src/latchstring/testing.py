"""A pytest plugin for the tests of an application that uses Latchstring.

    # conftest.py
    pytest_plugins = ["latchstring.testing"]

    @pytest.fixture
    def app():
        from main import app
        return app

    client         a browser: Starlette's TestClient, with the application's lifespan running
    sign_in_as     a browser signed in as any user, with any roles, without hashing a password
    clock          a clock that stands still until the test advances it
    refresh_storm  many tabs that refresh at once
    auth           the application's Auth, on a database of its own for each test

All fixtures are sync, so that tests need no plugin for async code.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Protocol, TypeVar
from uuid import UUID

import httpx2
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from latchstring.auth import Auth
from latchstring.core.accounts import store as accounts
from latchstring.core.accounts.rules import User, canonical_email
from latchstring.core.sessions.issuing import SignedIn
from latchstring.core.sign_in.rules import Method, Proof
from latchstring.errors import Code, Refused, RefusedError
from latchstring.foundation.audit import record
from latchstring.foundation.clock import SystemClock
from latchstring.foundation.database import Database
from latchstring.foundation.events import APPLICATION, UserRegistered
from latchstring.foundation.limits import Limits
from latchstring.foundation.passwords import PasswordHasher, PasswordHashSettings

_Result = TypeVar("_Result")
# A hash with the default cost takes tens of milliseconds of processor time: a suite signs in a thousand times.
_CHEAP = PasswordHashSettings(password_hash_memory_kib=8, password_hash_passes=1)


class ManualClock:
    """A clock that stands still until it is advanced.

    It starts at the current time plus half a second, so that no test passes only on whole seconds.
    """

    def __init__(self) -> None:
        self._now = SystemClock().now().replace(microsecond=500_000)
        self._uptime = 1_000.0

    def now(self) -> datetime:
        """Return the current time, in UTC."""
        return self._now

    def uptime(self) -> float:
        """Return seconds since a fixed instant, as a monotonic clock does."""
        return self._uptime

    def advance(self, *, seconds: float = 0, minutes: float = 0, hours: float = 0, days: float = 0) -> None:
        """Move the current time, forward or back: tokens and sessions expire by it."""
        # Not the uptime: a worker that had polled nothing for that long would refuse everybody with 503.
        self._now += timedelta(seconds=seconds, minutes=minutes, hours=hours, days=days)

    def suspend(self, *, seconds: float) -> None:
        """Suspend the machine: time passes, and nothing polls the database meanwhile."""
        self.advance(seconds=seconds)
        self._uptime += seconds


@dataclass(frozen=True)
class StormReport:
    """The outcome of many concurrent refreshes."""

    statuses: Sequence[int]
    """The status of each response, in no order."""
    access_tokens: frozenset[str]
    """The different access tokens among the responses: one, if all tabs end with the same."""
    refresh_tokens: frozenset[str]

    @property
    def everyone_is_signed_in(self) -> bool:
        """Whether every refresh succeeded, and all with the same pair of tokens."""
        is_one_pair = len(self.access_tokens) == len(self.refresh_tokens) == 1
        return is_one_pair and set(self.statuses) == {HTTPStatus.OK}


class SignInAs(Protocol):
    """The fixture `sign_in_as`."""

    def __call__(
        self, user: User | str = "ada@example.com", *, roles: Sequence[str] = (), bearer: bool = False
    ) -> TestClient:
        """Return a new browser that is signed in.

        Args:
            user: a user, or an email; a user with this email is created if there is none.
            roles: roles to grant; roles the user has already are kept.
            bearer: whether the browser sends its access token as `Authorization: Bearer`, and no cookies.
        """
        ...


class RefreshStorm(Protocol):
    """The fixture `refresh_storm`."""

    def __call__(self, browser: TestClient, *, tabs: int = 20) -> StormReport:
        """Refresh from many tabs of one browser at once; afterwards the browser has the new cookies."""
        ...


@pytest.fixture
def app() -> FastAPI:
    """Your application: define this fixture in your `conftest.py`."""
    raise pytest.UsageError("latchstring.testing: define a fixture `app` that returns your FastAPI application")


@pytest.fixture
def clock() -> ManualClock:
    """The clock of the application's `Auth`, which stands still until it is advanced."""
    return ManualClock()


@pytest.fixture
def latchstring_database_url(tmp_path_factory: pytest.TempPathFactory) -> str | None:
    """URL of the test's database: by default a new SQLite file. None keeps the application's own database."""
    return f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('latchstring')}/test.db"


@pytest.fixture
def auth(
    app: FastAPI, clock: ManualClock, latchstring_database_url: str | None, monkeypatch: pytest.MonkeyPatch
) -> Auth:
    """The application's `Auth`, with the test's clock and database, and cheap password hashes."""
    found = Auth.of(app)
    if found is None:
        raise pytest.UsageError("latchstring.testing: no Auth is installed in the application of the fixture `app`")
    parts = found.parts
    try:
        for name in ("now", "uptime"):
            monkeypatch.setattr(parts.tools.clock, name, getattr(clock, name))
    except AttributeError:
        raise pytest.UsageError(
            "latchstring.testing: the application's clock can't be replaced: remove its __slots__"
        ) from None
    _become(parts.tools.passwords, PasswordHasher(_CHEAP, meter=parts.tools.meter), monkeypatch)
    # It remembers full windows for a second: another test's failed sign-ins must not refuse this one's.
    _become(parts.tools.limits, Limits(parts.settings, parts.tools.clock, meter=parts.tools.meter), monkeypatch)
    if latchstring_database_url is not None:
        database = Database(latchstring_database_url, listener=parts.subscribers, meter=parts.tools.meter)
        _become(parts.tools.database, database, monkeypatch)
        # The new file has no tables, even if the application migrates its own database elsewhere.
        monkeypatch.setattr(found, "migrates", True)
    return found


@pytest.fixture
def client(app: FastAPI, auth: Auth) -> Iterator[TestClient]:
    """A browser that is not signed in, while the application's lifespan runs."""
    with TestClient(app, base_url=_base_url(auth)) as browser:
        if browser.portal is None:
            raise pytest.UsageError("latchstring.testing: this version of Starlette runs no lifespan in its TestClient")
        # Starlette runs no lifespan of an application that is mounted in another one.
        with browser.portal.wrap_async_context_manager(auth.running()):
            yield browser


@pytest.fixture
def sign_in_as(app: FastAPI, auth: Auth, client: TestClient) -> SignInAs:
    """Signs a user in, in a new browser."""

    def sign_in_as(
        user: User | str = "ada@example.com", *, roles: Sequence[str] = (), bearer: bool = False
    ) -> TestClient:
        tokens = _in_its_loop(client, lambda: signed_in(auth, user, roles=roles)).tokens
        browser = TestClient(app, base_url=_base_url(auth))
        # One event loop for all browsers: connections and locks of the `Auth` belong to the loop they were made in.
        browser.portal = client.portal
        if bearer:
            browser.headers["Authorization"] = f"Bearer {tokens.access}"
        else:
            _set_cookies(browser, auth, access=tokens.access, refresh=tokens.refresh)
        return browser

    return sign_in_as


@pytest.fixture
def refresh_storm(app: FastAPI, auth: Auth, client: TestClient) -> RefreshStorm:
    """Refreshes from many tabs of a browser at once, over HTTP."""

    def refresh_storm(browser: TestClient, *, tabs: int = 20) -> StormReport:
        names = auth.parts.tools.web.cookies.access_name, auth.parts.tools.web.cookies.refresh_name
        if auth.parts.tools.web.cookies.refresh_name not in browser.cookies:
            raise pytest.UsageError("refresh_storm: this browser has no refresh token; sign in first")
        cookie_header = {"Cookie": "; ".join(f"{name}={browser.cookies.get(name)}" for name in names)}

        # A client for each tab: a shared one would store the first response's cookies and send those with the rest.
        async def from_one_tab() -> httpx2.Response:
            transport = httpx2.ASGITransport(app)
            async with httpx2.AsyncClient(transport=transport, base_url=_base_url(auth), headers=cookie_header) as tab:
                return await tab.post(f"{_prefix(auth)}/refresh")

        async def all_at_once() -> list[httpx2.Response]:
            return await asyncio.gather(*(from_one_tab() for _ in range(tabs)))

        responses = _in_its_loop(client, all_at_once)
        access, refresh = (
            frozenset(response.cookies[name] for response in responses if name in response.cookies) for name in names
        )
        if access and refresh:
            _set_cookies(browser, auth, access=min(access), refresh=min(refresh))
        return StormReport([response.status_code for response in responses], access, refresh)

    return refresh_storm


def _become(target: object, other: object, monkeypatch: pytest.MonkeyPatch) -> None:
    # The parts hold references to the object and are frozen: the object stays, and its attributes are replaced.
    for name, value in vars(other).items():
        monkeypatch.setattr(target, name, value)


def _base_url(auth: Auth) -> str:
    # The public URL, where there is one: origin checks and `__Host-` cookies depend on it.
    return auth.parts.settings.public_url or "http://testserver"


def _prefix(auth: Auth) -> str:
    if auth.mounted is None:
        raise pytest.UsageError("refresh_storm: the Auth is only attached to the application: call auth.install(app)")
    return auth.mounted.prefix


def _set_cookies(browser: TestClient, auth: Auth, *, access: str, refresh: str) -> None:
    # With the domain a response would give them (`.local`, as http.cookiejar adds it). Under another one they would be
    # sent beside the cookies that a refresh sets, and duplicates are refused.
    host = browser.base_url.host
    domain = host if "." in host else f"{host}.local"
    for name, value in (
        (auth.parts.tools.web.cookies.access_name, access),
        (auth.parts.tools.web.cookies.refresh_name, refresh),
    ):
        browser.cookies.set(name, value, domain=domain)


def _in_its_loop(client: TestClient, work: Callable[[], Awaitable[_Result]]) -> _Result:
    if client.portal is None:
        raise pytest.UsageError("latchstring.testing: the fixture `client` has ended; use its browsers within the test")
    return client.portal.call(work)


async def signed_in(auth: Auth, who: User | str, *, roles: Sequence[str] = ()) -> SignedIn:
    """Sign a user in without a password, as `sign_in_as` does, for tests that have no browser.

    Args:
        auth: the application's `Auth`, running.
        who: a user, or an email; a user with this email is created if there is none.
        roles: roles to grant; roles the user has already are kept.

    Raises:
        RefusedError: `user_not_found`, or `invalid_credentials` for a disabled user.
    """
    user_id = who.id if isinstance(who, User) else await _user_with_email(auth, canonical_email(who))
    for role in roles:
        await auth.users.grant_role(user_id, role)
    user = await auth.users.get(user_id)
    if user is None:
        raise RefusedError(Code.USER_NOT_FOUND)
    # By `core.sign_in`, as in a real sign-in, so that a disabled account is refused here as well.
    proof = Proof(user=user, method=Method.PASSWORD, proven_at=auth.parts.tools.clock.now())
    async with auth.parts.tools.database.transaction() as connection:
        admitted = await auth.parts.core.sign_in.create_session(connection, proof, source=APPLICATION)
    if isinstance(admitted, Refused):
        raise RefusedError(admitted.code)
    return await auth.parts.core.sign_in.issue_tokens(admitted, source=APPLICATION)


async def _user_with_email(auth: Auth, email: str) -> UUID:
    now, names = auth.parts.tools.clock.now(), {"first_name": email.partition("@")[0].capitalize(), "last_name": "Test"}
    async with auth.parts.tools.database.transaction() as connection:
        user = await accounts.user_by_email(connection, email)
        if user is None:
            user = await accounts.insert_user(connection, email=email, now=now, **names)
            if user is None:
                # Another test process inserted the same email in between.
                raise RefusedError(Code.EMAIL_TAKEN)
            event = UserRegistered(at=now, source=APPLICATION, user_id=user.id, email=email, **names)
            await record(connection, event)
        return user.id
