"""Auth: settings and features in, mounted rooms out; what an application holds.

It builds every part once, from the floor up, and hands each what it needs. Nothing is global: two of them in one
process know nothing of each other.
"""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Self

from fastapi import APIRouter, FastAPI
from pydantic import SecretStr, ValidationError
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp

from latchstring.core.accounts.actions import Accounts
from latchstring.core.caller import Caller
from latchstring.core.feature import Core, Feature, Foundation, Room
from latchstring.core.sessions.actions import ClaimsHook, Sessions
from latchstring.core.sessions.answer import SignedInAnswer
from latchstring.core.sessions.feed import RevocationFeed
from latchstring.core.sessions.grants import Grant, token_router
from latchstring.core.sessions.guard import (
    CallerDependency,
    FreshDependency,
    Guard,
    GuardDependency,
    Minutes,
    OptionalUserDependency,
    RoleDependency,
    RoleName,
    UserDependency,
)
from latchstring.core.sessions.middleware import GuardMiddleware
from latchstring.core.sessions.page_edge import PageEdge
from latchstring.core.sessions.pages import sessions_pages, well_known_pages
from latchstring.core.sessions.routes import renewal_router, sessions_router
from latchstring.core.sessions.rules import REVOCATIONS_KEPT, Lifetimes, RefreshLimit
from latchstring.core.sessions.sockets import Sockets
from latchstring.core.sessions.store import prune_revocations, prune_sessions
from latchstring.core.sign_in.actions import SignIn
from latchstring.core.tokens.actions import DatabaseKeys, GivenKeys, KeyPolicy, Keys
from latchstring.core.tokens.keys import key_set_from_pems
from latchstring.core.tokens.ring import DatabaseRing, GivenRing, KeyRing
from latchstring.core.tokens.rotation import KEYS_KEPT
from latchstring.core.tokens.routes import jwks_router, metadata_router
from latchstring.core.tokens.rules import Party
from latchstring.core.tokens.store import prune_keys
from latchstring.core.tokens.tokens import Tokens
from latchstring.errors import ConfigurationError, DatabaseUnavailableError
from latchstring.features import DEFAULT_FEATURES
from latchstring.foundation.background import Background
from latchstring.foundation.clock import Clock, SystemClock
from latchstring.foundation.crypto import Vault
from latchstring.foundation.database import Connection, Database, Engine
from latchstring.foundation.housekeeping import Chore, Housekeeping
from latchstring.foundation.limits import Limits, prune_limits
from latchstring.foundation.passwords import PasswordHasher
from latchstring.foundation.subscribers import After, FactT, GivingFactT, Inside, Subscribers
from latchstring.foundation.web.edge import Edge
from latchstring.foundation.web.openapi import described
from latchstring.foundation.web.pages.options import Pages
from latchstring.foundation.web.pages.routes import add_surroundings
from latchstring.foundation.web.pages.site import Site
from latchstring.foundation.web.route import PrefixRouter
from latchstring.inspection import (
    Finding,
    Inspection,
    found_in_applications,
    found_in_routes,
    found_in_settings,
    inspected_routes,
)
from latchstring.migrations import HEAD, schema_drift, schema_revision, upgrade
from latchstring.settings import Settings, sentences

