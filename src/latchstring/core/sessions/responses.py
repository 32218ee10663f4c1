"""What every sign-in ends with: both tokens as cookies, or in the body for a client that is no browser."""

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
    token_type: str = "bearer"  # noqa: S105 -- the name of a type
    expires_in: int = Field(description="Seconds until the access token expires.")
    refresh_token: str


class SignedInResponse:
    """Turns a `SignedIn` into a response."""

    def __init__(self, web: WebContext, clock: Clock) -> None:
        self._edge = web
        self._clock = clock

    def __call__(self, signed_in: SignedIn, *, status: int = 200) -> Response:
        """Return the user's JSON, with both cookies."""
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
        return JSONResponse(content.model_dump(), headers={"Pragma": "no-cache"})

    def to_caller(self, request: Request, signed_in: SignedIn, *, by_cookie: Response, has_cookie: bool) -> Response:
        """Return the next tokens the way the caller brought the ones before.

        Args:
            request: the caller's.
            signed_in: what they get.
            by_cookie: the response to a browser, without its cookies.
            has_cookie: whether a refresh token of the caller's session came as a cookie. It is replaced even where the
                caller was known by its Authorization header: left behind, it would later be taken for a stolen copy.
        """
        is_bearer = isinstance(bearer_token(request.scope["headers"]), str)
        response = self.in_body(signed_in) if is_bearer else by_cookie
        if has_cookie or not is_bearer:
            self.set_cookies(response, signed_in)
        return response

    def set_cookies(self, response: Response, signed_in: SignedIn) -> None:
        """Put both cookies on a response."""
        tokens = signed_in.tokens
        self._edge.cookies.set(
            response,
            access=(tokens.access, self._seconds_until(tokens.access_expires_at_unix)),
            refresh=(tokens.refresh, self._seconds_until(tokens.refresh_expires_at_unix)),
        )

    def _seconds_until(self, expires_at_unix: int) -> int:
        return max(expires_at_unix - int(self._clock.now().timestamp()), 0)
