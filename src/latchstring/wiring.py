"""Wiring: make every part of an `Auth` once, in dependency order. Nothing is global, and nothing is read yet.

build                               settings → Parts, before there is an application
json_routers, well_known_routers    Parts → the routers that `Auth.install` mounts
page_router, page_routers           Parts and the application → its pages
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from fastapi import APIRouter, FastAPI

from latchstring.core.accounts.store import read_user
from latchstring.core.feature import Core, Feature, FeatureParts, Tools
from latchstring.core.guard.decide import Guard
from latchstring.core.guard.dependencies import FreshDependency, OptionalUserDependency
from latchstring.core.guard.pages import VisitorDependency
from latchstring.core.guard.sockets import Sockets
from latchstring.core.keys.actions import DatabaseKeys, EnvironmentKeys, KeyPolicy, Keys
from latchstring.core.keys.key_set import key_set_from_pems
from latchstring.core.keys.ring import DatabaseRing, EnvironmentRing, KeyRing
from latchstring.core.keys.rotation import KEY_RETENTION
from latchstring.core.keys.routes import jwks_router, metadata_router
from latchstring.core.keys.store import prune_keys
from latchstring.core.restore.actions import Restore
from latchstring.core.revocations.feed import RevocationFeed
from latchstring.core.revocations.rules import REVOCATION_RETENTION
from latchstring.core.revocations.store import prune_revocations, restamp_restored
from latchstring.core.sessions.actions import Sessions
from latchstring.core.sessions.issuing import ClaimsHook, TokenIssuer
from latchstring.core.sessions.page_router import PageRouter
from latchstring.core.sessions.pages import sessions_pages, well_known_pages
from latchstring.core.sessions.redirects import Redirects
from latchstring.core.sessions.refresh import Refresher
from latchstring.core.sessions.responses import SignedInResponse
from latchstring.core.sessions.revoking import Revoker
from latchstring.core.sessions.routes import renewal_router, sessions_router
from latchstring.core.sessions.rules import RefreshLimit
from latchstring.core.sessions.step_up import StepUp, StepUpPages
from latchstring.core.sessions.store import prune_sessions
from latchstring.core.sessions.visitor_page import VisitorPage
from latchstring.core.sign_in.actions import SignIn
from latchstring.core.sign_in.token_endpoint import Grant, token_router
from latchstring.core.tokens.rules import Issuer
from latchstring.core.tokens.tokens import Tokens
from latchstring.core.users.actions import Users
from latchstring.errors import ConfigurationError
from latchstring.foundation.background import Background, Begin
from latchstring.foundation.clock import Clock
from latchstring.foundation.database import Connection, Database, Engine
from latchstring.foundation.housekeeping import Cleanup, Housekeeping
from latchstring.foundation.limits import Limits, prune_limits
from latchstring.foundation.measurements import Meter
from latchstring.foundation.measurements.meter import meter_for
from latchstring.foundation.passwords import PasswordHasher
from latchstring.foundation.subscribers import Subscribers
from latchstring.foundation.vault import Vault
from latchstring.foundation.web.context import WebContext
from latchstring.foundation.web.pages.options import Pages
from latchstring.foundation.web.pages.renderer import Renderer
from latchstring.foundation.web.pages.routes import add_asset_routes
from latchstring.foundation.web.pages.translations import msgid
from latchstring.foundation.web.pages.urls import PageUrls
from latchstring.settings import Settings


@dataclass(frozen=True, slots=True)
class Parts:
    """Every part of an `Auth`. Frozen: what is known only at `install` is in `Mounted`."""

    settings: Settings
    tools: Tools
    core: Core
    ring: KeyRing
    keys: Keys
    tokens: Tokens
    sockets: Sockets
    restore: Restore
    subscribers: Subscribers
    background: Background
    housekeeping: Housekeeping
    features: Sequence[FeatureParts]
    grants: Mapping[str, Grant]
    """The grants of all features, by `grant_type` (RFC 6749)."""
    pages: Pages | None
    """How the pages look; None without pages."""


def build(
    settings: Settings,
    database: str | Engine,
    *,
    features: Iterable[Feature],
    claims: ClaimsHook | None,
    pages: Pages | None,
    clock: Clock,
    begin: Begin,
) -> Parts:
    """Build every part, in dependency order. The arguments are those of `Auth`; `begin` starts the background tasks.

    Raises:
        ConfigurationError: unusable keys or database, a missing secret, or two features that offer the same grant.
    """
    meter = meter_for(settings)
    subscribers, background = Subscribers(meter=meter), Background(begin)
    tools = _tools(settings, database, clock, background=background, subscribers=subscribers, meter=meter)
    ring, keys = _ring_and_keys(settings, tools)
    # One issuer for issuing and verifying: `iss` is compared exactly (GHSA-75c5-xw7c-p5pm was a partial match).
    tokens = Tokens(ring, Issuer(name=settings.issuer, audience=settings.audience or settings.issuer))
    feed = RevocationFeed(tools.database, ring, clock, max_lag_seconds=settings.revocation_max_lag_seconds, meter=meter)
    core, sockets = _core(settings, tools, tokens, keys=keys, feed=feed, claims=claims)
    built = tuple(feature.build(tools, core) for feature in features)
    return Parts(
        settings=settings,
        tools=tools,
        core=core,
        ring=ring,
        keys=keys,
        tokens=tokens,
        sockets=sockets,
        restore=Restore(tools.database, core.sessions, keys, stored=[each for part in built for each in part.stored]),
        subscribers=subscribers,
        background=background,
        housekeeping=_housekeeping(settings, tools, keys, sockets),
        features=built,
        grants=_grants(built),
        pages=pages,
    )


def _tools(
    settings: Settings,
    database: str | Engine,
    clock: Clock,
    *,
    background: Background,
    subscribers: Subscribers,
    meter: Meter,
) -> Tools:
    prepared = settings.database_prepared_statements
    return Tools(
        database=Database(database, listener=subscribers, prepared_statements=prepared, meter=meter),
        clock=clock,
        passwords=PasswordHasher(settings, meter=meter),
        limits=Limits(settings, clock, meter=meter),
        web=WebContext(settings, background, meter=meter),
        meter=meter,
    )


def _core(
    settings: Settings,
    tools: Tools,
    tokens: Tokens,
    *,
    keys: Keys,
    feed: RevocationFeed,
    claims: ClaimsHook | None,
) -> tuple[Core, Sockets]:
    database, clock, lifetimes = tools.database, tools.clock, settings.lifetimes
    issuer, revoker = TokenIssuer(tokens, feed, claims=claims), Revoker(feed, access_life=lifetimes.access)
    sessions = Sessions(database, clock, tokens, keys, revoker)
    refresher = _refresher(settings, tools, tokens, feed=feed, issuer=issuer, revoker=revoker)
    # The guard is below sessions, so that sessions' own routes can be guarded: it gets this one query as a function.
    sockets = Sockets(sessions.active_among, feed, clock, recheck_interval=lifetimes.access)
    sign_in = SignIn(
        clock,
        sessions,
        refresher=refresher,
        issuer=issuer,
        revoker=revoker,
        lifetimes=lifetimes,
        sessions_per_user=settings.sessions_per_user,
    )
    core = Core(
        users=Users(database, clock, revoker),
        sessions=sessions,
        refresher=refresher,
        sign_in=sign_in,
        guard=Guard(tools.web, clock, tokens, feed, read_user=partial(read_user, database), sockets=sockets),
        feed=feed,
        signed_in_response=SignedInResponse(tools.web, clock),
    )
    return core, sockets


def _refresher(
    settings: Settings,
    tools: Tools,
    tokens: Tokens,
    *,
    feed: RevocationFeed,
    issuer: TokenIssuer,
    revoker: Revoker,
) -> Refresher:
    rate = tools.limits.refresh
    return Refresher(
        tools.database,
        tools.clock,
        tokens,
        feed=feed,
        issuer=issuer,
        revoker=revoker,
        lifetimes=settings.lifetimes,
        limit=RefreshLimit(times=rate.times, window=rate.window) if rate else None,
        ends_repeats_elsewhere=settings.refresh_repeated_elsewhere == "end",
        meter=tools.meter,
    )


def _housekeeping(settings: Settings, tools: Tools, keys: Keys, sockets: Sockets) -> Housekeeping:
    # Without `sockets.recheck`, a socket would outlive a session that expires: expiry is no entry of the feed.
    periodic_tasks = [keys.maintain, sockets.recheck]
    return Housekeeping(tools.database, tools.clock, _cleanups(settings), periodic_tasks=periodic_tasks)


def json_routers(parts: Parts) -> list[APIRouter]:
    """Return the routers below the prefix: the features', refresh and sign-out, sessions, and the token endpoint."""
    settings, tools, core = parts.settings, parts.tools, parts.core
    return [
        *(feature.router for feature in parts.features),
        renewal_router(
            core.sessions,
            core.refresher,
            tokens=parts.tokens,
            signed_in_response=core.signed_in_response,
            web=tools.web,
            clock=tools.clock,
            settings=settings,
        ),
        sessions_router(core.sessions, tools.web, settings=settings),
        token_router(core.refresher, core.signed_in_response, tools.web, grants=parts.grants),
    ]