Lifespan = Callable[[Any], contextlib.AbstractAsyncContextManager[Any]]


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
        self.settings = settings = _settings(settings or Settings(), database, secret)
        self.clock = clock
        self.prefix: str | None = None
        """Where the routes begin, once they are installed."""
        self._prepares = migrate
        self._subscribers = Subscribers()
        self.database = Database(database, listener=self._subscribers)
        self.ring, self.keys = _ring_and_keys(settings, self.database, clock)
        self._background = Background(self._begin)
        lifetimes = Lifetimes(
            access=timedelta(minutes=settings.access_token_expire_minutes),
            refresh=timedelta(minutes=settings.refresh_token_expire_minutes),
            session=timedelta(days=settings.session_max_days),
            grace=timedelta(seconds=settings.refresh_grace_seconds),
        )
        self.limits = Limits(settings, clock)
        rate = self.limits.refresh
        edge = Edge(settings, self._background)
        self.cookies = edge.cookies
        tokens = Tokens(self.ring, Party(issuer=settings.issuer, audience=settings.audience or settings.issuer))
        self.feed = RevocationFeed(self.database, self.ring, clock, max_lag_seconds=settings.revocation_max_lag_seconds)
        self.hasher = PasswordHasher(settings)
        self.accounts = Accounts(self.database, clock)
        self.sessions = Sessions(
            self.database,
            clock,
            tokens,
            self.keys,
            self.feed,
            lifetimes=lifetimes,
            refresh_limit=RefreshLimit(times=rate.times, window=rate.window) if rate else None,
            ends_repeats_elsewhere=settings.refresh_repeated_elsewhere == "end",
            claims=claims,
        )
        self.sign_in = SignIn(clock, self.sessions, lifetimes=lifetimes, sessions_per_user=settings.sessions_per_user)
        self.sockets = Sockets(self.database, self.feed, clock, asked_every=lifetimes.access)
        self.guard = Guard(edge, clock, tokens, self.feed, accounts=self.accounts, sockets=self.sockets)
        self.current_caller = CallerDependency(self.guard)
        self.current_user = UserDependency(self.guard)
        self.optional_user = OptionalUserDependency(self.guard)
        answer = SignedInAnswer(edge, clock)
        self.housekeeping = Housekeeping(
            self.database, clock, _chores(settings), duties=[self.keys.tend, self.sockets.tend]
        )
        foundation = Foundation(
            database=self.database, clock=clock, passwords=self.hasher, limits=self.limits, edge=edge
        )
        self.page_edge = self._page_edge(Pages() if pages is True else pages or None, edge, answer, lifetimes)
        core = Core(
            accounts=self.accounts,
            sessions=self.sessions,
            sign_in=self.sign_in,
            guard=self.guard,
            feed=self.feed,
            signed_in_answer=answer,
            page_edge=self.page_edge,
        )
        rooms = [feature.build(foundation, core) for feature in features]
        self._routers = [room.router for room in rooms]
        self._routers += [
            renewal_router(self.sessions, tokens, answer, edge, clock, settings=settings),
            sessions_router(self.sessions, edge, settings=settings),
            token_router(self.sessions, answer, edge, grants=_grants(rooms)),
        ]
        self._page_routers = [room.pages for room in rooms if room.pages is not None]
        if self.page_edge is not None:
            self._page_routers += self._own_pages(self.page_edge)
        self._edge, self._grant_types = edge, ("refresh_token", *_grants(rooms))

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
        self.prefix = prefix
        app.include_router(PrefixRouter(prefix, self._routers), prefix=prefix)
        app.include_router(PrefixRouter("", self._well_known(prefix)))
        if self.page_edge is not None:
            site = self.page_edge.site
            site.app, site.prefix, site.renewal_path = app, pages_prefix, f"{prefix}/refresh"
            app.include_router(PrefixRouter(pages_prefix, self._page_routers), prefix=pages_prefix)
        app.router.lifespan_context = self._around(app.router.lifespan_context)
        app.openapi = described(  # type: ignore[method-assign]  # the way FastAPI documents to change its own
            app, cookie_name=self.cookies.access_name, token_url=_beside(app.openapi_url, f"{prefix}/token")
        )

    def attach(self, app: Starlette) -> None:
        """Let the guards of a mounted application's routes ask this `Auth`: `app.mount("/admin", admin)`.

        Raises:
            ConfigurationError: it has an `Auth` already.
        """
        if getattr(app.state, "latchstring", None) is not None:
            raise ConfigurationError("an Auth is installed in this application already")
        app.state.latchstring = self

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

    def _well_known(self, prefix: str) -> list[APIRouter]:
        settings, max_age = self.settings, self.settings.jwks_max_age_seconds
        routers = [jwks_router(self.ring, self._edge, max_age_seconds=max_age)]
        # Without a public URL there is no issuer that could be found: the Host header is whatever a visitor sends.
        if settings.public_url is not None:
            routers.append(
                metadata_router(
                    self._edge,
                    public_url=settings.public_url,
                    prefix=prefix,
                    grant_types=self._grant_types,
                    max_age_seconds=max_age,
                )
            )
        if self.page_edge is not None:
            routers.append(well_known_pages(self.page_edge))
        return routers

    def _page_edge(
        self, options: Pages | None, edge: Edge, answer: SignedInAnswer, lifetimes: Lifetimes
    ) -> PageEdge | None:
        if options is None:
            return None
        # An application without pages has no template engine in it.
        from latchstring.foundation.web.pages.templates import Templates  # noqa: PLC0415 -- it imports Jinja2

        site = Site(
            options,
            Templates(Path(options.templates) if options.templates else None),
            listed=self.settings.return_urls,
        )
        return PageEdge(
            site, edge, self.guard, answer, self.clock, access_life_seconds=lifetimes.access.total_seconds()
        )

    def _own_pages(self, page_edge: PageEdge) -> list[APIRouter]:
        surroundings = page_edge.router()
        add_surroundings(surroundings, page_edge.site, page_edge.edge)
        sessions = sessions_pages(
            self.sessions,
            page_edge,
            fresh=self.fresh(minutes=self.settings.fresh_minutes),
            settings=self.settings,
        )
        return [sessions, surroundings]

    def inside(self, kind: type[GivingFactT]) -> Callable[[Inside[GivingFactT]], Inside[GivingFactT]]:
        """Return a decorator: the async function takes part in the transaction of each fact of this kind.

        It gets the fact and the open connection, at the transaction's end. What it writes is there with the fact, or,
        if it raises, neither is: the request fails with 500. It is to be brief: the transaction has five seconds, and
        holds locks. Only facts that give can be joined, so that nobody stays signed in because a subscriber failed.

        Raises:
            ConfigurationError: another kind of fact, or no async function.
        """
        return self._subscribers.inside(kind)

    def after(self, kind: type[FactT]) -> Callable[[After[FactT]], After[FactT]]:
        """Return a decorator: the async function is called once each fact of this kind is committed.

        Nobody waits for it, and what it raises is logged. It hears of what happened in this process, at most once.

        Raises:
            ConfigurationError: no kind of fact, or no async function.
        """
        return self._subscribers.after(kind)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follow revocations and keys, and clear away what is old, while the block runs; then close what was opened.

        An application in which this is installed does so by itself; scripts and tests may. Within another one it does
        nothing.

        Raises:
            UnavailableError: the database is away.
            ConfigurationError: it was made under another secret.
        """
        if not await self._background.begin():
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
        revision = await schema_revision(self.database)
        if revision is None and not migrate:
            raise DatabaseUnavailableError("the database has no tables yet: run latchstring migrate")
        if revision != HEAD and migrate:
            await upgrade(self.database)
        await self.keys.prepare()

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
        drift = await schema_drift(self.database)
        if not drift:
            async with self.database.reading() as connection:
                await self.ring.reload(connection)
        findings = [
            *found_in_routes(routes),
            *found_in_applications(app),
            *found_in_settings(self.settings, None if drift else self.ring.current),
            *(Finding("schema_drift", words) for words in drift),
        ]
        return Inspection(routes=routes, findings=tuple(findings))

    async def close(self) -> None:
        """End what goes on beside the requests, and close the database's connections and the hashing threads.

        Subscribers that are at work have ten seconds to finish. Whoever uses it once more begins anew.
        """
        await self._background.end()
        await self._subscribers.end()
        self.hasher.close()
        await self.database.close()

    async def settled(self) -> None:
        """Wait until every subscriber has heard of all that was committed: for tests, and before a script ends."""
        await self._subscribers.settled()

    async def _begin(self, stack: contextlib.AsyncExitStack) -> None:
        if self._prepares:
            await self.prepare()
        await stack.enter_async_context(self.feed.following())
        await stack.enter_async_context(self.housekeeping.going_on())


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


def _chores(settings: Settings) -> tuple[Chore, ...]:
    kept = timedelta(days=settings.session_keep_days)

    async def sessions(connection: Connection, *, now: datetime, most: int) -> int:
        return await prune_sessions(connection, before=(now - kept).date(), most=most)

    async def revocations(connection: Connection, *, now: datetime, most: int) -> int:
        return await prune_revocations(connection, before=now - REVOCATIONS_KEPT, most=most)

    async def keys(connection: Connection, *, now: datetime, most: int) -> int:
        return await prune_keys(connection, before=now - KEYS_KEPT, most=most)

    return sessions, revocations, keys, prune_limits


def _grants(rooms: Iterable[Room]) -> dict[str, Grant]:
    grants: dict[str, Grant] = {}
    for room in rooms:
        for name, grant in room.grants.items():
            if grants.setdefault(name, grant) is not grant:
                raise ConfigurationError(f"two features offer the grant type {name}")
    return grants


def _ring_and_keys(settings: Settings, database: Database, clock: Clock) -> tuple[KeyRing, Keys]:
    if settings.jwt_private_key is not None:
        public, extra = settings.jwt_public_key, settings.jwt_extra_public_keys
        given = key_set_from_pems(
            algorithm=settings.jwt_algorithm,
            private=settings.jwt_private_key.get_secret_value(),
            public=public.get_secret_value() if public else None,
            extra_public=extra.get_secret_value() if extra else None,
        )
        return GivenRing(given), GivenKeys()
    if settings.secret is None:
        raise ConfigurationError(
            "a secret must be set (LATCHSTRING_SECRET, or secret=…): it seals the signing keys in the database"
        )
    previous = settings.previous_secret
    vault = Vault(settings.secret.get_secret_value(), previous=previous.get_secret_value() if previous else None)
    policy = KeyPolicy(
        # Not set, it is none that was chosen: a command run without it must not move a service to another one.
        algorithm=settings.jwt_algorithm if "jwt_algorithm" in settings.model_fields_set else None,
        cache_life=timedelta(seconds=settings.jwks_max_age_seconds),
        token_life=timedelta(minutes=settings.refresh_token_expire_minutes),
        max_age=timedelta(days=settings.key_max_days) if settings.key_max_days else None,
    )
    return DatabaseRing(database, vault, clock), DatabaseKeys(database, vault, clock, policy=policy)
