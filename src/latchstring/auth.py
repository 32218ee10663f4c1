"""Auth: settings and features in, mounted rooms out; what an application holds.

It builds every part once, from the floor up, and hands each what it needs. Nothing is global: two of them in one
process know nothing of each other.
"""

import contextlib
from collections.abc import AsyncIterator, Iterable
from datetime import datetime, timedelta

from fastapi import APIRouter, FastAPI

from latchstring.core.accounts.actions import Accounts
from latchstring.core.feature import Core, Feature, Foundation, Room
from latchstring.core.sessions.actions import Sessions
from latchstring.core.sessions.feed import RevocationFeed
from latchstring.core.sessions.grants import Grant, token_router
from latchstring.core.sessions.guard import Guard
from latchstring.core.sessions.routes import SignedInAnswer, renewal_router, sessions_router
from latchstring.core.sessions.rules import REVOCATIONS_KEPT, Lifetimes, RefreshLimit
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
from latchstring.errors import ConfigurationError
from latchstring.foundation.clock import Clock, SystemClock
from latchstring.foundation.crypto import Vault
from latchstring.foundation.database import Connection, Database
from latchstring.foundation.housekeeping import Chore, Housekeeping
from latchstring.foundation.limits import Limits, prune_limits
from latchstring.foundation.passwords import PasswordHasher
from latchstring.foundation.web.edge import Edge
from latchstring.foundation.web.route import PrefixRouter
from latchstring.settings import Settings


class Auth:
    """Sign-in for one application."""

    def __init__(self, settings: Settings, *, features: Iterable[Feature], clock: Clock | None = None) -> None:
        """Build every part; nothing is read or opened yet.

        Args:
            settings: the configuration. With keys in the database, `secret` must be set.
            features: what to switch on.
            clock: the time; the machine's by default.

        Raises:
            ConfigurationError: keys that can't be used, a missing secret, or a database driver not installed.
        """
        clock = clock or SystemClock()
        self.settings = settings
        self.clock = clock
        self.database = Database(settings.database)
        self.ring, self.keys = _ring_and_keys(settings, self.database, clock)
        lifetimes = Lifetimes(
            access=timedelta(minutes=settings.access_token_expire_minutes),
            refresh=timedelta(minutes=settings.refresh_token_expire_minutes),
            session=timedelta(days=settings.session_max_days),
            grace=timedelta(seconds=settings.refresh_grace_seconds),
        )
        self.limits = Limits(settings, clock)
        rate = self.limits.refresh
        edge = Edge(settings)
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
        )
        self.sign_in = SignIn(clock, self.sessions, lifetimes=lifetimes, sessions_per_user=settings.sessions_per_user)
        self.guard = Guard(edge, clock, tokens, self.feed, self.accounts)
        answer = SignedInAnswer(edge, clock)
        self.housekeeping = Housekeeping(self.database, clock, _chores(settings), duties=[self.keys.tend])
        foundation = Foundation(
            database=self.database, clock=clock, passwords=self.hasher, limits=self.limits, edge=edge
        )
        core = Core(
            accounts=self.accounts,
            sessions=self.sessions,
            sign_in=self.sign_in,
            guard=self.guard,
            feed=self.feed,
            signed_in_answer=answer,
        )
        rooms = [feature.build(foundation, core) for feature in features]
        self._routers = [room.router for room in rooms]
        self._routers += [
            renewal_router(self.sessions, tokens, answer, edge, clock, settings=settings),
            sessions_router(self.sessions, edge, settings=settings),
            token_router(self.sessions, edge, clock, grants=_grants(rooms)),
        ]
        self._edge, self._grant_types = edge, ("refresh_token", *_grants(rooms))

    def install(self, app: FastAPI, *, prefix: str = "/auth") -> None:
        """Mount every room's routes on `app` under `prefix`, the public keys at their well-known address.

        Run the application inside `running()`.

        Raises:
            ConfigurationError: an `Auth` was installed there before.
        """
        if getattr(app.state, "latchstring", None) is not None:
            raise ConfigurationError("an Auth is installed in this application already")
        app.state.latchstring = self
        app.include_router(PrefixRouter(prefix, self._routers), prefix=prefix)
        app.include_router(PrefixRouter("", self._well_known(prefix)))

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
        return routers

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follow revocations and keys, and clear away what is old, while the block runs; then close what was opened."""
        try:
            async with self.feed.following(), self.housekeeping.going_on():
                yield
        finally:
            await self.close()

    async def close(self) -> None:
        """Close the database's connections and the hashing threads."""
        self.hasher.close()
        await self.database.close()


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
        raise ConfigurationError("LATCHSTRING_SECRET must be set: it seals the signing keys in the database")
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
