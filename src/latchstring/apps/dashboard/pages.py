"""The tutorial's dashboard as a page, and `/`, which redirects to it."""

from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI
from starlette.requests import Request
from starlette.responses import Response

from latchstring.apps.dashboard.schemas import GREETING
from latchstring.core.guard.dependencies import current_caller, current_user
from latchstring.core.guard.pages import Visitor
from latchstring.core.sessions.page_router import PageRouter
from latchstring.core.sessions.pages import method_names
from latchstring.foundation.web.pages.urls import see_other
from latchstring.inspection import Access, inspected_routes

TEMPLATES = Path(__file__).with_name("templates")
DASHBOARD = "/dashboard"
_CALLERS = {str(current_caller), str(current_user)}


def dashboard_pages(app: FastAPI, pages: PageRouter) -> APIRouter:
    """Return the page at `/dashboard`, and `/`."""
    router = pages.router(templates=TEMPLATES)
    urls, renderer = pages.urls, pages.renderer
    # Computed at the first visit, when all routes have been added; they do not change afterwards.
    guarded = cache(lambda: _guarded(app))
    PageVisitor = Annotated[Visitor, Depends(pages.visitor)]  # noqa: N806 -- a type

    @router.get("/")
    async def redirect_to_dashboard(request: Request) -> Response:
        # To the dashboard, which redirects signed-out visitors to the sign-in page.
        return see_other(urls.landing_page(request.scope))

    @router.get(DASHBOARD)
    async def show_dashboard(request: Request, visitor: PageVisitor) -> Response:
        caller = visitor.caller
        return pages.visitor_page(
            request,
            "dashboard.html",
            visitor,
            proven_at=caller.proven_at,
            methods=method_names(caller.methods, renderer.translations(request.scope)),
            expires_at=datetime.fromtimestamp(caller.expires_at_unix, UTC),
            guarded=guarded(),
            greeting=GREETING.message,
        )

    return router


def _guarded(app: FastAPI) -> list[tuple[str, str]]:
    # Guarded by `CallerDep` or `CurrentUser`: a guard's `str` is its name, which the inspection gives as `why`.
    return [
        (" ".join(route.methods), route.path)
        for route in inspected_routes(app)
        if route.access is Access.GUARDED and route.why in _CALLERS
    ]
