"""Where a page redirects a visitor whom a guard refused.

access token missing or expired, with a refresh token   → 303 /renew?next=…; a form: 307, which keeps its fields.
After a link on another site /renew is a page with a form
not signed in, or the session has ended                 → 303 /sign-in?next=…
proof too old                                           → 303 /account/confirm?next=…; a form is kept in that page
"""

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import Scope

from latchstring.core.accounts.rules import User
from latchstring.errors import Code
from latchstring.foundation.web.context import WebContext
from latchstring.foundation.web.cookies import read_cookies
from latchstring.foundation.web.origin import SAFE_METHODS
from latchstring.foundation.web.pages.urls import PageUrls, see_other

_RENEWABLE = frozenset({Code.CLAIMS_CHANGED, Code.INVALID_TOKEN, Code.MISSING_TOKEN, Code.TOKEN_EXPIRED})
# No renewal for these: it would be refused for the same reason, and redirect in a circle.
_ENDED = frozenset({Code.REFRESH_TOKEN_REUSED, Code.SESSION_ENDED, Code.USER_GONE, Code.USER_NOT_FOUND})

WHY_ENDED = "ended"
"""The sign-in page explains with `?why=ended` that the visitor's session has ended."""


class Redirects:
    """The redirects between pages, the renewal, the sign-in page and the confirmation page."""

    def __init__(self, urls: PageUrls, web: WebContext, *, has_step_up: bool) -> None:
        self._urls = urls
        self._refresh_cookie = web.cookies.refresh_name.encode()
        self._has_step_up = has_step_up

    def redirect_for(self, connection: HTTPConnection, code: Code) -> Response | None:
        """Return the redirect that resolves a refusal; None if there is none."""
        scope, urls = connection.scope, self._urls
        by_get = scope["method"] in SAFE_METHODS
        if code in _RENEWABLE and self._has_refresh_token(scope):
            # RFC 9110, section 15.4.8: 307 keeps the method and the form, so that nothing filled in is lost.
            requested = urls.requested(scope)
            location = urls.url(scope, "/renew", next=requested or urls.current_page(scope))
            return Response(status_code=303 if by_get or requested is None else 307, headers={"Location": location})
        if code in _RENEWABLE or code in _ENDED:
            was_signed_in = code is not Code.MISSING_TOKEN
            return self.to_sign_in(scope, was_signed_in=was_signed_in, destination=urls.current_page(scope))
        if code is Code.INSUFFICIENT_USER_AUTHENTICATION and by_get and self._has_step_up:
            return see_other(urls.url(scope, "/account/confirm", next=urls.current_page(scope)))
        return None

    def past_sign_in(self, request: Request, user: User | None, *, destination: str | None) -> Response | None:
        """Return the redirect for a visitor who is signed in, or will be after a renewal; None for any other."""
        if user is not None:
            return see_other(destination or self._urls.landing_page(request.scope))
        # `why` is set by the renewal that has just failed: to try again would redirect in a circle.
        if "why" in request.query_params or not self._has_refresh_token(request.scope):
            return None
        return see_other(self._urls.url(request.scope, "/renew", next=destination))

    def to_sign_in(self, scope: Scope, *, was_signed_in: bool, destination: str | None) -> Response | None:
        """Return the redirect to the sign-in page, with `destination` as `next`; None if no feature has that page."""
        urls = self._urls
        if "/sign-in" not in urls.paths:
            return None
        why = WHY_ENDED if was_signed_in else None
        # A sign-in without `next` redirects to the landing page anyway.
        following = None if destination == urls.landing_page(scope) else destination
        return see_other(urls.url(scope, "/sign-in", next=following, why=why))

    def _has_refresh_token(self, scope: Scope) -> bool:
        return any(read_cookies(scope["headers"], self._refresh_cookie))
