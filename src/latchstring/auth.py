"""Auth: settings and features in, mounted rooms out; what an application holds.

It builds every part once, from the floor up, and hands each what it needs. Nothing is global: two of them in one
process know nothing of each other.
"""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self

from fastapi import FastAPI
from pydantic import SecretStr, ValidationError
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp

from latchstring.core.caller import Caller
from latchstring.core.feature import Feature
from latchstring.core.guard.dependencies import (
    CallerDependency,
    FreshDependency,
    GuardDependency,
    Minutes,
    OptionalUserDependency,
    RoleDependency,
    RoleName,
    UserDependency,
)
from latchstring.core.guard.middleware import GuardMiddleware
from latchstring.core.guard.socket_layer import add_socket_layer
from latchstring.core.sessions.issuing import ClaimsHook
from latchstring.core.sessions.page_router import PageRouter
from latchstring.core.users.actions import Users
from latchstring.errors import ConfigurationError, DatabaseUnavailableError
from latchstring.features import DEFAULT_FEATURES
from latchstring.foundation.clock import Clock, SystemClock
from latchstring.foundation.database import Engine
from latchstring.foundation.subscribers import After, EventT, GrantingEventT, Inside
from latchstring.foundation.web.openapi import described
from latchstring.foundation.web.pages.options import Pages
from latchstring.foundation.web.route import PrefixRouter
from latchstring.inspection import (
    Finding,
    Inspection,
    found_in_applications,
    found_in_routes,
    found_in_settings,
    found_unseen,
    inspected_routes,
)
from latchstring.migrations import HEAD, schema_drift, schema_revision, upgrade
from latchstring.settings import Settings, sentences
from latchstring.wiring import build, json_routers, page_router, page_routers, well_known_routers

Lifespan = Callable[[Any], contextlib.AbstractAsyncContextManager[Any]]


@dataclass(frozen=True, slots=True)
class Mounted:
    """What `install` learned."""

    app: FastAPI
    prefix: str
    """Where the routes begin."""
    pages: PageRouter | None
    """What the pages are built on, where there are any."""


