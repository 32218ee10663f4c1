"""What an application lets in, looked at before somebody else does: its routes, CORS, cookies, keys and schema.

    guarded      a dependency of ours decides who may come in, or one that the application names
    public       it was said that everybody may: `@public`, `OptionalUser`, a path that is named, our own ways in
    undeclared   nobody said anything

Routes are read off the application as it is put together; none is called.
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
# Of a secret of 32 characters drawn at random, however it is written, hardly one in a billion has fewer.
_FEWEST_DIFFERENT_CHARACTERS = 10
_RSA_GOOD_BITS = 3072
_SESSIONS_MODULE = "starlette.middleware.sessions"
_FOREIGN_ORIGIN = "https://nobody.example"


class Access(StrEnum):
    """Whom a route lets in."""

    GUARDED = "guarded"
    PUBLIC = "public"
    UNDECLARED = "undeclared"


@dataclass(frozen=True, slots=True)
class InspectedRoute(InstanceOnly):
    """A route, a WebSocket or a mounted application."""

    path: str
    methods: tuple[str, ...]
    """Empty, where it is no route of HTTP."""
    access: Access
    why: str
    """What says so."""
    ignored_scopes: tuple[str, ...] = ()
    """Scopes that a guard of ours was given, which knows none."""

    def __str__(self) -> str:
        """Return it in one line."""
        return f"{self.access:<10} {' '.join(self.methods) or '-':<7} {self.path}  ({self.why})"


@dataclass(frozen=True, slots=True)
class Finding(InstanceOnly):
    """Something that must not stay so."""

    name: str
    """`undeclared_route`, `ignored_scopes`, `overridden_guard`, `wildcard_cors`, `insecure_cookies`, `weak_secret`,
    `weak_key`, `schema_drift` or `not_inspected`."""
    words: str


@dataclass(frozen=True, slots=True)
class Inspection(InstanceOnly):
    """What was seen."""

    routes: tuple[InspectedRoute, ...]
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def __str__(self) -> str:
        """Return all of it for a person: a line for each route, and for each finding."""
        lines = [str(route) for route in self.routes]
        return "\n".join([*lines, *(f"FOUND {finding.name}: {finding.words}" for finding in self.findings)])


def public(endpoint: _Endpoint) -> _Endpoint:
    """Declare that everybody may come to a route: a decorator below the one that adds it. Nothing changes but that."""
    setattr(endpoint, _PUBLIC, True)
    return endpoint


def guarding(dependency: _Endpoint) -> _Endpoint:
    """Declare that a dependency of your own lets nobody in unasked: a decorator. Nothing changes but that."""
    # The very function: what wraps it, and takes over its attributes, may catch what it refuses with.
    setattr(dependency, _GUARDS, dependency)
    return dependency


def inspected_routes(app: Starlette, *, public_paths: Iterable[str] = ()) -> tuple[InspectedRoute, ...]:
    """Return every route of an application and of those mounted in it, in the order of their paths.

    Args:
        app: the application.
        public_paths: addresses that everybody may come to; one that ends with `*` means all that begin so.
    """
    declared = (public_paths,) if isinstance(public_paths, str) else tuple(public_paths)
    found = [
        _named_public(route, declared) if route.access is Access.UNDECLARED else route
        for route in _routes(app, prefix="")
    ]
    return tuple(sorted(found, key=lambda route: (route.path, route.methods)))


def found_in_routes(routes: Iterable[InspectedRoute]) -> Iterator[Finding]:
    """Find routes of which nobody said whom they let in, or said it in words that no guard hears."""
    for route in routes:
        if route.access is Access.UNDECLARED:
            methods = " ".join(route.methods)
            yield Finding("undeclared_route", f"{methods} {route.path} is neither guarded nor declared public".strip())
        if route.ignored_scopes:
            scopes = " ".join(route.ignored_scopes)
            words = f"{route.path} asks for {scopes}, which no guard looks at: say requires(role=…)"
            yield Finding("ignored_scopes", words)


def found_in_applications(app: Starlette) -> Iterator[Finding]:
    """Find CORS that lets every site read what only one person may, cookies in the clear, and overridden guards.

    In an application, in all that are mounted in it, and in whatever stands around any of them.
    """
    for path, layer in _layers(app, path=""):
        where = path or "the application"
        if isinstance(layer, CORSMiddleware) and _lets_any_site_in(layer):
            yield Finding("wildcard_cors", f"{where} lets any site call with credentials")
        if type(layer).__module__ == _SESSIONS_MODULE and "secure" not in getattr(layer, "security_flags", ""):
            yield Finding(
                "insecure_cookies", f"SessionMiddleware of {where} sends its cookie by http: say https_only=True"
            )
        for overridden in getattr(layer, "dependency_overrides", ()):
            if isinstance(overridden, GuardDependency):
                yield Finding("overridden_guard", f"{where} has something else in the place of {overridden}")


def found_unseen() -> Iterator[Finding]:
    """Find what can't be seen in this FastAPI and Starlette, so that a name that they changed is no clean bill.

    Routes, CORS and overrides are read from attributes that are hardly documented. Where one is gone, nothing would be
    found, in silence: so an application that has each of these holes is looked at first.
    """
    app = _full_of_holes()
    routes = inspected_routes(app)
    seen = {finding.name for finding in (*found_in_routes(routes), *found_in_applications(app))}
    seen |= {route.path for route in routes}
    for hole, what in _HOLES.items():
        if hole not in seen:
            versions = f"FastAPI {fastapi.__version__} with Starlette {starlette.__version__}"
            yield Finding("not_inspected", f"{what} can't be seen in {versions}: look yourself, or upgrade latchstring")


_HOLES = {
    "/included": "routes of included routers",
    "/frontend/*": "what app.frontend(…) serves",
    "/mounted/route": "routes of mounted applications",
    "ignored_scopes": "scopes that are asked of a guard",
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
    # By their names, like everything here that is no part of what Starlette documents; see `found_unseen`.
    is_allowed = getattr(cors, "is_allowed_origin", None)
    return bool(getattr(cors, "allow_credentials", False) and is_allowed and is_allowed(_FOREIGN_ORIGIN))


def _layers(app: object, *, path: str) -> Iterator[tuple[str, object]]:
    for layer in _unwrapped(app):
        yield path, layer
        # As they are configured, not as their arguments are spelled: each middleware is built around nothing.
        for middleware in getattr(layer, "user_middleware", ()):
            kind = middleware.cls.func if isinstance(middleware.cls, partial) else middleware.cls
            is_cors = isinstance(kind, type) and issubclass(kind, CORSMiddleware)
            # No other one: to make it may mean to open something.
            if is_cors or getattr(kind, "__module__", "") == _SESSIONS_MODULE:
                yield path, middleware.cls(_nowhere, *middleware.args, **middleware.kwargs)
        for route in getattr(layer, "routes", ()):
            if isinstance(route, Mount | Host):
                yield from _layers(route.app, path=path + getattr(route, "path", ""))


def found_in_settings(settings: Settings, keys: KeySet | None) -> Iterator[Finding]:
    """Find cookies that travel in the clear, a secret that can be guessed, and keys that are too short.

    Args:
        settings: those in force.
        keys: those in force, where they are known.
    """
    if not settings.is_https:
        yield Finding("insecure_cookies", "cookies are not Secure: set the public URL to an https address")
    secret = settings.secret.get_secret_value() if settings.secret else None
    if secret is not None and len(set(secret)) < _FEWEST_DIFFERENT_CHARACTERS:
        yield Finding("weak_secret", "the secret repeats itself: make one with python -m secrets")
    for kid, bits in keys.rsa_sizes().items() if keys else ():
        if bits < _RSA_GOOD_BITS:
            yield Finding("weak_key", f"the RSA key {kid} has {bits} bits, and less than {_RSA_GOOD_BITS}")


def _routes(app: Starlette, *, prefix: str) -> Iterator[InspectedRoute]:
    around: list[object] = [middleware.cls for middleware in getattr(app, "user_middleware", ())]
    if GuardMiddleware in around:
        yield InspectedRoute(prefix + "/*", (), Access.GUARDED, "GuardMiddleware")
        return
    for context in iter_route_contexts(app.routes):
        route = context.original_route
        path = prefix + (context.path or getattr(route, "path", None) or "")
        if isinstance(route, Mount | Host):
            yield from _mounted(route, path)
            continue
        methods = tuple(sorted(set(context.methods or ()) - {"HEAD"}))
        access, why = _access(context, route)
        yield InspectedRoute(path or "/", methods, access, why, _ignored_scopes(context))
    yield from _frontends(app, prefix=prefix)


def _frontends(app: Starlette, *, prefix: str) -> Iterator[InspectedRoute]:
    # What `app.frontend(…)` serves FastAPI keeps apart from all other routes, under a name of its own.
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
    # A middleware keeps what it stands around as `app`; so do ours, and all of Starlette's. Something else may have
    # there what stands around it.
    seen: list[object] = []
    while app is not None and not any(app is each for each in seen):
        seen.append(app)
        yield app
        app = getattr(app, "app", None)


def _as_far_as_routes(layers: Iterable[object]) -> Iterator[object]:
    for layer in layers:
        yield layer
        if hasattr(layer, "routes"):
            return


def _access(context: Any, route: Any) -> tuple[Access, str]:  # noqa: ANN401 -- FastAPI's own kinds of routes
    asked = list(dependencies_of(context))
    for call in asked:
        if _is_guard(call):
            return Access.GUARDED, str(call) if isinstance(call, GuardDependency) else _name(call)
    if any(isinstance(call, GuardDependency) for call in asked):
        return Access.PUBLIC, "OptionalUser"
    endpoint = context.endpoint
    if getattr(endpoint, _PUBLIC, False):
        return Access.PUBLIC, "declared"
    module = getattr(endpoint, "__module__", "")
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
    # One of ours says so itself, and one of the application's was marked.
    return getattr(call, "allows_anonymous", None) is False or getattr(call, _GUARDS, None) is call


def _name(something: object) -> str:
    return getattr(something, "__qualname__", type(something).__name__)


def _named_public(route: InspectedRoute, declared: Sequence[str]) -> InspectedRoute:
    for path in declared:
        if route.path == path or (path.endswith("*") and route.path.startswith(path[:-1])):
            return InspectedRoute(route.path, route.methods, Access.PUBLIC, f"named: {path}")
    return route


async def _nowhere(_scope: object, _receive: object, _send: object) -> None:
    """Stand where an application would, for a middleware that is only looked at."""
