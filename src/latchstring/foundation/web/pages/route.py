"""The route class of every page: forms are accepted from our own origin only, and refusals are pages too."""

from typing import ClassVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from latchstring.errors import Code
from latchstring.foundation.web.context import WebContext
from latchstring.foundation.web.measured import Handler
from latchstring.foundation.web.origin import SAFE_METHODS
from latchstring.foundation.web.pages.policy import with_headers
from latchstring.foundation.web.pages.renderer import Renderer
from latchstring.foundation.web.problem import ProblemError
from latchstring.foundation.web.route import ProblemRoute


class PageRoute(ProblemRoute):
    """A route whose responses are pages."""

    renderer: ClassVar[Renderer]
    web: ClassVar[WebContext]

    def get_route_handler(self) -> Handler:
        """Wrap the handler of `ProblemRoute`: an error is a page with the request's id; all pages have our headers."""
        handle = super().get_route_handler()

        async def page(request: Request) -> Response:
            try:
                response = await handle(request)
            except Exception as error:  # noqa: BLE001 -- raised again, once the page has been sent
                response = _Broken(self.renderer.problem(request, ProblemError(Code.INTERNAL_ERROR)), error)
            return self.finished(request, response)

        return page

    def finished(self, request: Request, response: Response) -> Response:  # noqa: ARG002 -- for routes that override it
        """Return the response with the headers of every page."""
        return with_headers(response)

    async def admit(self, request: Request) -> None:
        """Refuse a form from another origin (CSRF, CVE-2021-21241 at sign-in)."""
        # Stricter than the JSON routes: the front end named in the settings may call those, but has no forms of ours.
        if request.method not in SAFE_METHODS and not self.web.is_own_origin(request.scope["headers"]):
            raise ProblemError(Code.ORIGIN_NOT_ALLOWED)
        await self.web.begin()

    def refuse(self, request: Request, problem: ProblemError) -> Response:
        """Return the page of a refusal, or a redirect to where it can be resolved, such as the sign-in page."""
        return self.redirect_for(request, problem) or self.renderer.problem(request, problem)

    def redirect_for(self, request: Request, problem: ProblemError) -> Response | None:  # noqa: ARG002 -- none here
        """Return a redirect to where a refusal can be resolved, or None."""
        return None


class _Broken(Response):
    """Sends a page to the visitor and then raises the error, as Starlette's ServerErrorMiddleware does."""

    def __init__(self, page: Response, error: Exception) -> None:
        super().__init__(page.body, page.status_code)
        self.raw_headers = page.raw_headers
        self._error = error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super().__call__(scope, receive, send)
        # Raised, so that the server logs it and the application's own error reporting gets it.
        raise self._error
