"""The ready application: everything switched on, at the addresses of the contract.

create_app()   what each worker imports; reads the environment
build_app()    the same, from given settings
prepare()      schema and keys, once, before the workers start
"""

import contextlib
from collections.abc import AsyncIterator
from importlib.metadata import version

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response

from latchstring import DEFAULT_FEATURES, Auth, Settings
from latchstring.apps.dashboard.routes import router as dashboard_router
from latchstring.apps.environment import read_variables, settings_from
from latchstring.apps.health import health_router
from latchstring.apps.home import move_in
from latchstring.apps.logs import configure_logging
from latchstring.apps.migrations import schema_is_current, upgrade
from latchstring.apps.openapi import describe
from latchstring.errors import Code
from latchstring.foundation.clock import Clock
from latchstring.foundation.web.headers import HeadersMiddleware
from latchstring.foundation.web.problem import problem_response

AUTH_PREFIX = "/api/auth"


def create_app() -> FastAPI:
    """Return the application that the environment describes."""
    configure_logging()
    return build_app(move_in(settings_from(read_variables())))


def build_app(settings: Settings, *, clock: Clock | None = None) -> FastAPI:
    """Return the application for `settings`."""
    auth = Auth(settings, features=DEFAULT_FEATURES, clock=clock)

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with auth.running():
            yield

    app = FastAPI(
        title="Latchstring",
        summary="Sign-in: register, login, refresh, logout, and a protected dashboard.",
        version=version("latchstring"),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        # Its redirect would be built from the Host header, which is whatever a visitor sends.
        redirect_slashes=False,
        exception_handlers={HTTPException: _answer_http_exception},
    )
    auth.install(app, prefix=AUTH_PREFIX)
    app.include_router(dashboard_router)
    app.include_router(health_router(auth))
    describe(app, auth.cookies)
    if settings.allowed_client_origin is not None:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=[settings.allowed_client_origin],
            allow_credentials=True,
            allow_methods=["GET", "POST", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type"],
            expose_headers=["Retry-After", "WWW-Authenticate", "X-Request-ID"],
        )
    app.add_middleware(HeadersMiddleware, https=settings.is_https)
    return app


async def prepare(settings: Settings, *, migrate: bool = True) -> None:
    """Bring the schema up to date and make what keys are missing; many may run it at once.

    Raises:
        ConfigurationError: the database was made under another secret.
        DatabaseUnavailableError: the database is away.
    """
    auth = Auth(settings, features=())
    try:
        if migrate and not await schema_is_current(auth.database):
            await upgrade(auth.database)
        await auth.ring.prepare()
    finally:
        await auth.close()


async def _answer_http_exception(request: Request, error: Exception) -> Response:
    # What routing itself refuses; our routes answer their own.
    status = error.status_code if isinstance(error, HTTPException) else 500
    code = {404: Code.NOT_FOUND, 405: Code.METHOD_NOT_ALLOWED}.get(status, Code.INTERNAL_ERROR)
    return problem_response(request.scope, code, headers=getattr(error, "headers", None) or {})
