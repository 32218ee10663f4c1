"""The guard: a request to a Caller, or a refusal. It reads memory only, and an error inside it lets nobody in.

@app.get("/reports")
async def reports(caller: CallerDep): ...      who is asking, from the token alone: no I/O

@app.get("/me")
async def me(user: CurrentUser): ...           the same, and the user's row read

@app.delete("/account")
async def delete(caller: Annotated[Caller, Depends(fresh(minutes=5))]): ...     who proved it a moment ago: no I/O
"""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Annotated

from fastapi import Depends
from fastapi.openapi.models import HTTPBearer as HTTPBearerModel
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection
from starlette.types import Scope

from latchstring.core.accounts.actions import Accounts
from latchstring.core.accounts.rules import User
from latchstring.core.caller import Caller
from latchstring.core.sessions.credentials import RawHeaders, bearer_token, cookie_token, every_token
from latchstring.core.sessions.feed import RevocationFeed
from latchstring.core.sessions.rules import EndReason, is_fresh
from latchstring.core.tokens.tokens import Tokens
from latchstring.errors import Code, ConfigurationError, Refused, UnavailableError
from latchstring.foundation.clock import Clock
from latchstring.foundation.web.edge import Edge
from latchstring.foundation.web.origin import SAFE_METHODS, is_navigation
from latchstring.foundation.web.problem import ProblemError

