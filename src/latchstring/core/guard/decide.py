"""The guard's decision: turn a request into a `Caller`, or refuse. Any error refuses the request.

The decision reads memory only. Two things read the database: a `User`, and an unknown `kid`, once per second.
"""

import contextlib
from collections.abc import Awaitable, Callable
from datetime import timedelta
from http import HTTPStatus
from uuid import UUID

from starlette.types import Receive, Scope, Send

from latchstring.core.accounts.rules import User
from latchstring.core.caller import Caller
from latchstring.core.guard.credentials import bearer_token, cookie_token, every_token
from latchstring.core.guard.rules import is_fresh
from latchstring.core.guard.sockets import ConnectedSocket, Sockets
from latchstring.core.revocations.feed import RevocationFeed
from latchstring.core.revocations.rules import refusal_after
from latchstring.core.tokens.tokens import Tokens
from latchstring.errors import Code, Refused, UnavailableError
from latchstring.foundation.clock import Clock
from latchstring.foundation.web.context import WebContext
from latchstring.foundation.web.cookies import RawHeaders
from latchstring.foundation.web.origin import SAFE_METHODS, is_navigation
from latchstring.foundation.web.problem import PROBLEMS, ProblemError

ReadUser = Callable[[UUID], Awaitable[User | None]]
"""Reads one user by id; None if there is no such user."""

GUARD_REFUSALS = (
    Code.CLAIMS_CHANGED,
    Code.CREDENTIALS_CONFLICT,
    Code.DUPLICATE_COOKIE,
    Code.INVALID_AUTHORIZATION_HEADER,
    Code.INVALID_TOKEN,
    Code.KEYS_UNAVAILABLE,
    Code.MISSING_TOKEN,
    Code.ORIGIN_NOT_ALLOWED,
    Code.REVOCATIONS_UNKNOWN,
    Code.SESSION_ENDED,
    Code.TOKEN_EXPIRED,
    Code.USER_NOT_FOUND,
)
"""The codes with which every guarded route can refuse."""

# An expired token or a deleted user is a signed-out visitor. A malformed header, a foreign origin or a 503 is not.
SIGNED_OUT_STATUSES = {HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND}
OPTIONAL_USER_REFUSALS = (
    *(code for code in GUARD_REFUSALS if PROBLEMS[code][0] not in SIGNED_OUT_STATUSES),
    Code.DATABASE_UNAVAILABLE,
)
"""The codes with which a route of `OptionalUser` can refuse."""


