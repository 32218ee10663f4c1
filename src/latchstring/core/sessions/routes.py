"""Refresh, sign-out and the list of sessions, over JSON."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from latchstring.core.accounts.schemas import UserResponse
from latchstring.core.caller import Caller
from latchstring.core.guard.credentials import bearer_token, cookie_token, every_token
from latchstring.core.guard.decide import GUARD_REFUSALS
from latchstring.core.guard.dependencies import CallerDep, fresh
from latchstring.core.revocations.rules import RevocationReason
from latchstring.core.sessions.actions import Sessions
from latchstring.core.sessions.refresh import Refresher
from latchstring.core.sessions.responses import SignedInResponse
from latchstring.core.sessions.rules import session_id_from
from latchstring.core.sessions.schemas import SessionResponse, SignedOutResponse
from latchstring.core.sessions.settings import SessionSettings
from latchstring.core.tokens.tokens import Tokens
from latchstring.errors import Code, Refused
from latchstring.foundation.clock import Clock
from latchstring.foundation.web.context import WebContext
from latchstring.foundation.web.cookies import RawHeaders
from latchstring.foundation.web.problem import ProblemError, refusals


def renewal_router(
    sessions: Sessions,
    refresher: Refresher,
    *,
    tokens: Tokens,
    signed_in_response: SignedInResponse,
    web: WebContext,
    clock: Clock,
    settings: SessionSettings,
) -> APIRouter:
    """Return the routes for refresh and logout, which work on the tokens presented and not on a caller."""
    router = web.credential_router(tags=["auth"])

    async def refresh(request: Request) -> Response:
        """Exchange the refresh token (cookie, or `Authorization: Bearer`) for a new pair of tokens.

        Two tabs that refresh at once, and a client that repeats the request because the response was lost, get the same
        pair.
        """
        token = await _presented_token(
            request.scope["headers"], cookie=web.cookies.refresh_name, tokens=tokens, now=clock.now().timestamp()
        )
        if isinstance(token, Refused):
            raise ProblemError(token.code)
        outcome = await refresher.refresh(token, source=web.source(request))
        # No cookies are cleared: another tab may have set newer ones since, which this response would delete.
        if isinstance(outcome, Refused):
            raise ProblemError.of(outcome, token_sent=True)
        return signed_in_response(outcome)

    # GET for clients of the tutorial. It sets cookies, so its origin is checked like that of a POST.
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
                Code.TOO_MANY_REQUESTS,
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
        """Revoke the session of every token in the request, on the server. Expired and replaced tokens count."""
        names = (web.cookies.access_name.encode(), web.cookies.refresh_name.encode())
        await sessions.sign_out(every_token(request.scope["headers"], names), source=web.source(request))
        # Success only after the commit: a sign-out that could not be recorded is 503 (CVE-2020-15223, fosite).
        response = JSONResponse(SignedOutResponse().model_dump())
        web.cookies.clear(response)
        if settings.logout_clears_cache:
            response.headers["Clear-Site-Data"] = '"cache"'
        return response

    return router


def sessions_router(sessions: Sessions, web: WebContext, *, settings: SessionSettings) -> APIRouter:
    """Return the routes that list and revoke the caller's sessions."""
    router = web.router(tags=["sessions"])
    FreshCaller = Annotated[Caller, Depends(fresh(minutes=settings.fresh_minutes))]  # noqa: N806 -- a type

    @router.get(
        "/sessions",
        operation_id="list_sessions",
        summary="Where one is signed in",
        responses=refusals(*GUARD_REFUSALS, Code.BODY_TOO_LARGE, Code.DATABASE_UNAVAILABLE),
    )
    async def list_sessions(caller: CallerDep) -> Sequence[SessionResponse]:
        """List the caller's active sessions, the last refreshed first."""
        found = await sessions.list_sessions(caller.user_id)
        return [SessionResponse.of(listed, current_id=caller.session_id) for listed in found]

    @router.delete(
        "/sessions/{session_id}",
        operation_id="revoke_session",
        summary="End one session",
        status_code=204,
        response_class=Response,
        # Declared here and not as the function's parameter: FastAPI would document a 422 that never occurs.
        openapi_extra={"parameters": [_SESSION_ID]},
        responses=refusals(*GUARD_REFUSALS, Code.BODY_TOO_LARGE, Code.DATABASE_UNAVAILABLE, Code.SESSION_NOT_FOUND),
    )
    async def revoke_session(request: Request, caller: CallerDep) -> Response:
        """Revoke one of the caller's sessions. Another user's session is 404."""
        wanted = session_id_from(request.path_params["session_id"])
        if wanted is None or not await sessions.revoke_session(
            wanted, user_id=caller.user_id, reason=RevocationReason.REVOKED, source=web.source(request)
        ):
            raise ProblemError(Code.SESSION_NOT_FOUND)
        response = Response(status_code=204)
        # Only for the caller's own: revoking another device must not sign this browser out.
        if wanted == caller.session_id:
            web.cookies.clear(response)
        return response

    @router.delete(
        "/sessions",
        operation_id="revoke_sessions",
        summary="End all other sessions",
        status_code=204,
        response_class=Response,
        responses=refusals(
            *GUARD_REFUSALS,
            Code.BODY_TOO_LARGE,
            Code.DATABASE_UNAVAILABLE,
            Code.INSUFFICIENT_USER_AUTHENTICATION,
            Code.VALIDATION_FAILED,
        ),
    )
    async def revoke_sessions(
        request: Request,
        caller: FreshCaller,
        all: bool = False,  # noqa: A002, FBT001, FBT002 -- the contract's name of a query parameter
    ) -> Response:
        """Revoke the caller's other sessions; with `all=true` this one as well. Requires a recent proof."""
        # A thief who holds a session must not be able to sign its owner out, hence `FreshCaller`.
        source = web.source(request)
        response = Response(status_code=204)
        if all:
            if not await sessions.revoke_sessions_of_user(
                caller.user_id, reason=RevocationReason.REVOKED, source=source
            ):
                raise ProblemError(Code.USER_NOT_FOUND)
            web.cookies.clear(response)
        elif not await sessions.revoke_other_sessions(caller, source=source):
            raise ProblemError(Code.SESSION_ENDED, token_sent=True)
        return response

    return router


_SESSION_ID = {"name": "session_id", "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}}


async def _presented_token(headers: RawHeaders, *, cookie: str, tokens: Tokens, now: float) -> str | Refused:
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
    await tokens.reload_keys_for(in_header, in_cookie)
    access = tokens.read_access(in_header, now=now)
    named = access or tokens.read_refresh(in_header, now=now)
    other = tokens.read_refresh(in_cookie, now=now)
    if named is not None and other is not None and named.user_id != other.user_id:
        return Refused(Code.CREDENTIALS_CONFLICT)
    # Some clients add their access token to every request. An access token can't be exchanged, so the cookie counts.
    return in_header if access is None else in_cookie