class Auth:
    """Sign-in for one application."""

    def __init__(
        self,
        database: str | Engine,
        *,
        secret: str | None = None,
        features: Iterable[Feature] = DEFAULT_FEATURES,
        settings: Settings | None = None,
        claims: ClaimsHook | None = None,
        pages: bool | Pages = False,
        migrate: bool = True,
        clock: Clock | None = None,
    ) -> None:
        """Build every part; nothing is read or opened yet, and no environment is looked at.

        Args:
            database: `sqlite+aiosqlite:///…`, `postgresql+psycopg://…` or `postgresql+asyncpg://…`; or the
                application's own `AsyncEngine`, whose pool is shared (on SQLite: whose file is).
            secret: seals the signing keys in the database; at least 32 characters, kept where no repository has it.
            features: what to switch on.
            settings: everything else that can be set.
            claims: an async function from a user to claims of the application's own, which ride in access tokens and
                come back as `caller.claims`. Each is named by a URI, such as `shop:tenant`, so that it can never be one
                of a registered claim. It is called at each sign-in and refresh, with no connection held.
            pages: whether there are pages beside the JSON routes (sign up, sign in, account, …), or how they look.
            migrate: whether the schema is brought up to date, and the first signing key made, when the application
                starts; False, where `latchstring migrate` does so beforehand.
            clock: the time; the machine's by default.

        Raises:
            ConfigurationError: keys or a database that can't be used, a missing or weak secret, a value given twice, or
                a database driver not installed.
        """
        clock = clock or SystemClock()
        self.migrates = migrate
        """Whether the start brings the schema up to date."""
        self.parts = build(
            _settings(settings or Settings(), database, secret),
            database,
            features=features,
            claims=claims,
            pages=Pages() if pages is True else pages or None,
            clock=clock,
            begin=self._begin,
        )
        """Every part, for what works beside this: the command line, the testing plugin."""
        self.users: Users = self.parts.core.users
        """The users of the application: read, rename, disable, enable, delete them, give and take roles."""
        self.sessions = self.parts.core.sessions
        """Their sessions: list and revoke them."""
        self.guard = self.parts.core.guard
        self.current_caller = CallerDependency(self.guard)
        self.current_user = UserDependency(self.guard)
        self.optional_user = OptionalUserDependency(self.guard)
        self.mounted: Mounted | None = None
        """Where routes and pages are, once they are installed."""

    @classmethod
    def from_settings(
        cls,
        settings: Settings,
        *,
        features: Iterable[Feature] = DEFAULT_FEATURES,
        claims: ClaimsHook | None = None,
        pages: bool | Pages = False,
        migrate: bool = True,
        clock: Clock | None = None,
    ) -> Self:
        """Return an Auth whose database and secret are among the settings; the arguments are those of `Auth`.

        Raises:
            ConfigurationError: as `Auth` does.
        """
        return cls(
            settings.database,
            settings=settings,
            features=features,
            claims=claims,
            pages=pages,
            migrate=migrate,
            clock=clock,
        )

    def install(self, app: FastAPI, *, prefix: str = "/auth", pages_prefix: str | None = None) -> None:
        """Mount every room's routes on `app` under `prefix`, the public keys at their well-known address.

        What goes on beside the requests begins before the application's own lifespan and ends after it. Nothing else of
        the application is touched.

        Args:
            app: the application.
            prefix: where the routes begin; with a slash before it and none after it.
            pages_prefix: where the pages do, if there are any; the same place by default.

        Raises:
            ConfigurationError: an `Auth` was installed there before, or the prefix can't be one.
        """
        pages_prefix = prefix if pages_prefix is None else pages_prefix
        if any(each and (not each.startswith("/") or each.endswith("/")) for each in (prefix, pages_prefix)):
            raise ConfigurationError("the prefix begins with a slash and ends without one: /auth")
        # FastAPI would put them before our routes as well, and nobody could sign in.
        if any(isinstance(each.dependency, GuardDependency) for each in app.router.dependencies):
            raise ConfigurationError("a guard on the whole application shuts the way in: put it on your routers")
        self.attach(app)
        parts = self.parts
        pages = page_router(parts, app, prefix=pages_prefix, renewal_path=f"{prefix}/refresh")
        mounts = [
            (prefix, json_routers(parts)),
            ("", well_known_routers(parts, prefix=prefix, pages=pages)),
            *([(pages_prefix, page_routers(parts, pages))] if pages is not None else []),
        ]
        # One router for all of them: a request to a route of the application's own pays for one look.
        app.include_router(PrefixRouter(*mounts))
        app.router.lifespan_context = self._around(app.router.lifespan_context)
        cookie_name, token_url = parts.tools.web.cookies.access_name, _beside(app.openapi_url, f"{prefix}/token")
        app.openapi = described(  # type: ignore[method-assign]  # the way FastAPI documents to change its own
            app, cookie_name=cookie_name, token_url=token_url
        )
        self.mounted = Mounted(app=app, prefix=prefix, pages=pages)

    def attach(self, app: Starlette) -> None:
        """Let the guards of a mounted application's routes ask this `Auth`: `app.mount("/admin", admin)`.

        Raises:
            ConfigurationError: it has an `Auth` already.
        """
        if getattr(app.state, "latchstring", None) is not None:
            raise ConfigurationError("an Auth is installed in this application already")
        app.state.latchstring = self
        add_socket_layer(app)

    @classmethod
    def of(cls, app: Starlette) -> "Auth | None":
        """Return the `Auth` that was installed in an application or attached to it; None where there is none."""
        found = getattr(app.state, "latchstring", None)
        return found if isinstance(found, Auth) else None

    def fresh(self, *, minutes: Minutes) -> Callable[[HTTPConnection], Awaitable[Caller]]:
        """Return the dependency of `latchstring.fresh`, asking this `Auth` whatever the application."""
        return FreshDependency(timedelta(minutes=minutes), self.guard)

    def requires(self, *, role: RoleName) -> Callable[[HTTPConnection], Awaitable[Caller]]:
        """Return the dependency of `latchstring.requires`, asking this `Auth` whatever the application."""
        return RoleDependency(role, self.guard)

    def protect(self, app: ASGIApp, *, role: str | None = None) -> GuardMiddleware:
        """Return `app` with the guard before it: `app.mount("/files", auth.protect(StaticFiles(directory="files")))`.

        Args:
            app: what is no route of FastAPI's: a mounted application, static files.
            role: which role its callers must have; None: any, or none.
        """
        return GuardMiddleware(app, guard=self.guard, role=role)

    def _around(self, lifespan: Lifespan) -> Lifespan:
        @contextlib.asynccontextmanager
        async def whole(app: Any) -> AsyncIterator[Any]:  # noqa: ANN401 -- as Starlette declares it
            async with self.running(), lifespan(app) as state:
                yield state

        return whole

    def inside(self, kind: type[GrantingEventT]) -> Callable[[Inside[GrantingEventT]], Inside[GrantingEventT]]:
        """Return a decorator: the async function takes part in the transaction of each event of this kind.

        It gets the event and the open connection, at the transaction's end. What it writes is there with the event, or,
        if it raises, neither is: the request fails with 500. It is to be brief: the transaction has five seconds, and
        holds locks. Only events that give can be joined, so that nobody stays signed in because a subscriber failed.

        Raises:
            ConfigurationError: another kind of event, or no async function.
        """
        return self.parts.subscribers.inside(kind)

    def after(self, kind: type[EventT]) -> Callable[[After[EventT]], After[EventT]]:
        """Return a decorator: the async function is called once each event of this kind is committed.

        Nobody waits for it, and what it raises is logged. It hears of what happened in this process, at most once.

        Raises:
            ConfigurationError: no kind of event, or no async function.
        """
        return self.parts.subscribers.after(kind)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follow revocations and keys, and clear away what is old, while the block runs; then close what was opened.

        An application in which this is installed does so by itself; scripts and tests may. Within another one it does
        nothing.

        Raises:
            UnavailableError: the database is away.
            ConfigurationError: it was made under another secret.
        """
        if not await self.parts.background.begin():
            yield
            return
        try:
            yield
        finally:
            await self.close()

    async def prepare(self, *, migrate: bool = True) -> None:
        """Bring the schema up to date and make what keys are missing; many may run it at once.

        Raises:
            ConfigurationError: the database was made under another secret.
            DatabaseUnavailableError: the database is away, is of a newer version, or has no tables and may not be given
                any.
        """
        revision = await schema_revision(self.parts.tools.database)
        if revision is None and not migrate:
            raise DatabaseUnavailableError("the database has no tables yet: run latchstring migrate")
        if revision != HEAD and migrate:
            await upgrade(self.parts.tools.database)
        await self.parts.keys.prepare()

    async def audit(self, app: Starlette, *, public: Iterable[str] = ()) -> Inspection:
        """Look at an application's routes, CORS, cookies, keys and schema: `print(await auth.audit(app))`.

        It fails a test by `assert (await auth.audit(app)).ok`, and a build by `latchstring doctor APP`. A dependency of
        the application's own counts as a guard where it is marked by `@latchstring.guarding`.

        Args:
            app: the application, with all that is mounted in it.
            public: addresses that everybody may come to and that can't be marked by `@latchstring.public`; one that
                ends with `*` means all that begin so.

        Raises:
            UnavailableError: the database, or the keys in it, are away.
        """
        routes = inspected_routes(app, public_paths=public)
        drift = await schema_drift(self.parts.tools.database)
        if not drift:
            async with self.parts.tools.database.reading() as connection:
                await self.parts.ring.reload(connection)
        findings = [
            *found_in_routes(routes),
            *found_in_applications(app),
            *found_in_settings(self.parts.settings, None if drift else self.parts.ring.current),
            *(Finding("schema_drift", words) for words in drift),
            *found_unseen(),
        ]
        return Inspection(routes=routes, findings=tuple(findings))

    async def close(self) -> None:
        """End what goes on beside the requests, and close the database's connections and the hashing threads.

        Subscribers that are at work have ten seconds to finish. Whoever uses it once more begins anew.
        """
        await self.parts.background.end()
        await self.parts.subscribers.end()
        self.parts.tools.passwords.close()
        await self.parts.tools.database.close()

    async def drained(self) -> None:
        """Wait until every subscriber has heard of all that was committed: for tests, and before a script ends."""
        await self.parts.subscribers.drained()

    async def _begin(self, stack: contextlib.AsyncExitStack) -> None:
        if self.migrates:
            await self.prepare()
        await stack.enter_async_context(self.parts.core.feed.polling())
        await stack.enter_async_context(self.parts.housekeeping.running())


def _beside(document_url: str | None, path: str) -> str:
    # Relative to the document's own address: only that is right under a root path, which the server knows and FastAPI
    # tells nobody before there is a request.
    depth = (document_url or "/").count("/") - 1
    return "../" * depth + path.lstrip("/")


def _settings(settings: Settings, database: str | Engine, secret: str | None) -> Settings:
    named = settings.database_url is not None or settings.postgres_url is not None
    if named and database != settings.database:
        raise ConfigurationError("the database is given twice: leave it out of the settings")
    if secret is None:
        return settings
    if settings.secret is not None:
        raise ConfigurationError("the secret is given twice: leave it out of the settings")
    given = settings.model_dump(exclude_unset=True) | {"secret": SecretStr(secret)}
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        raise ConfigurationError("; ".join(sentences(error, name=str))) from None
