"""FastAPI's view of the guard: dependencies for the routes of an application.

    @app.get("/reports")
    async def reports(caller: CallerDep): ...      the caller, from the token alone: no I/O

    @app.get("/me")
    async def me(user: CurrentUser): ...           the user, read from the database

    @app.get("/")
    async def index(user: OptionalUser): ...       the user, or None for a visitor who is not signed in

    @app.delete("/account")
    async def delete(caller: Annotated[Caller, Depends(fresh(minutes=5))]): ...     a recent proof required: no I/O

    @app.get("/admin")
    async def admin(caller: Annotated[Caller, Depends(requires(role="admin"))]): ...     a role required: no I/O

They guard WebSockets as well, and close them when the caller's session ends or the role is withdrawn.
"""

from collections.abc import Awaitable, Callable, Collection, Hashable
from datetime import timedelta
from functools import partial
from typing import Annotated, ClassVar

from fastapi.openapi.models import HTTPBearer as HTTPBearerModel
from starlette.requests import HTTPConnection

from latchstring.annotations import NotFromRequest
from latchstring.core.accounts.rules import User
from latchstring.core.caller import Caller
from latchstring.core.guard.decide import GUARD_REFUSALS, OPTIONAL_USER_REFUSALS, SIGNED_OUT_STATUSES, Guard
from latchstring.core.guard.socket_layer import watchable_socket
from latchstring.errors import Code, ConfigurationError
from latchstring.foundation.web.dependency import SecurityDependency
from latchstring.foundation.web.openapi import BEARER_SCHEME
from latchstring.foundation.web.problem import ProblemError


class GuardDependency(SecurityDependency):
    """FastAPI's view of the guard: a dependency that is also a security scheme of the OpenAPI document.

    Guards with the same arguments are equal: FastAPI solves them once per request, and a test can override one by an
    equal one.
    """

    instead: ClassVar[str] = "For a visitor who may be signed out, use OptionalUser; as a return type, User or Caller."
    allows_anonymous = False
    refusals: Collection[Code] = GUARD_REFUSALS

    def __init__(self, guard: Guard | None = None, *arguments: Hashable) -> None:
        self.model = HTTPBearerModel(bearerFormat="JWT", description="An access token; or the `access_token` cookie.")
        self.scheme_name = BEARER_SCHEME
        self._guard = guard
        self._identity = (type(self), guard, *arguments)

    def __str__(self) -> str:
        return "CallerDep"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GuardDependency) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)


def _watch(guard: Guard, connection: HTTPConnection, caller: Caller) -> None:
    # Not a dependency with `yield`, which would know when the route returns: it costs 30 µs, for HTTP requests as well.
    if connection.scope["type"] == "websocket":
        watchable_socket(connection).watch(partial(guard.watching, caller))


class CallerDependency(GuardDependency):
    """Returns the caller."""

    async def __call__(self, connection: HTTPConnection) -> Caller:
        guard = self._guard or guard_of(connection)
        caller = await guard.caller(connection.scope)
        _watch(guard, connection, caller)
        return caller


current_caller = CallerDependency()
# The guard itself and not `Depends(guard)`: Pydantic asks it for a schema of `CallerDep | None`, and it refuses.
# Otherwise FastAPI would fill the parameter from the request's body, and a visitor could send any caller.
CallerDep = Annotated[Caller, current_caller]
"""The caller, from the token alone: no I/O. The default choice."""


class FreshDependency(GuardDependency):
    """Returns the caller, if the proof is recent enough."""

    refusals = (*GUARD_REFUSALS, Code.INSUFFICIENT_USER_AUTHENTICATION)

    def __init__(self, within: timedelta, guard: Guard | None = None) -> None:
        super().__init__(guard, within)
        self._within = within

    def __str__(self) -> str:
        return f"fresh(minutes={self._within.total_seconds() / 60:g})"

    async def __call__(self, connection: HTTPConnection) -> Caller:
        guard = self._guard or guard_of(connection)
        caller = await guard.fresh_caller(connection.scope, within=self._within)
        _watch(guard, connection, caller)
        return caller


