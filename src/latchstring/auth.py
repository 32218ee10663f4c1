"""Auth: the facade that an application holds. It mounts routes and pages, and passes on to the parts.

`wiring.build` makes every part once, in dependency order. Nothing is global: two `Auth` objects in one process share
nothing.
"""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self

from fastapi import FastAPI
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
from latchstring.core.restore.actions import Restored
from latchstring.core.sessions.issuing import ClaimsHook
from latchstring.core.sessions.page_router import PageRouter
from latchstring.core.users.actions import Users
from latchstring.errors import ConfigurationError, DatabaseUnavailableError
from latchstring.features import DEFAULT_FEATURES
from latchstring.foundation.clock import Clock, SystemClock
from latchstring.foundation.database import STATEMENTS_ARE_LOST, Engine, statements_lost_by_pooler
from latchstring.foundation.events import Source
from latchstring.foundation.measurements.meter import recorder_of
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
from latchstring.settings import Settings, settings_with
from latchstring.wiring import build, json_routers, page_router, page_routers, well_known_routers

Lifespan = Callable[[Any], contextlib.AbstractAsyncContextManager[Any]]


@dataclass(frozen=True, slots=True)
class Mounted:
    """Where an `Auth` is installed. Made by `install`, and frozen."""

    prefix: str
    """The prefix of the JSON routes."""
    pages: PageRouter | None
    """The router that the pages are built on; None without pages."""


