"""The response of every sign-in: both tokens as cookies, or in the body for clients that are not browsers."""

from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from latchstring.core.accounts.schemas import UserResponse
from latchstring.core.guard.credentials import bearer_token
from latchstring.core.sessions.issuing import SignedIn
from latchstring.foundation.clock import Clock
from latchstring.foundation.web.context import WebContext
from latchstring.foundation.web.openapi import example


class TokenResponse(BaseModel):
    """Both tokens (RFC 6749, section 5.1)."""

    model_config = example(
        {
            "access_token": "eyJhbGciOiJSUzI1NiIs…",
            "token_type": "bearer",
            "expires_in": 900,
            "refresh_token": "eyJhbGciOiJSUzI1NiIs…",
        }
    )

    access_token: str
    token_type: str = "bearer"  # noqa: S105 -- the token type of RFC 6750
    expires_in: int = Field(description="Seconds until the access token expires.")
    refresh_token: str


class SignedInResponse:
    """Creates the response for a `SignedIn`."""

    def __init__(self, web: WebContext, clock: Clock) -> None:
        self._web = web
        self._clock = clock

    def __call__(self, signed_in: SignedIn, *, status: int = 200) -> Response:
        """Return the user as JSON, and set both cookies."""
        user = UserResponse.of(signed_in.user).model_dump_json()
        response = Response(user, status_code=status, media_type="application/json")
        self.set_cookies(response, signed_in)
        return response

    def in_body(self, signed_in: SignedIn) -> Response:
        """Return both tokens in the body (RFC 6749, section 5.1)."""
        tokens = signed_in.tokens
        content = TokenResponse(
            access_token=tokens.access,
            expires_in=self._seconds_until(tokens.access_expires_at_unix),
            refresh_token=tokens.refresh,
        )
        # RFC 6749, section 5.1 requires it beside `Cache-Control: no-store`.
        return JSONResponse(content.model_dump(), headers={"Pragma": "no-cache"})

    def to_caller(self, request: Request, signed_in: SignedIn, *, by_cookie: Response, has_cookie: bool) -> Response:
        """Return the next tokens by the transport that the caller used: cookies, or the body.

        Args:
            request: the caller's request.
            signed_in: the session and its next tokens.
            by_cookie: the response to a browser, without its cookies.
            has_cookie: whether the request had a refresh token of the caller's session as a cookie.
        """
        is_bearer = isinstance(bearer_token(request.scope["headers"]), str)
        response = self.in_body(signed_in) if is_bearer else by_cookie
        # The cookie is replaced for a bearer caller too: left behind, its token would later count as a stolen copy.
        if has_cookie or not is_bearer:
            self.set_cookies(response, signed_in)
        return response

    def set_cookies(self, response: Response, signed_in: SignedIn) -> None:
        """Set both cookies. Each lives as long as its token."""
        tokens = signed_in.tokens
        self._web.cookies.set(
            response,
            access=(tokens.access, self._seconds_until(tokens.access_expires_at_unix)),
            refresh=(tokens.refresh, self._seconds_until(tokens.refresh_expires_at_unix)),
        )

    def _seconds_until(self, expires_at_unix: int) -> int:
        return max(expires_at_unix - int(self._clock.now().timestamp()), 0)