# With the call forgotten, `Depends(fresh)` would make `fresh` itself the dependency: FastAPI would read `minutes` from
# the query, and let in any visitor who sends `?minutes=5`. These types refuse the route when it is declared.
Minutes = Annotated[float, NotFromRequest("fresh is missing its call: write Depends(fresh(minutes=5))")]
RoleName = Annotated[str, NotFromRequest('requires is missing its call: write Depends(requires(role="admin"))')]


def fresh(*, minutes: Minutes) -> Callable[[HTTPConnection], Awaitable[Caller]]:
    """Return a dependency that requires a proof from the last `minutes`. No I/O.

    Use it for actions that a stolen session must not be enough for: `Annotated[Caller, Depends(fresh(minutes=5))]`.
    A caller with an older proof gets 401 `insufficient_user_authentication` with `max_age` in seconds (RFC 9470). The
    client then calls `POST …/confirm`, or signs in again, and repeats the request.
    """
    return FreshDependency(timedelta(minutes=minutes))


class RoleDependency(GuardDependency):
    """Returns the caller, if they have the role."""

    refusals = (*GUARD_REFUSALS, Code.ROLE_REQUIRED)

    def __init__(self, role: str, guard: Guard | None = None) -> None:
        super().__init__(guard, role)
        self._role = role

    def __str__(self) -> str:
        return f"requires(role={self._role!r})"

    async def __call__(self, connection: HTTPConnection) -> Caller:
        guard = self._guard or guard_of(connection)
        caller = await guard.caller_with_role(connection.scope, role=self._role)
        _watch(guard, connection, caller)
        return caller


def requires(*, role: RoleName) -> Callable[[HTTPConnection], Awaitable[Caller]]:
    """Return a dependency that requires a role, which the token has to contain. No I/O.

    `Annotated[Caller, Depends(requires(role="admin"))]`: other signed-in callers get 403 `role_required`. Once a role
    has been withdrawn, every worker refuses the tokens that contain it within a second.
    """
    return RoleDependency(role)


class UserDependency(GuardDependency):
    """Returns the user, read from the database."""

    # One dependency and not one above `CallerDependency`: each costs a tenth of a bare request, measured.

    refusals = (*GUARD_REFUSALS, Code.DATABASE_UNAVAILABLE)

    def __str__(self) -> str:
        return "CurrentUser"

    async def __call__(self, connection: HTTPConnection) -> User:
        guard = self._guard or guard_of(connection)
        caller = await guard.caller(connection.scope)
        user = await guard.user(caller)
        _watch(guard, connection, caller)
        return user


current_user = UserDependency()
CurrentUser = Annotated[User, current_user]
"""The signed-in user, read from the database at each request. No connection is held while the route runs."""


class OptionalUserDependency(GuardDependency):
    """Returns the user, or None for a visitor who is not signed in."""

    allows_anonymous = True
    refusals = OPTIONAL_USER_REFUSALS

    def __str__(self) -> str:
        return "OptionalUser"

    async def __call__(self, connection: HTTPConnection) -> User | None:
        guard = self._guard or guard_of(connection)
        try:
            caller = await guard.caller(connection.scope)
            user = await guard.user(caller)
        except ProblemError as problem:
            if problem.status_code in SIGNED_OUT_STATUSES:
                return None
            raise
        _watch(guard, connection, caller)
        return user


optional_user = OptionalUserDependency()
OptionalUser = Annotated[User | None, optional_user]
"""The signed-in user, or None where another guard would respond with 401 or 404.

Other refusals stay refusals: a malformed header, two cookies, a foreign origin, and 503.
"""


def guard_of(connection: HTTPConnection) -> Guard:
    """Return the guard of the application that serves this connection.

    Raises:
        ConfigurationError: no `Auth` is installed in it.
    """
    guard = getattr(getattr(connection.app.state, "latchstring", None), "guard", None)
    if not isinstance(guard, Guard):
        raise ConfigurationError(
            "no Auth is installed in this application: call auth.install(app), or auth.attach(app) where it is mounted"
        )
    return guard