class Guard:
    """Authenticates requests: returns a caller or refuses."""

    def __init__(
        self,
        web: WebContext,
        clock: Clock,
        tokens: Tokens,
        feed: RevocationFeed,
        *,
        read_user: ReadUser,
        sockets: Sockets,
    ) -> None:
        self._web = web
        self._clock = clock
        self._tokens = tokens
        self._feed = feed
        self._read_user = read_user
        self._sockets = sockets
        self._cookie_name = web.cookies.access_name.encode()

    async def caller(self, scope: Scope) -> Caller:
        """Return the caller. No I/O, except one key reload per second when a token names an unknown `kid`.

        Raises:
            ProblemError: the request is refused, with one of `GUARD_REFUSALS`.
        """
        try:
            return self._caller(scope)
        except ProblemError as problem:
            # Where no lifespan of ours runs (`attach`), the first request starts the polling of revocations.
            if problem.code is Code.REVOCATIONS_UNKNOWN:
                await self._web.begin()
            elif problem.code is not Code.INVALID_TOKEN or not await self._reloads_keys_for(scope["headers"]):
                raise
        return self._caller(scope)

    async def _reloads_keys_for(self, headers: RawHeaders) -> bool:
        try:
            return await self._tokens.reload_keys_for(*every_token(headers, [self._cookie_name]))
        except UnavailableError as error:
            raise ProblemError(error.code) from error

    def _caller(self, scope: Scope) -> Caller:
        headers = scope["headers"]
        # Both are always read: a malformed one is refused even if the other one is valid.
        header = bearer_token(headers)
        cookie = cookie_token(headers, self._cookie_name)
        if isinstance(header, Refused):
            raise ProblemError(header.code)
        if isinstance(cookie, Refused):
            raise ProblemError(cookie.code)
        if header is None and cookie is None:
            raise ProblemError(Code.MISSING_TOKEN)
        # A browser attaches cookies to requests that another site makes (CSRF). It never attaches a bearer token.
        if header is None and not self._origin_allowed(scope):
            raise ProblemError(Code.ORIGIN_NOT_ALLOWED)
        try:
            return self._judged(header, cookie)
        except UnavailableError as error:
            raise ProblemError(error.code) from error

    async def fresh_caller(self, scope: Scope, *, within: timedelta) -> Caller:
        """Return the caller, if the user proved who they are no longer than `within` ago.

        Raises:
            ProblemError: as for `caller`; or 401 `insufficient_user_authentication` with `max_age` (RFC 9470).
        """
        caller = await self.caller(scope)
        if not is_fresh(proven_at_unix=caller.proven_at_unix, now=self._clock.now().timestamp(), within=within):
            raise ProblemError(Code.INSUFFICIENT_USER_AUTHENTICATION, max_age_seconds=within.total_seconds())
        return caller

    async def caller_with_role(self, scope: Scope, *, role: str) -> Caller:
        """Return the caller, if their token has the role.

        Raises:
            ProblemError: as for `caller`; or 403 `role_required`.
        """
        caller = await self.caller(scope)
        # The token's roles are current: a withdrawn role revokes the tokens that have it.
        if role not in caller.roles:
            raise ProblemError(Code.ROLE_REQUIRED)
        return caller

    def watching(
        self, caller: Caller, receive: Receive, send: Send
    ) -> contextlib.AbstractContextManager[ConnectedSocket]:
        """Watch a WebSocket while the block runs: close it when a guard would refuse its caller."""
        return self._sockets.watching(caller, receive, send)

    async def user(self, caller: Caller) -> User:
        """Read the caller's user.

        Raises:
            ProblemError: 404 if the user was deleted, 401 if disabled, 503 if the database is unavailable.
        """
        try:
            user = await self._read_user(caller.user_id)
        except UnavailableError as error:
            raise ProblemError(error.code) from error
        if user is None:
            raise ProblemError(Code.USER_NOT_FOUND)
        # Disabled since the last poll: this worker has not read the revocation yet, but the row already says so.
        if user.is_disabled:
            raise ProblemError(Code.SESSION_ENDED, token_sent=True)
        return user

    def _judged(self, header: str | None, cookie: str | None) -> Caller:
        now = self._clock.now().timestamp()
        # First, and also for a token that was verified before: fail closed (503).
        self._feed.refuse_if_stale()
        presented = header if header is not None else cookie
        caller = self._tokens.read_access(presented or "", now=now)
        if caller is None:
            raise ProblemError(Code.INVALID_TOKEN, token_sent=True)
        # A header of one user and a cookie of another: no route should guess which of them is meant.
        if header is not None and cookie is not None:
            other = self._tokens.read_access(cookie, now=now)
            if other is not None and other.user_id != caller.user_id:
                raise ProblemError(Code.CREDENTIALS_CONFLICT)
        if caller.expires_at_unix <= now:
            raise ProblemError(Code.TOKEN_EXPIRED, token_sent=True)
        reason = self._feed.revocation_reason(caller)
        if reason is not None:
            raise ProblemError(refusal_after(reason), token_sent=True)
        return caller

    def _origin_allowed(self, scope: Scope) -> bool:
        headers = scope["headers"]
        if self._web.origin_allowed(headers):
            return True
        # A link from another site to a page. Never a WebSocket: browsers apply no CORS to those, so that the origin is
        # the only protection against another site's script (cross-site WebSocket hijacking).
        return scope["type"] == "http" and scope["method"] in SAFE_METHODS and is_navigation(headers)
