"""PageRouter: the routers of every package's pages, and the responses that pages share."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from latchstring.core.guard.dependencies import OptionalUserDependency
from latchstring.core.guard.pages import VisitorDependency
from latchstring.core.sessions.issuing import SignedIn
from latchstring.core.sessions.redirects import Redirects
from latchstring.core.sessions.responses import SignedInResponse
from latchstring.core.sessions.step_up import StepUpPages
from latchstring.core.sessions.visitor_page import VisitorPage
from latchstring.errors import Code
from latchstring.foundation.web.context import WebContext
from latchstring.foundation.web.measured import Handler
from latchstring.foundation.web.pages.policy import with_headers
from latchstring.foundation.web.pages.renderer import Renderer
from latchstring.foundation.web.pages.route import PageRoute
from latchstring.foundation.web.pages.urls import PageUrls
from latchstring.foundation.web.problem import ProblemError


@dataclass(frozen=True, slots=True)
class PageRouter:
    """Creates routers for pages, and the responses that pages share."""

    urls: PageUrls
    renderer: Renderer
    redirects: Redirects
    visitor_page: VisitorPage
    step_up: StepUpPages | None
    """The confirmation of a visitor's identity; None if no feature offers it."""
    web: WebContext
    signed_in_response: SignedInResponse
    visitor: VisitorDependency
    optional_user: OptionalUserDependency

    def router(self, *, templates: Path | None = None) -> APIRouter:
        """Return a router of pages.

        Args:
            templates: the directory of the package's own templates, if it has any.
        """
        if templates is not None:
            self.renderer.templates.add_folder(templates)
        pages = self

        class Route(PageRoute):
            meter = pages.web.meter
            renderer = pages.renderer
            web = pages.web

            async def respond(self, request: Request, handle: Handler) -> Response:
                # For every page, so that no route can forget it: a form refused for an old proof is kept, not lost.
                try:
                    return await super().respond(request, handle)
                except ProblemError as problem:
                    if pages.step_up is None or not pages.step_up.handles(request, problem):
                        raise
                    return await pages.step_up.confirmed(request, problem, handle)

            def redirect_for(self, request: Request, problem: ProblemError) -> Response | None:
                return pages.redirects.redirect_for(request, problem.code)

            def finished(self, request: Request, response: Response) -> Response:
                # Error pages too: a browser without the new tokens would present a replaced one, which is theft.
                if pages.step_up is not None:
                    pages.step_up.keep_signed_in(request, response)
                return super().finished(request, response)

        router = APIRouter(route_class=Route, include_in_schema=False)
        self.urls.add(router)
        return router

    def to_destination(
        self, request: Request, signed_in: SignedIn, *, destination: str | None, status: int = 303
    ) -> Response:
        """Redirect a browser that has just signed in to its destination, or to the landing page."""
        location = destination or self.urls.landing_page(request.scope)
        response = Response(status_code=status, headers={"Location": location})
        self.signed_in_response.set_cookies(response, signed_in)
        return response

    def refused(self, request: Request, code: Code, *, headers: Mapping[str, str]) -> Response:
        """Return the error page for a request that reached no route of ours."""
        response = self.renderer.problem(request, ProblemError(code))
        response.headers.update(headers)
        return with_headers(response)
