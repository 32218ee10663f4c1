"""Render pages for signed-in visitors. An open page refreshes the session before its access token expires."""

from typing import Any

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from latchstring.core.caller import Caller
from latchstring.core.guard.pages import Visitor
from latchstring.foundation.clock import Clock
from latchstring.foundation.web.pages.renderer import Renderer, Renewal


class VisitorPage:
    """Renders a template for a signed-in visitor."""

    def __init__(self, renderer: Renderer, clock: Clock, *, access_life_seconds: float) -> None:
        self._renderer = renderer
        self._clock = clock
        self._access_life_seconds = access_life_seconds

    def __call__(self, request: Request, template: str, visitor: Visitor, **content: Any) -> Response:  # noqa: ANN401 -- the variables of a template
        """Return the page rendered from `template`, with `content` as its variables."""
        renewal = self._renewal(request, visitor.caller)
        return self._renderer.page(request, template, user=visitor.user, renewal=renewal, **content)

    def _renewal(self, connection: HTTPConnection, caller: Caller) -> Renewal:
        left = caller.expires_at_unix - self._clock.now().timestamp()
        return Renewal(
            url=self._renderer.urls.renewal_url(connection.scope),
            # In seconds from now and not as a time: the visitor's clock may be wrong.
            due_in_seconds=max(int(left), 0),
            life_seconds=max(int(self._access_life_seconds), 1),
        )