GUARD_REFUSALS = (
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
"""What every guarded route may answer instead of its own."""


class Guard:
    """Decides who is asking."""

    def __init__(self, edge: Edge, clock: Clock, tokens: Tokens, feed: RevocationFeed, accounts: Accounts) -> None:
        self._edge = edge
        self._clock = clock
        self._tokens = tokens
        self._feed = feed
        self._accounts = accounts
        self._cookie_name = edge.cookies.access_name.encode()

    async def caller(self, scope: Scope) -> Caller:
        """Return who is asking. Nothing is read, but, once a second at most, for a key of which nobody has heard.

        Raises:
            ProblemError: nobody we let in; see `GUARD_REFUSALS`.
        """
        try:
            return self._caller(scope)
        except ProblemError as problem:
            if problem.code is not Code.INVALID_TOKEN or not await self._learns_keys(scope["headers"]):
                raise
        return self._caller(scope)

    async def _learns_keys(self, headers: RawHeaders) -> bool:
        try:
            return await self._tokens.learn_keys_of(*every_token(headers, [self._cookie_name]))
        except UnavailableError as error:
            raise ProblemError(error.code) from error

    def _caller(self, scope: Scope) -> Caller:
        headers = scope["headers"]
        header = bearer_token(headers)
        cookie = cookie_token(headers, self._cookie_name)
        if isinstance(header, Refused):
            raise ProblemError(header.code)
        if isinstance(cookie, Refused):
            raise ProblemError(cookie.code)
        if header is None and cookie is None:
            raise ProblemError(Code.MISSING_TOKEN)
        if header is None and not self._origin_allowed(scope):
            raise ProblemError(Code.ORIGIN_NOT_ALLOWED)
        try:
            return self._judged(header, cookie)
        except UnavailableError as error:
            raise ProblemError(error.code) from error

    async def fresh_caller(self, scope: Scope, *, within: timedelta) -> Caller:
        """Return who is asking, if the user has proved it no longer than `within` ago.

        Raises:
            ProblemError: nobody we let in, or 401 `insufficient_user_authentication` (RFC 9470): prove it again.
        """
        caller = await self.caller(scope)
        if not is_fresh(proven_at_unix=caller.proven_at_unix, now=self._clock.now().timestamp(), within=within):
            raise ProblemError(Code.INSUFFICIENT_USER_AUTHENTICATION, max_age_seconds=within.total_seconds())
        return caller

    async def user(self, caller: Caller) -> User:
        """Read the caller's user.

        Raises:
            ProblemError: 404 deleted, 401 disabled a moment ago, 503 the database is away.
        """
        try:
            user = await self._accounts.user(caller.user_id)
        except UnavailableError as error:
            raise ProblemError(error.code) from error
        if user is None:
            raise ProblemError(Code.USER_NOT_FOUND)
        if user.is_disabled:
            raise ProblemError(Code.SESSION_ENDED, token_sent=True)
        return user

    def _judged(self, header: str | None, cookie: str | None) -> Caller:
        now = self._clock.now().timestamp()
        self._feed.refuse_if_stale()
        shown = header if header is not None else cookie
        caller = self._tokens.read_access(shown or "", now=now)
        if caller is None:
            raise ProblemError(Code.INVALID_TOKEN, token_sent=True)
        if header is not None and cookie is not None:
            other = self._tokens.read_access(cookie, now=now)
            if other is not None and other.user_id != caller.user_id:
                raise ProblemError(Code.CREDENTIALS_CONFLICT)
        if caller.expires_at_unix <= now:
            raise ProblemError(Code.TOKEN_EXPIRED, token_sent=True)
        match self._feed.ended_because(caller):
            case None:
                return caller
            case EndReason.USER_DELETED:
                raise ProblemError(Code.USER_NOT_FOUND)
            case _:
                raise ProblemError(Code.SESSION_ENDED, token_sent=True)

    def _origin_allowed(self, scope: Scope) -> bool:
        # A cookie comes along whoever made the browser ask. A bearer token does not, and needs no such check.
        headers = scope["headers"]
        if self._edge.origin_allowed(headers):
            return True
        return scope["type"] == "http" and scope["method"] in SAFE_METHODS and is_navigation(headers)


class _GuardDependency(SecurityBase):
    """FastAPI's view of the guard: a dependency that is also a security scheme of the OpenAPI document."""

    def __init__(self) -> None:
        self.model = HTTPBearerModel(bearerFormat="JWT", description="An access token; or the `access_token` cookie.")
        self.scheme_name = "accessToken"


class _CallerDependency(_GuardDependency):
    """Who is asking."""

    async def __call__(self, connection: HTTPConnection) -> Caller:
        return await guard_of(connection).caller(connection.scope)


current_caller = _CallerDependency()
CallerDep = Annotated[Caller, Depends(current_caller)]
"""Who is asking, known from the token alone: no I/O. The default choice."""


class _FreshDependency(_GuardDependency):
    """Who is asking, proven a moment ago."""

    def __init__(self, within: timedelta) -> None:
        super().__init__()
        self._within = within

    async def __call__(self, connection: HTTPConnection) -> Caller:
        return await guard_of(connection).fresh_caller(connection.scope, within=self._within)


def fresh(*, minutes: float) -> Callable[[HTTPConnection], Awaitable[Caller]]:
    """Return a dependency that lets in callers whose user proved who they are within the last `minutes`: no I/O.

    `Annotated[Caller, Depends(fresh(minutes=5))]` is for what a stolen session must not be enough for. Everybody else
    hears 401 `insufficient_user_authentication` with `max_age` in seconds (RFC 9470), proves it again at
    `POST …/confirm` or by signing in, and comes back.
    """
    return _FreshDependency(timedelta(minutes=minutes))


class _UserDependency(_GuardDependency):
    """The same, and the user: one dependency and not two, since each costs a tenth of a bare request."""

    async def __call__(self, connection: HTTPConnection) -> User:
        guard = guard_of(connection)
        return await guard.user(await guard.caller(connection.scope))


current_user = _UserDependency()
CurrentUser = Annotated[User, Depends(current_user)]
"""The user who is asking, read from the database at each request; no connection is held while the route runs."""


def guard_of(connection: HTTPConnection) -> Guard:
    """Return the guard of the application this connection came to.

    Raises:
        ConfigurationError: no `Auth` was installed there.
    """
    guard = getattr(getattr(connection.app.state, "latchstring", None), "guard", None)
    if not isinstance(guard, Guard):
        raise ConfigurationError("no Auth is installed in this application: call auth.install(app) first")
    return guard
