"""Inspect an application for holes: its routes, CORS, cookies, keys and schema.

    guarded      one of our guards, or a dependency marked by `@guarding`, decides who gets in
    public       declared so: `@public`, `OptionalUser`, a path that is named, our own sign-in routes
    undeclared   neither: a finding

Routes are read from the assembled application; no endpoint is called.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import fastapi
import starlette
from fastapi import APIRouter, FastAPI, Security
from fastapi.routing import iter_route_contexts
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.routing import Host, Mount

from latchstring.annotations import InstanceOnly
from latchstring.core.guard.dependencies import GuardDependency, current_caller
from latchstring.core.guard.middleware import GuardMiddleware
from latchstring.core.keys.key_set import KeySet
from latchstring.foundation.web.route import ProblemRoute, dependants_of, dependencies_of
from latchstring.settings import Settings

_PUBLIC = "__latchstring_public__"
_GUARDS = "__latchstring_guards__"
_Endpoint = TypeVar("_Endpoint", bound=Callable[..., Any])
# Fewer than one in a billion random secrets has fewer: of 32 characters in base64, or of 64 in hex.
_FEWEST_DIFFERENT_CHARACTERS = 10
# 2,048 bits are accepted, the minimum of RFC 7518, 3.3; the keys we make have 3,072.
_RSA_GOOD_BITS = 3072
_SESSIONS_MODULE = "starlette.middleware.sessions"
_FOREIGN_ORIGIN = "https://nobody.example"


class Access(StrEnum):
    """Who may call a route."""

    GUARDED = "guarded"
    PUBLIC = "public"
    UNDECLARED = "undeclared"


@dataclass(frozen=True, slots=True)
class InspectedRoute(InstanceOnly):
    """A route, a WebSocket or a mounted application."""

    path: str
    methods: tuple[str, ...]
    """Empty for WebSockets and mounted applications."""
    access: Access
    why: str
    """What decides it: the guard's name, or how the route was declared."""
    ignored_scopes: tuple[str, ...] = ()
    """Scopes given to one of our guards, which check no scopes."""

    def __str__(self) -> str:
        """Return the route as one line."""
        return f"{self.access:<10} {' '.join(self.methods) or '-':<7} {self.path}  ({self.why})"


@dataclass(frozen=True, slots=True)
class Finding(InstanceOnly):
    """Something to fix, found by `auth.audit`."""

    name: str
    """`undeclared_route`, `ignored_scopes`, `overridden_guard`, `wildcard_cors`, `insecure_cookies`, `weak_secret`,
    `weak_key`, `schema_drift`, `prepared_statements` or `not_inspected`."""
    words: str
    """What is wrong, and usually what to do about it."""


@dataclass(frozen=True, slots=True)
class Inspection(InstanceOnly):
    """The result of `auth.audit`: every route, and what was found."""

    routes: tuple[InspectedRoute, ...]
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def __str__(self) -> str:
        """Return a line for each route and for each finding, for people."""
        lines = [str(route) for route in self.routes]
        return "\n".join([*lines, *(f"FOUND {finding.name}: {finding.words}" for finding in self.findings)])


def public(endpoint: _Endpoint) -> _Endpoint:
    """Declare a route public: a decorator below the one that adds the route. It changes nothing at run time."""
    setattr(endpoint, _PUBLIC, True)
    return endpoint


def guarding(dependency: _Endpoint) -> _Endpoint:
    """Declare that a dependency of your own is a guard: a decorator. It changes nothing at run time."""
    # The function itself, not True: `functools.wraps` copies attributes to a wrapper that may catch the refusal.
    setattr(dependency, _GUARDS, dependency)
    return dependency


