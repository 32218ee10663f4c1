"""WebContext: cookies, origin check and client address as the settings say, and routers for all packages."""

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
from latchstring.foundation.measurements import UNMETERED, Meter
from latchstring.foundation.web.client import client_address
from latchstring.foundation.web.cookies import CookieJar, RawHeaders
from latchstring.foundation.web.origin import origin_allowed
from latchstring.foundation.web.problem import ProblemError
from latchstring.foundation.web.request_id import request_id
from latchstring.foundation.web.route import ProblemRoute
from latchstring.foundation.web.settings import WebSettings

Refuse = Callable[[Request, ProblemError], Response]
"""Turns a refusal into a response."""


class WebContext:
    """Makes routers, and gives routes what depends on the settings: cookies, allowed origins, client addresses."""

    def __init__(self, settings: WebSettings, background: Background, *, meter: Meter = UNMETERED) -> None:
        self.meter = meter
        self.cookies = CookieJar.for_transport(https=settings.is_https)
        self._settings = settings
        self._background = background

    def router(self, **options: Any) -> APIRouter:  # noqa: ANN401 -- APIRouter's own options
        """Return a router for routes that only read, or that a guard protects."""
        web = self

        class Route(ProblemRoute):
            meter = web.meter

            async def admit(self, request: Request) -> None:  # noqa: ARG002 -- every request is admitted
                await web.begin()

        return APIRouter(route_class=Route, **options)

    def credential_router(self, *, refuse: Refuse | None = None, **options: Any) -> APIRouter:  # noqa: ANN401 -- likewise
        """Return a router for routes that issue or revoke tokens: the origin of each request is checked first.

        Args:
            refuse: makes the response to a refusal; problem+json by default.
            options: options of APIRouter.
        """
        # Sign-in, too, which needs no cookie: otherwise another site could sign a visitor in to the attacker's account
        # (CVE-2021-21241).
        web = self

        class OriginCheckedRoute(ProblemRoute):
            meter = web.meter

            async def admit(self, request: Request) -> None:
                if not web.origin_allowed(request.scope["headers"]):
                    raise ProblemError(Code.ORIGIN_NOT_ALLOWED)
                await web.begin()

            def refuse(self, request: Request, problem: ProblemError) -> Response:
                return super().refuse(request, problem) if refuse is None else refuse(request, problem)

        return APIRouter(route_class=OriginCheckedRoute, **options)

    async def begin(self) -> None:
        """Start the background work if no lifespan did.

        If it can't start now, the request goes on: what depends on the work refuses by itself, and the next request
        tries again.
        """
        if not self._background.is_begun:
            with contextlib.suppress(UnavailableError):
                await self._background.begin()

    def origin_allowed(self, headers: RawHeaders) -> bool:
        """Return whether a browser's request comes from our own origin or from the front end's."""
        return origin_allowed(
            headers, own_origin=self._settings.public_url, client_origin=self._settings.allowed_client_origin
        )

    def is_own_origin(self, headers: RawHeaders) -> bool:
        """Return whether a browser's request comes from our own origin, the front end's excluded."""
        return origin_allowed(headers, own_origin=self._settings.public_url, client_origin=None)

    def source(self, connection: HTTPConnection) -> Source:
        """Return the source of a request, for the list of sessions and the audit trail."""
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
    # A User-Agent is shown to users and operators: no control characters, which a terminal would run.
    return "".join(character for character in text[:USER_AGENT_MAX_LENGTH] if character.isprintable())
