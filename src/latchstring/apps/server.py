"""The ready application: everything switched on, at the addresses of the contract.

create_app()   what each worker imports; reads the environment
build_app()    the same, from given settings
prepare()      schema and keys, once, before the workers start
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
    # What was imported stays for good. Looked through by each full collection, it would hold the loop for 50 ms.
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
    return app


def build_app(settings: Settings, *, clock: Clock | None = None) -> FastAPI:
    """Return the application for `settings`."""
    # Whoever serves has prepared the database, once for all workers.
    pages = Pages(name=settings.site_name, landing_page=DASHBOARD, links=[(msgid("Dashboard"), DASHBOARD)])
    auth = Auth.from_settings(settings, pages=pages if settings.pages else False, migrate=False, clock=clock)
    app = FastAPI(
        title="Latchstring",
        summary="Sign-in: register, login, refresh, logout, and a protected dashboard.",
        version=version("latchstring"),
        docs_url=None,
        redoc_url=None,
        # Its redirect would be built from the Host header, which is whatever a visitor sends.
        redirect_slashes=False,
        exception_handlers={HTTPException: _http_exception_response},
    )
    add_dashboard(app)
    auth.install(app, prefix=AUTH_PREFIX, pages_prefix="")
    if auth.mounted is not None and auth.mounted.pages is not None:
        app.include_router(dashboard_pages(app, auth.mounted.pages))
    app.include_router(health_router(auth))
    if settings.allowed_client_origin is not None:
        app.add_middleware(FrontEndCors, origin=settings.allowed_client_origin)
    app.add_middleware(HeadersMiddleware, https=settings.is_https)
    return app


async def prepare(settings: Settings, *, migrate: bool = True) -> None:
    """Bring the schema up to date and make what keys are missing; many may run it at once.

    Raises:
        ConfigurationError: the database was made under another secret.
        DatabaseUnavailableError: the database is away, or has no tables and may not be given any.
    """
    auth = Auth.from_settings(settings, features=())
    try:
        await auth.prepare(migrate=migrate)
    finally:
        await auth.close()


async def _http_exception_response(request: Request, error: Exception) -> Response:
    # What routing itself refuses; our routes answer their own.
    auth = Auth.of(request.app)
    pages = auth.mounted.pages if auth and auth.mounted else None
    status = error.status_code if isinstance(error, HTTPException) else 500
    code = {404: Code.NOT_FOUND, 405: Code.METHOD_NOT_ALLOWED}.get(status, Code.INTERNAL_ERROR)
    headers = {"Allow": ", ".join(_methods_at(request))} if code is Code.METHOD_NOT_ALLOWED else {}
    if pages is not None and _is_for_the_eye(request):
        return pages.refused(request, code, headers=headers)
    return problem_response(request.scope, code, headers=headers)


def _is_for_the_eye(request: Request) -> bool:
    # A browser goes there; a client of the JSON routes that is sent astray hears so in JSON.
    return "text/html" in request.headers.get("accept", "") and not request.url.path.startswith("/api/")


def _methods_at(request: Request) -> list[str]:
    # Routing stops at the first route of an address; RFC 9110 asks for the methods of all of them.
    return [
        method
        for method in ("GET", "POST", "PATCH", "DELETE")
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in request.app.routes)
    ]