class Auth:
    """Sign-in for one application: the facade that it holds.

    Making one builds every part. It opens no connection, and reads no file and no environment variable.

    Args:
        database: `sqlite+aiosqlite:///…`, `postgresql+psycopg://…` or `postgresql+asyncpg://…`; or the
            application's own `AsyncEngine`, whose pool is shared (on SQLite: only its file).
        secret: encrypts the signing keys in the database; at least 32 characters. Keep it out of the repository.
        features: the features to switch on.
        settings: everything else that can be set.
        claims: the claims hook, an async function from a user to the application's own claims. They are put into
            access tokens and returned as `caller.claims`. Each name is a URI, such as `shop:tenant`, so that it can
            never be a registered claim. The hook is called at each sign-in and refresh, with no connection held.
        pages: True for HTML pages beside the JSON routes (sign up, sign in, account, …); a `Pages` styles them.
        migrate: whether the application's start migrates the schema and makes the first signing key; False if
            `latchstring migrate` runs beforehand.
        clock: the clock; the system clock by default.

    Raises:
        ConfigurationError: unusable keys or database, a missing or weak secret, a value given twice, or a database
            driver that is not installed.
    """

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
        """Build every part; see the class."""
        clock = clock or SystemClock()
        self.migrates = migrate
        """Whether the start migrates the schema."""
        self.parts = build(
            settings_with(settings or Settings(), database=database, secret=secret),
            database,
            features=features,
            claims=claims,
            # None without pages: nothing of them is built then, and Jinja2 is not imported.
            pages=Pages() if pages is True else pages or None,
            clock=clock,
            begin=self._begin,
        )
        """Every part, for the command line and the testing plugin."""
        self.users: Users = self.parts.core.users
        """The application's users: read, rename, disable, enable and delete them; grant and withdraw roles."""
        self.sessions = self.parts.core.sessions
        """The users' sessions: list and revoke them."""
        self.guard = self.parts.core.guard
        self.current_caller = CallerDependency(self.guard)
        self.current_user = UserDependency(self.guard)
        self.optional_user = OptionalUserDependency(self.guard)
        self.mounted: Mounted | None = None
        """Where routes and pages are mounted; None before `install`."""

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
        """Return an `Auth` whose database and secret come from `settings`; the other arguments are those of `Auth`.

        Raises:
            ConfigurationError: as `Auth`.
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
        """Mount all routes on `app` under `prefix`, and the public keys at their well-known path.

        Background tasks start before the application's own lifespan and stop after it. The application's own routes,
        middleware and exception handlers are not changed.

        Args:
            app: the application.
            prefix: the prefix of the JSON routes, such as `/auth`: it begins with a slash and does not end with one.
            pages_prefix: the prefix of the pages, if there are any; `prefix` by default.

        Raises:
            ConfigurationError: the application has an `Auth` already, the prefix is not valid, a guard is among the
                application's own dependencies, or a catalogue of the pages can't be read.
        """
        pages_prefix = prefix if pages_prefix is None else pages_prefix
        if any(each and (not each.startswith("/") or each.endswith("/")) for each in (prefix, pages_prefix)):
            raise ConfigurationError("prefix and pages_prefix must begin with a slash and not end with one: /auth")
        # FastAPI would run such a guard before our routes too, and sign-in itself would need a signed-in caller.
        if any(isinstance(each.dependency, GuardDependency) for each in app.router.dependencies):
            raise ConfigurationError(
                "FastAPI(dependencies=[…]) has a guard, which would also guard sign-in: put the guard on your routers"
            )
        parts = self.parts
        # Before anything of the application is changed: a catalogue that can't be read is refused here.
        pages = page_router(parts, app, prefix=pages_prefix, renewal_path=f"{prefix}/refresh")
        self.attach(app)
        app.include_router(PrefixRouter(prefix, json_routers(parts)), prefix=prefix)
        app.include_router(PrefixRouter("", well_known_routers(parts, prefix=prefix, pages=pages)))
        if pages is not None:
            app.include_router(PrefixRouter(pages_prefix, page_routers(parts, pages)), prefix=pages_prefix)
        app.router.lifespan_context = self._around(app.router.lifespan_context)
        cookie_name, token_url = parts.tools.web.cookies.access_name, _beside(app.openapi_url, f"{prefix}/token")
        app.openapi = described(  # type: ignore[method-assign]  # FastAPI's documented way to extend its document
            app, cookie_name=cookie_name, token_url=token_url
        )
        self.mounted = Mounted(prefix=prefix, pages=pages)

    def attach(self, app: Starlette) -> None:
        """Make guards in a mounted application use this `Auth`: after `app.mount("/admin", admin)`, attach `admin`.

        Raises:
            ConfigurationError: the application has an `Auth` already.
        """
        # A second one would judge by other keys and another database than the routes that are mounted.
        if getattr(app.state, "latchstring", None) is not None:
            raise ConfigurationError("this application has an Auth already: call install or attach only once")
        app.state.latchstring = self
        # Around the router and not in `add_middleware`, so that an application that serves already can be attached.
        add_socket_layer(app)

    @classmethod
    def of(cls, app: Starlette) -> "Auth | None":
        """Return the `Auth` that was installed in or attached to an application, or None."""
        found = getattr(app.state, "latchstring", None)
        return found if isinstance(found, Auth) else None

    def fresh(self, *, minutes: Minutes) -> Callable[[HTTPConnection], Awaitable[Caller]]:
        """Return the dependency of `latchstring.fresh`, bound to this `Auth` in any application."""
        return FreshDependency(timedelta(minutes=minutes), self.guard)

    def requires(self, *, role: RoleName) -> Callable[[HTTPConnection], Awaitable[Caller]]:
        """Return the dependency of `latchstring.requires`, bound to this `Auth` in any application."""
        return RoleDependency(role, self.guard)

    def protect(self, app: ASGIApp, *, role: str | None = None) -> GuardMiddleware:
        """Return `app` behind a guard: `app.mount("/files", auth.protect(StaticFiles(directory="files")))`.

        Args:
            app: a mounted ASGI application or static files, on which FastAPI's dependencies do not run.
            role: the role that callers must have; None lets in every signed-in caller.
        """
        return GuardMiddleware(app, guard=self.guard, role=role)

    def _around(self, lifespan: Lifespan) -> Lifespan:
        @contextlib.asynccontextmanager
        async def whole(app: Any) -> AsyncIterator[Any]:  # noqa: ANN401 -- as Starlette declares it
            # Ours outside: the application's own start and shutdown may use `auth.users`.
            async with self.running(), lifespan(app) as state:
                yield state

        return whole

    def inside(self, kind: type[GrantingEventT]) -> Callable[[Inside[GrantingEventT]], Inside[GrantingEventT]]:
        """Return a decorator for an async function that takes part in the transaction of each event of this kind.

        The function gets the event and the open connection, at the end of the transaction. What it writes commits
        together with the event. If it raises, both are rolled back and the request fails with 500. Keep it short: the
        transaction may take five seconds, and holds locks. Only granting events can be joined.

        Raises:
            ConfigurationError: `kind` is not a granting event, or the function is not async.
        """
        # A full disk in the application's table must not undo a sign-out, or the end of a stolen session.
        return self.parts.subscribers.inside(kind)

    def after(self, kind: type[EventT]) -> Callable[[After[EventT]], After[EventT]]:
        """Return a decorator for an async function that is called after each event of this kind has committed.

        Requests do not wait for it, and its exceptions are logged. It is called at most once per event, and only in the
        process where the event happened.

        Raises:
            ConfigurationError: `kind` is not an event, or the function is not async.
        """
        return self.parts.subscribers.after(kind)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Poll revocations and keys, and delete old rows, while the block runs; then close everything.

        An application in which this is installed does so by itself. Scripts and tests may use it. A nested call does
        nothing.

        Raises:
            UnavailableError: the database is unavailable.
            ConfigurationError: the database was made under another secret.
        """
        # Running already, started by the lifespan or by a first request, which also stops it.
        if not await self.parts.background.begin():
            yield
            return
        try:
            yield
        finally:
            await self.close()

    async def prepare(self, *, migrate: bool = True) -> None:
        """Migrate the schema and make missing keys. Safe to run in several processes at once.

        Args:
            migrate: False to only check that the tables exist.

        Raises:
            ConfigurationError: the database was made under another secret.
            DatabaseUnavailableError: the database is unavailable, is of a newer version, or has no tables while
                `migrate` is False.
        """
        revision = await schema_revision(self.parts.tools.database)
        if revision is None and not migrate:
            raise DatabaseUnavailableError("the database has no tables yet: run latchstring migrate")
        if revision != HEAD and migrate:
            await upgrade(self.parts.tools.database)
        await self.parts.keys.prepare()

    async def restored(self, *, source: Source) -> Restored:
        """End every session, token and key of before: the step after restoring a backup, as `latchstring restored`.

        Users sign in again. Workers may be running: they follow within a second. Running it again does no harm.

        Args:
            source: who does it: `APPLICATION` or `OPERATOR`.

        Returns:
            The epoch that has begun, the keys that have ended, and sentences for the operator about what a copy can't
            know.

        Raises:
            ConfigurationError: the keys in the database are sealed under another secret.
            DatabaseUnavailableError: the database is unavailable.
        """
        return await self.parts.restore.restored(source=source)

    async def audit(self, app: Starlette, *, public: Iterable[str] = ()) -> Inspection:
        """Inspect an application's routes, CORS, cookies, keys and schema: `print(await auth.audit(app))`.

        In a test, write `assert (await auth.audit(app)).ok`; in a build, run `latchstring doctor APP`. Dependencies of
        the application's own count as guards if they are marked by `@latchstring.guarding`.

        Args:
            app: the application, with everything that is mounted in it.
            public: paths that are public and can't be marked by `@latchstring.public`. A trailing `*` matches every
                path that begins with what is before it.

        Raises:
            UnavailableError: the database, or the keys in it, are unavailable.
        """
        routes = inspected_routes(app, public_paths=public)
        drift = await schema_drift(self.parts.tools.database)
        # On another schema the query for keys may fail; the drift is the finding then.
        if not drift:
            async with self.parts.tools.database.reading() as connection:
                await self.parts.ring.reload(connection)
        async with self.parts.tools.database.reading() as connection:
            loses_statements = await statements_lost_by_pooler(connection)
        findings = [
            *found_in_routes(routes),
            *found_in_applications(app),
            *found_in_settings(self.parts.settings, None if drift else self.parts.ring.current),
            *(Finding("schema_drift", difference) for difference in drift),
            *([Finding("prepared_statements", STATEMENTS_ARE_LOST)] if loses_statements else []),
            *found_unseen(),
        ]
        return Inspection(routes=routes, findings=tuple(findings))

    async def close(self) -> None:
        """Stop the background tasks, and close the database connections and the hashing threads.

        Running subscribers have ten seconds to finish. An `Auth` that is used again afterwards starts again.
        """
        # The pollers first: they would open a connection again. Subscribers next: they may still need the database.
        await self.parts.background.end()
        await self.parts.subscribers.end()
        self.parts.tools.passwords.close()
        await self.parts.tools.database.close()

    def metrics_app(self) -> ASGIApp:
        """Return an ASGI application that responds with the metrics: `app.mount("/metrics", auth.metrics_app())`.

        It lets everyone in: mount `auth.protect(auth.metrics_app(), role="operator")` where visitors could reach it.

        Raises:
            ConfigurationError: nothing is counted, because the settings have no `metrics=True`.
        """
        recorder = recorder_of(self.parts.tools.meter)
        if recorder is None:
            raise ConfigurationError("metrics are off: set LATCHSTRING_METRICS=on, or pass Settings(metrics=True)")
        # Imported here: only what serves the metrics needs prometheus_client.
        from latchstring.foundation.measurements.exposition import MetricsApp  # noqa: PLC0415 -- as above

        return MetricsApp(recorder.read, self.parts.tools.clock)

    async def drained(self) -> None:
        """Wait until every subscriber was called for every committed event: for tests, and at the end of a script."""
        await self.parts.subscribers.drained()

    async def _begin(self, stack: contextlib.AsyncExitStack) -> None:
        if self.migrates:
            await self.prepare()
        if (recorder := recorder_of(self.parts.tools.meter)) is not None:
            recorder.share(uptime=self.parts.tools.clock.uptime())
            stack.callback(recorder.withdraw)
        await stack.enter_async_context(self.parts.core.feed.polling())
        await stack.enter_async_context(self.parts.housekeeping.running())


def _beside(document_url: str | None, path: str) -> str:
    # Relative to the document's own URL: an absolute path would be wrong under a root path, which FastAPI knows only
    # once there is a request.
    depth = (document_url or "/").count("/") - 1
    return "../" * depth + path.lstrip("/")