def inspected_routes(app: Starlette, *, public_paths: Iterable[str] = ()) -> tuple[InspectedRoute, ...]:
    """Return every route of an application and of the applications mounted in it, ordered by path.

    Args:
        app: the application.
        public_paths: paths that are public. A trailing `*` matches every path that begins with what is before it.
    """
    # A lone string is an iterable of its characters: `public="/"` would declare nothing that was meant.
    declared = (public_paths,) if isinstance(public_paths, str) else tuple(public_paths)
    found = [
        _named_public(route, declared) if route.access is Access.UNDECLARED else route
        for route in _routes(app, prefix="")
    ]
    return tuple(sorted(found, key=lambda route: (route.path, route.methods)))


def found_in_routes(routes: Iterable[InspectedRoute]) -> Iterator[Finding]:
    """Find routes that are neither guarded nor public, and scopes given to a guard that ignores them."""
    for route in routes:
        if route.access is Access.UNDECLARED:
            methods = " ".join(route.methods)
            yield Finding("undeclared_route", f"{methods} {route.path} is neither guarded nor declared public".strip())
        # `Security(current_user, scopes=["admin"])` reads like a check, and lets in every user.
        if route.ignored_scopes:
            scopes = " ".join(route.ignored_scopes)
            words = f"{route.path} asks for {scopes}, but guards ignore scopes: use requires(role=…)"
            yield Finding("ignored_scopes", words)


def found_in_applications(app: Starlette) -> Iterator[Finding]:
    """Find CORS that any site may use with credentials, session cookies sent over http, and overridden guards.

    Looks at the application, at all applications mounted in it, and at the middleware around each of them.
    """
    for path, layer in _layers(app, path=""):
        where = path or "the application"
        # Any site that a signed-in visitor opens could then read their data (CVE-2024-25124, CVE-2024-41657).
        if isinstance(layer, CORSMiddleware) and _lets_any_site_in(layer):
            yield Finding(
                "wildcard_cors", f"{where} allows any site to call with credentials: list origins in allow_origins"
            )
        if type(layer).__module__ == _SESSIONS_MODULE and "secure" not in getattr(layer, "security_flags", ""):
            yield Finding(
                "insecure_cookies", f"SessionMiddleware of {where} sends its cookie over http: set https_only=True"
            )
        # A test that overrode a guard and was left behind in production code lets everybody in.
        for overridden in getattr(layer, "dependency_overrides", ()):
            if isinstance(overridden, GuardDependency):
                yield Finding("overridden_guard", f"dependency_overrides of {where} replaces {overridden}: remove it")


def found_unseen() -> Iterator[Finding]:
    """Find what this inspection can't see in the installed FastAPI and Starlette.

    Routes, CORS and overrides are read from attributes that are hardly documented. If a release renames one, nothing
    would be found, silently. So an application that has every kind of hole is inspected too: each must be found.
    """
    app = _full_of_holes()
    routes = inspected_routes(app)
    found = {finding.name for finding in (*found_in_routes(routes), *found_in_applications(app))}
    found |= {route.path for route in routes}
    for hole, what in _HOLES.items():
        if hole not in found:
            versions = f"FastAPI {fastapi.__version__} with Starlette {starlette.__version__}"
            yield Finding(
                "not_inspected", f"{what} can't be inspected in {versions}: check by hand, or upgrade latchstring"
            )


_HOLES = {
    "/included": "routes of included routers",
    "/frontend/*": "files served by app.frontend(…)",
    "/mounted/route": "routes of mounted applications",
    "ignored_scopes": "scopes given to a guard",
    "wildcard_cors": "CORS",
    "overridden_guard": "overridden guards",
}


def _full_of_holes() -> FastAPI:
    router, mounted = APIRouter(), Starlette()
    router.add_api_route("/included", lambda: None)
    mounted.add_route("/route", lambda _request: Response())
    app = FastAPI(openapi_url=None)
    app.include_router(router, dependencies=[Security(current_caller, scopes=["none"])])
    app.frontend("/frontend", directory=Path(__file__).parent)
    app.mount("/mounted", mounted)
    app.add_middleware(CORSMiddleware, allow_origins=["*"], allow_credentials=True)
    app.dependency_overrides[current_caller] = lambda: None
    return app


