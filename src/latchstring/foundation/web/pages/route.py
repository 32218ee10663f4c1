"""The route class under every page: forms come from our own pages only, and what is refused is a page as well."""

from typing import ClassVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from latchstring.errors import Code
from latchstring.foundation.web.context import WebContext
from latchstring.foundation.web.origin import SAFE_METHODS
from latchstring.foundation.web.pages.policy import with_headers
from latchstring.foundation.web.pages.renderer import Renderer
from latchstring.foundation.web.problem import ProblemError
from latchstring.foundation.web.route import Handler, ProblemRoute


class PageRoute(ProblemRoute):
    """A route that answers pages."""

    renderer: ClassVar[Renderer]
    web: ClassVar[WebContext]

    def get_route_handler(self) -> Handler:
        """Wrap a problem route's handler: what broke is a page with the request's id, and every page has its policy."""
        handle = super().get_route_handler()

        async def page(request: Request) -> Response:
            try:
                response = await handle(request)
            except Exception as error:  # noqa: BLE001 -- raised again, once the visitor has been message_for
                response = _Broken(self.renderer.problem(request, ProblemError(Code.INTERNAL_ERROR)), error)
            return self.finished(request, response)

        return page

    def finished(self, request: Request, response: Response) -> Response:  # noqa: ARG002 -- for those that ask it
        """Return an answer with what every page carries."""
        return with_headers(response)

    async def admit(self, request: Request) -> None:
        """Refuse a form that another site has sent: no front end on another origin has forms of ours, either."""
        if request.method not in SAFE_METHODS and not self.web.is_own_origin(request.scope["headers"]):
            raise ProblemError(Code.ORIGIN_NOT_ALLOWED)
        await self.web.begin()

    def refuse(self, request: Request, problem: ProblemError) -> Response:
        """Return the page of a refusal, or a redirect to where it can be mended."""
        return self.redirect_for(request, problem) or self.renderer.problem(request, problem)

    def redirect_for(self, request: Request, problem: ProblemError) -> Response | None:  # noqa: ARG002 -- none here
        """Return a redirect to where a refusal can be mended, if there is one."""
        return None


class _Broken(Response):
    """A page for the visitor, and then the error for the log: as Starlette does for a whole application."""

    def __init__(self, page: Response, error: Exception) -> None:
        super().__init__(page.body, page.status_code)
        self.raw_headers = page.raw_headers
        self._error = error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super().__call__(scope, receive, send)
        raise self._error