def well_known_routers(parts: Parts, *, prefix: str, pages: PageRouter | None) -> list[APIRouter]:
    """Return the routers whose paths are fixed by standards; `prefix` is that of the token endpoint."""
    settings, max_age = parts.settings, parts.settings.jwks_max_age_seconds
    routers = [jwks_router(parts.ring, parts.tools.web, max_age_seconds=max_age)]
    # Without a public URL there is no metadata: an issuer taken from the Host header would be the visitor's choice
    # (CVE-2025-64101, GHSA-569q).
    if settings.public_url is not None:
        routers.append(
            metadata_router(
                parts.tools.web,
                public_url=settings.public_url,
                prefix=prefix,
                grant_types=("refresh_token", *parts.grants),
                max_age_seconds=max_age,
            )
        )
    if pages is not None:
        routers.append(well_known_pages(pages))
    return routers


def page_router(parts: Parts, app: FastAPI, *, prefix: str, renewal_path: str) -> PageRouter | None:
    """Return the router that an application's pages are built on; None without pages.

    Args:
        parts: the parts of its `Auth`.
        app: the application.
        prefix: the prefix of the pages.
        renewal_path: the path of the JSON route that refreshes.
    """
    options = parts.pages
    if options is None:
        return None
    # Imported here: an application without pages must not load a template engine.
    from latchstring.foundation.web.pages.templates import Templates  # noqa: PLC0415 -- it imports Jinja2

    urls = PageUrls(
        app,
        prefix=prefix,
        renewal_path=renewal_path,
        landing_page=options.landing_page,
        return_urls=parts.settings.return_urls,
    )
    templates = Templates(Path(options.templates) if options.templates else None)
    renderer = Renderer(urls, options, templates, links=_links(parts.features))
    visitor_page = VisitorPage(
        renderer, parts.tools.clock, access_life_seconds=parts.settings.lifetimes.access.total_seconds()
    )
    return PageRouter(
        urls=urls,
        renderer=renderer,
        redirects=Redirects(urls, parts.tools.web, has_step_up=_step_up(parts.features) is not None),
        visitor_page=visitor_page,
        step_up=_step_up_pages(parts, renderer, visitor_page),
        web=parts.tools.web,
        signed_in_response=parts.core.signed_in_response,
        visitor=VisitorDependency(parts.core.guard),
        optional_user=OptionalUserDependency(parts.core.guard),
    )