def _lets_any_site_in(cors: CORSMiddleware) -> bool:
    # The middleware's own decision about a foreign origin, because a pattern may allow everything as well as `*` does.
    # By attribute names that Starlette does not document: `found_unseen` notices when one of them changes.
    is_allowed = getattr(cors, "is_allowed_origin", None)
    return bool(getattr(cors, "allow_credentials", False) and is_allowed and is_allowed(_FOREIGN_ORIGIN))


def _layers(app: object, *, path: str) -> Iterator[tuple[str, object]]:
    for layer in _unwrapped(app):
        yield path, layer
        # Each middleware is instantiated around a dummy application, so that defaults and subclasses count as well.
        for middleware in getattr(layer, "user_middleware", ()):
            kind = middleware.cls.func if isinstance(middleware.cls, partial) else middleware.cls
            is_cors = isinstance(kind, type) and issubclass(kind, CORSMiddleware)
            # Only these two: instantiating another one may open files or connections.
            if is_cors or getattr(kind, "__module__", "") == _SESSIONS_MODULE:
                yield path, middleware.cls(_nowhere, *middleware.args, **middleware.kwargs)
        for route in getattr(layer, "routes", ()):
            if isinstance(route, Mount | Host):
                yield from _layers(route.app, path=path + getattr(route, "path", ""))


def found_in_settings(settings: Settings, keys: KeySet | None) -> Iterator[Finding]:
    """Find cookies sent over http, a secret that can be guessed, and RSA keys that are too short.

    Args:
        settings: the settings in force.
        keys: the keys in force; None if they can't be read.
    """
    # Without https there is neither `Secure` nor the `__Host-` prefix, and a sibling domain can plant our cookies.
    if not settings.is_https:
        yield Finding("insecure_cookies", "cookies are not Secure: set public_url to an https URL")
    secret = settings.secret.get_secret_value() if settings.secret else None
    # It encrypts the private keys: with a copy of the database, a guessed secret signs tokens for anybody.
    if secret is not None and len(set(secret)) < _FEWEST_DIFFERENT_CHARACTERS:
        yield Finding("weak_secret", "the secret has too few different characters: make one with python -m secrets")
    for kid, bits in keys.rsa_sizes().items() if keys else ():
        if bits < _RSA_GOOD_BITS:
            yield Finding("weak_key", f"the RSA key {kid} has {bits} bits: rotate to one of at least {_RSA_GOOD_BITS}")


def _routes(app: Starlette, *, prefix: str) -> Iterator[InspectedRoute]:
    around: list[object] = [middleware.cls for middleware in getattr(app, "user_middleware", ())]
    # It guards everything inside: no route below it can be reached without it.
    if GuardMiddleware in around:
        yield InspectedRoute(prefix + "/*", (), Access.GUARDED, "GuardMiddleware")
        return
    for context in iter_route_contexts(app.routes):
        route = context.original_route
        path = prefix + (context.path or getattr(route, "path", None) or "")
        if isinstance(route, Mount | Host):
            yield from _mounted(route, path)
            continue
        # Starlette adds HEAD to every GET: as a row of its own it would say nothing.
        methods = tuple(sorted(set(context.methods or ()) - {"HEAD"}))
        access, why = _access(context, route)
        yield InspectedRoute(path or "/", methods, access, why, _ignored_scopes(context))
    yield from _frontends(app, prefix=prefix)


def _frontends(app: Starlette, *, prefix: str) -> Iterator[InspectedRoute]:
    # FastAPI keeps the routes of `app.frontend(…)` apart from all others, under this private name.
    for found in getattr(app.router, "_iter_low_priority_routes", tuple)():
        group = getattr(found, "original_route", found)
        for route in getattr(group, "routes", ()):
            path = prefix + getattr(found, "frontend_prefix", "") + route.path
            guards = [str(call) for call in dependencies_of(found) if _is_guard(call)]
            access, why = (Access.GUARDED, guards[0]) if guards else (Access.UNDECLARED, "frontend")
            yield InspectedRoute(path.rstrip("/") + "/*", (), access, why)


