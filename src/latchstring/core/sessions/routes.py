"""Refresh and sign-out over HTTP, and the answer that both and every sign-in end with."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from latchstring.core.accounts.schemas import UserResponse
from latchstring.core.sessions.actions import Sessions, SignedIn
from latchstring.core.sessions.credentials import RawHeaders, bearer_token, cookie_token, every_token
from latchstring.core.tokens.tokens import Tokens
from latchstring.errors import Code, Refused
from latchstring.foundation.clock import Clock
from latchstring.foundation.web.edge import Edge
from latchstring.foundation.web.problem import ProblemError, refusals


class SignedInAnswer:
    """Turns a `SignedIn` into the user's JSON with both cookies."""

    def __init__(self, edge: Edge, clock: Clock) -> None:
        self._edge = edge
        self._clock = clock

    def __call__(self, signed_in: SignedIn, *, status: int = 200) -> Response:
        """Return the answer."""
        user = UserResponse.of(signed_in.user).model_dump_json()
        response = Response(user, status_code=status, media_type="application/json")
        now = int(self._clock.now().timestamp())
        tokens = signed_in.tokens
        self._edge.cookies.set(
            response,
            access=(tokens.access, max(tokens.access_expires_at_unix - now, 0)),
            refresh=(tokens.refresh, max(tokens.refresh_expires_at_unix - now, 0)),
        )
        return response


class SignedOutResponse(BaseModel):
    """Signed out: whatever was shown is worth nothing from now on."""

    status: Literal["success"] = "success"


def sessions_router(sessions: Sessions, tokens: Tokens, answer: SignedInAnswer, edge: Edge, clock: Clock) -> APIRouter:
    """Return refresh and logout."""
    router = edge.credential_router(tags=["auth"])

    async def refresh(request: Request) -> Response:
        """Exchange the refresh token (cookie, or `Authorization: Bearer`) for a new pair of tokens.

        Two tabs that ask at once, and a client that asks again because the answer was lost, get the same pair.
        """
        token = _presented_token(
            request.scope["headers"], cookie=edge.cookies.refresh_name, tokens=tokens, now=clock.now().timestamp()
        )
        if isinstance(token, Refused):
            raise ProblemError(token.code)
        outcome = await sessions.renew_session(token, source=edge.source(request))
        # The cookies are left as they are: the loser of a race must not clear the winner's.
        if isinstance(outcome, Refused):
            raise ProblemError(outcome.code, token_sent=True)
        return answer(outcome)

    for method in ("POST", "GET"):
        router.add_api_route(
            "/refresh",
            refresh,
            methods=[method],
            operation_id="refresh" if method == "POST" else "refresh_by_get",
            summary="A new pair of tokens",
            response_model=UserResponse,
            responses=refusals(
                Code.BODY_TOO_LARGE,
                Code.CREDENTIALS_CONFLICT,
                Code.DATABASE_UNAVAILABLE,
                Code.DUPLICATE_COOKIE,
                Code.INVALID_AUTHORIZATION_HEADER,
                Code.INVALID_TOKEN,
                Code.KEYS_UNAVAILABLE,
                Code.MISSING_REFRESH_TOKEN,
                Code.ORIGIN_NOT_ALLOWED,
                Code.REFRESH_TOKEN_REUSED,
                Code.SESSION_ENDED,
                Code.TOKEN_EXPIRED,
                Code.USER_GONE,
            ),
        )

    @router.post(
        "/logout",
        operation_id="logout",
        summary="End the session",
        response_model=SignedOutResponse,
        responses=refusals(
            Code.BODY_TOO_LARGE, Code.DATABASE_UNAVAILABLE, Code.KEYS_UNAVAILABLE, Code.ORIGIN_NOT_ALLOWED
        ),
    )
    async def logout(request: Request) -> Response:
        """End every session of which a token is shown, on the server; expired and older tokens count as well."""
        names = (edge.cookies.access_name.encode(), edge.cookies.refresh_name.encode())
        await sessions.sign_out(every_token(request.scope["headers"], names), source=edge.source(request))
        response = JSONResponse(SignedOutResponse().model_dump())
        edge.cookies.clear(response)
        return response

    return router


def _presented_token(headers: RawHeaders, *, cookie: str, tokens: Tokens, now: float) -> str | Refused:
    in_header = bearer_token(headers)
    in_cookie = cookie_token(headers, cookie.encode())
    if isinstance(in_header, Refused):
        return in_header
    if isinstance(in_cookie, Refused):
        return in_cookie
    if in_header is None:
        return Refused(Code.MISSING_REFRESH_TOKEN) if in_cookie is None else in_cookie
    if in_cookie is None:
        return in_header
    access = tokens.read_access(in_header, now=now)
    named = access or tokens.read_refresh(in_header, now=now)
    other = tokens.read_refresh(in_cookie, now=now)
    if named is not None and other is not None and named.user_id != other.user_id:
        return Refused(Code.CREDENTIALS_CONFLICT)
    # A client that puts its access token on every request does so here, too; the cookie is what it means.
    return in_header if access is None else in_cookie