def _links(features: Iterable[FeatureParts]) -> list[tuple[str, str]]:
    # The features' links in their order, then that of the page in core.
    return [*(link for feature in features for link in feature.links), (msgid("Sessions"), "/account/sessions")]


def page_routers(parts: Parts, pages: PageRouter) -> list[APIRouter]:
    """Return the routers of all pages."""
    built = [feature.pages(pages) for feature in parts.features if feature.pages is not None]
    assets = pages.router()
    # Public routes: the sign-in page itself loads these files, before anybody is signed in.
    add_asset_routes(assets, pages.renderer, pages.web)
    # Ending all other sessions asks for a fresh proof, so that a stolen session can't shut its owner out.
    fresh = FreshDependency(timedelta(minutes=parts.settings.fresh_minutes), parts.core.guard)
    sessions = sessions_pages(parts.core.sessions, parts.core.refresher, pages, fresh=fresh, settings=parts.settings)
    return [*built, sessions, assets]


def _grants(features: Iterable[FeatureParts]) -> Mapping[str, Grant]:
    grants: dict[str, Grant] = {}
    for feature in features:
        for name, grant in feature.grants.items():
            # Silently taking the last one would let an added feature replace how passwords are checked.
            if grants.setdefault(name, grant) is not grant:
                raise ConfigurationError(
                    f"two features offer the grant type {name}, one of them is {feature.name}: switch one of them off"
                )
    return grants