def _mounted(route: Mount | Host, path: str) -> Iterator[InspectedRoute]:
    where = path.rstrip("/") + "/*"
    around = list(_as_far_as_routes(_unwrapped(route.app)))
    inner = around[-1]
    # Any layer of the stack: `auth.protect` may itself be wrapped in other middleware.
    if any(isinstance(layer, GuardMiddleware) for layer in around):
        yield InspectedRoute(where, (), Access.GUARDED, "auth.protect")
    elif isinstance(inner, Starlette):
        yield from _routes(inner, prefix=path.rstrip("/"))
    elif hasattr(inner, "routes"):
        yield from _routes(Starlette(routes=list(inner.routes)), prefix=path.rstrip("/"))
    elif any(getattr(layer, _PUBLIC, False) for layer in around):
        yield InspectedRoute(where, (), Access.PUBLIC, "declared")
    else:
        yield InspectedRoute(where, (), Access.UNDECLARED, type(inner).__name__)


def _unwrapped(app: Any) -> Iterator[Any]:  # noqa: ANN401 -- any ASGI application
    # By convention a middleware keeps the application it wraps as `app`, as ours and Starlette's do. Other objects may
    # keep the application around them there, hence the check for a loop.
    visited: list[object] = []
    while app is not None and not any(app is each for each in visited):
        visited.append(app)
        yield app
        app = getattr(app, "app", None)


def _as_far_as_routes(layers: Iterable[object]) -> Iterator[object]:
    for layer in layers:
        yield layer
        if hasattr(layer, "routes"):
            return


def _access(context: Any, route: Any) -> tuple[Access, str]:  # noqa: ANN401 -- FastAPI's own kinds of routes
    calls = list(dependencies_of(context))
    # A guard anywhere in the tree of dependencies counts, before any declaration: FastAPI runs all of them.
    for call in calls:
        if _is_guard(call):
            return Access.GUARDED, str(call) if isinstance(call, GuardDependency) else _name(call)
    if any(isinstance(call, GuardDependency) for call in calls):
        return Access.PUBLIC, "OptionalUser"
    endpoint = context.endpoint
    if getattr(endpoint, _PUBLIC, False):
        return Access.PUBLIC, "declared"
    module = getattr(endpoint, "__module__", "")
    # Both, so that an application's own module called `latchstring.…` is not taken for ours.
    if isinstance(route, ProblemRoute) and module.startswith("latchstring."):
        return Access.PUBLIC, "Latchstring's own"
    if module == "fastapi.applications":
        return Access.PUBLIC, "FastAPI's documentation"
    return Access.UNDECLARED, _name(endpoint)


def _ignored_scopes(context: object) -> tuple[str, ...]:
    scopes: dict[str, None] = {}
    for dependant in dependants_of(context):
        call: object = dependant.call
        if isinstance(call, GuardDependency):
            scopes |= dict.fromkeys(dependant.own_oauth_scopes or ())
    return tuple(scopes)


def _is_guard(call: object) -> bool:
    # Our own guards have the attribute; the application's were marked by `@guarding`.
    return getattr(call, "allows_anonymous", None) is False or getattr(call, _GUARDS, None) is call


def _name(something: object) -> str:
    return getattr(something, "__qualname__", type(something).__name__)


def _named_public(route: InspectedRoute, declared: Sequence[str]) -> InspectedRoute:
    for path in declared:
        if route.path == path or (path.endswith("*") and route.path.startswith(path[:-1])):
            return InspectedRoute(route.path, route.methods, Access.PUBLIC, f"named: {path}")
    return route


async def _nowhere(_scope: object, _receive: object, _send: object) -> None:
    """Stand in for the application inside a middleware that is only inspected."""
