"""WebContext: the web settings, worked out once, and the routers every room builds on."""

import contextlib
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from latchstring.errors import Code, UnavailableError
from latchstring.foundation.audit import USER_AGENT_MAX_LENGTH
from latchstring.foundation.background import Background
from latchstring.foundation.events import Source
from latchstring.foundation.web.client import client_address
from latchstring.foundation.web.cookies import CookieJar
from latchstring.foundation.web.origin import RawHeaders, origin_allowed
from latchstring.foundation.web.problem import ProblemError
from latchstring.foundation.web.request_id import request_id
from latchstring.foundation.web.route import ProblemRoute
from latchstring.foundation.web.settings import WebSettings

Refuse = Callable[[Request, ProblemError], Response]
"""Turns a refusal into the answer that says so."""


class WebContext:
    """What routes need to know of the web around them."""

    def __init__(self, settings: WebSettings, background: Background) -> None:
        self.cookies = CookieJar.for_transport(https=settings.is_https)
        self._settings = settings
        self._background = background

    def router(self, **options: Any) -> APIRouter:  # noqa: ANN401 -- APIRouter's own options
        """Return a router whose routes read or are guarded by a caller."""
        web = self

        class Route(ProblemRoute):
            async def admit(self, request: Request) -> None:  # noqa: ARG002 -- anybody may ask
                await web.begin()

        return APIRouter(route_class=Route, **options)

    def credential_router(self, *, refuse: Refuse | None = None, **options: Any) -> APIRouter:  # noqa: ANN401 -- likewise
        """Return a router whose routes hand out or take back tokens: each request's origin is checked first of all.

        Args:
            refuse: what a refusal looks like; problem+json by default.
            options: APIRouter's own.
        """
        web = self

        class OriginCheckedRoute(ProblemRoute):
            async def admit(self, request: Request) -> None:
                if not web.origin_allowed(request.scope["headers"]):
                    raise ProblemError(Code.ORIGIN_NOT_ALLOWED)
                await web.begin()

            def refuse(self, request: Request, problem: ProblemError) -> Response:
                return super().refuse(request, problem) if refuse is None else refuse(request, problem)

        return APIRouter(route_class=OriginCheckedRoute, **options)

    async def begin(self) -> None:
        """See that what goes on beside the requests has begun, where no lifespan began it.

        Where it can't begin now, whatever depends on it refuses by itself, and the next request tries again.
        """
        if not self._background.is_begun:
            with contextlib.suppress(UnavailableError):
                await self._background.begin()

    def origin_allowed(self, headers: RawHeaders) -> bool:
        """Tell whether a browser's request comes from us or from the front end."""
        return origin_allowed(
            headers, own_origin=self._settings.public_url, client_origin=self._settings.allowed_client_origin
        )

    def is_own_origin(self, headers: RawHeaders) -> bool:
        """Tell whether a browser's request comes from us, and not even from the front end."""
        return origin_allowed(headers, own_origin=self._settings.public_url, client_origin=None)

    def source(self, connection: HTTPConnection) -> Source:
        """Return where a request came from, for the session list and the audit trail."""
        user_agent = connection.headers.get("user-agent")
        return Source(
            actor="visitor",
            address=client_address(
                connection.client.host if connection.client else None,
                connection.scope["headers"],
                trusted_proxies=self._settings.trusted_proxies,
            ),
            user_agent=_printable(user_agent) if user_agent else None,
            request_id=request_id(connection.scope),
        )


def _printable(text: str) -> str:
    return "".join(character for character in text[:USER_AGENT_MAX_LENGTH] if character.isprintable())
