"""The ready application, with every feature, at the tutorial's paths.

create_app()   the factory each worker calls; reads the environment
build_app()    the same, from given settings
prepare()      migrate the schema and make keys, once, before the workers start
"""

import gc
from importlib.metadata import version

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from latchstring import Auth, Pages, Settings
from latchstring.apps.cors import FrontEndCors
from latchstring.apps.dashboard.pages import DASHBOARD, dashboard_pages
from latchstring.apps.dashboard.routes import add_dashboard
from latchstring.apps.data_directory import prepare_data_directory
from latchstring.apps.environment import read_variables, settings_from
from latchstring.apps.health import health_router
from latchstring.apps.logs import configure_logging
from latchstring.errors import Code
from latchstring.foundation.clock import Clock
from latchstring.foundation.web.headers import HeadersMiddleware
from latchstring.foundation.web.pages.translations import msgid
from latchstring.foundation.web.problem import problem_response

AUTH_PREFIX = "/api/auth"


def create_app() -> FastAPI:
    """Return the application that the environment describes."""
    configure_logging()
    app = build_app(prepare_data_directory(settings_from(read_variables())))
    # Imported objects are never freed. Left to the garbage collector, each full collection would examine them and
    # block the event loop for 50 ms (measured).
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
    return app


def build_app(settings: Settings, *, clock: Clock | None = None) -> FastAPI:
    """Return the application for `settings`."""
    # `migrate=False` below: `serve` has migrated the database, once for all workers.
    pages = Pages(name=settings.site_name, landing_page=DASHBOARD, links=[(msgid("Dashboard"), DASHBOARD)])
    auth = Auth.from_settings(settings, pages=pages if settings.pages else False, migrate=False, clock=clock)
    app = FastAPI(
        title="Latchstring",
        summary="Sign-in: register, login, refresh, logout, and a protected dashboard.",
        version=version("latchstring"),
        # FastAPI's documentation pages load scripts from a CDN, which our content security policy refuses.
        docs_url=None,
        redoc_url=None,
        # Starlette builds that redirect from the Host header, which the visitor chooses (open redirect).
        redirect_slashes=False,
        exception_handlers={HTTPException: _http_exception_response},
        # FastAPI's spans hold the path and the query string, its log records what was sent: links carry `?token=…`.
        telemetry={"tracing": False, "logs": False},
    )
    add_dashboard(app)
    auth.install(app, prefix=AUTH_PREFIX, pages_prefix="")
    if auth.mounted is not None and auth.mounted.pages is not None:
        app.include_router(dashboard_pages(app, auth.mounted.pages))
    app.include_router(health_router(auth))
    if settings.allowed_client_origin is not None:
        app.add_middleware(FrontEndCors, origin=settings.allowed_client_origin)
    # Added last, and so outermost: preflights and errors carry the security headers too.
    app.add_middleware(HeadersMiddleware, https=settings.is_https)
    return app


async def prepare(settings: Settings, *, migrate: bool = True) -> None:
    """Migrate the schema and make missing keys. Safe to run in several processes at once.

    Raises:
        ConfigurationError: the database was made under another secret.
        DatabaseUnavailableError: the database is unavailable, or has no tables while `migrate` is False.
    """
    auth = Auth.from_settings(settings, features=())
    try:
        await auth.prepare(migrate=migrate)
    finally:
        await auth.close()


async def _http_exception_response(request: Request, error: Exception) -> Response:
    # Only for refusals by Starlette's routing (404, 405); our own routes respond to their own refusals.
    auth = Auth.of(request.app)
    pages = auth.mounted.pages if auth and auth.mounted else None
    status = error.status_code if isinstance(error, HTTPException) else 500
    code = {404: Code.NOT_FOUND, 405: Code.METHOD_NOT_ALLOWED}.get(status, Code.INTERNAL_ERROR)
    headers = {"Allow": ", ".join(_methods_at(request))} if code is Code.METHOD_NOT_ALLOWED else {}
    if pages is not None and _wants_html(request):
        return pages.refused(request, code, headers=headers)
    return problem_response(request.scope, code, headers=headers)


def _wants_html(request: Request) -> bool:
    # A browser's navigation gets a page. Clients of the JSON routes always get JSON, whatever they accept.
    return "text/html" in request.headers.get("accept", "") and not request.url.path.startswith("/api/")


def _methods_at(request: Request) -> list[str]:
    # RFC 9110, 15.5.6: `Allow` lists all methods of the resource. Routing gives those of the first matching route only.
    return [
        method
        for method in ("GET", "POST", "PATCH", "DELETE")
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in request.app.routes)
    ]