def _step_up_pages(parts: Parts, renderer: Renderer, visitor_page: VisitorPage) -> StepUpPages | None:
    step_up = _step_up(parts.features)
    if step_up is None:
        return None
    return StepUpPages(
        step_up,
        parts.core.guard,
        renderer=renderer,
        visitor_page=visitor_page,
        signed_in_response=parts.core.signed_in_response,
        web=parts.tools.web,
    )


def _step_up(features: Iterable[FeatureParts]) -> StepUp | None:
    # If several features offer a step-up, the last one in the list of features is used.
    offered = [feature.step_up for feature in features if feature.step_up is not None]
    return offered[-1] if offered else None


def _cleanups(settings: Settings) -> tuple[Cleanup, ...]:
    kept = timedelta(days=settings.session_keep_days)

    # Each deletes at most `most` rows: batches are short transactions, so that no sign-in waits for a clean-up.
    async def sessions(connection: Connection, *, now: datetime, most: int) -> int:
        # By date, not by instant: an index on `expires_at` would cost each refresh its HOT update on PostgreSQL.
        return await prune_sessions(connection, before=(now - kept).date(), most=most)

    async def revocations(connection: Connection, *, now: datetime, most: int) -> int:
        # A day after the entry's last token has expired: a clock that is ahead must not delete what others still need.
        pruned = await prune_revocations(connection, before=now - REVOCATION_RETENTION, most=most)
        return pruned + await restamp_restored(connection, most=most)

    async def keys(connection: Connection, *, now: datetime, most: int) -> int:
        return await prune_keys(connection, before=now - KEY_RETENTION, most=most)

    return sessions, revocations, keys, prune_limits


def _ring_and_keys(settings: Settings, tools: Tools) -> tuple[KeyRing, Keys]:
    # Keys from the environment take the place of the database's; the secret then has nothing to encrypt.
    if settings.jwt_private_key is not None:
        public, extra = settings.jwt_public_key, settings.jwt_extra_public_keys
        given = key_set_from_pems(
            algorithm=settings.jwt_algorithm,
            private=settings.jwt_private_key.get_secret_value(),
            public=public.get_secret_value() if public else None,
            extra_public=extra.get_secret_value() if extra else None,
        )
        return EnvironmentRing(given), EnvironmentKeys()
    if settings.secret is None:
        raise ConfigurationError(
            "a secret must be set (LATCHSTRING_SECRET, or secret=…): it encrypts the signing keys in the database"
        )
    # Two secrets at once, so that the secret can be changed while instances with the old one still run.
    previous = settings.previous_secret
    vault = Vault(settings.secret.get_secret_value(), previous=previous.get_secret_value() if previous else None)
    policy = KeyPolicy(
        # Only if it is set explicitly: a command run without the variable must not rotate a service to the default.
        algorithm=settings.jwt_algorithm if "jwt_algorithm" in settings.model_fields_set else None,
        # A new key is published for as long as caches may lack it, before it signs.
        cache_life=timedelta(seconds=settings.jwks_max_age_seconds),
        # A retired key verifies until its last refresh token, the longest-lived one, has expired.
        token_life=timedelta(minutes=settings.refresh_token_expire_minutes),
        max_age=timedelta(days=settings.key_max_days) if settings.key_max_days else None,
    )
    database, clock = tools.database, tools.clock
    ring = DatabaseRing(database, vault, clock, meter=tools.meter)
    return ring, DatabaseKeys(database, vault, clock, policy=policy)
