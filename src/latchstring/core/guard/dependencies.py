"""FastAPI's view of the guard: dependencies for the routes of an application.

@app.get("/reports")
async def reports(caller: CallerDep): ...      who is asking, from the token alone: no I/O

@app.get("/me")
async def me(user: CurrentUser): ...           the same, and the user's row read

@app.get("/")
async def home(user: OptionalUser): ...        the user, or None where nobody is signed in

@app.delete("/account")
async def delete(caller: Annotated[Caller, Depends(fresh(minutes=5))]): ...     who proved it a moment ago: no I/O

@app.get("/admin")
async def admin(caller: Annotated[Caller, Depends(requires(role="admin"))]): ...     who has a role: no I/O

The same on WebSockets, which are closed when what let their caller in no longer holds.
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
from latchstring.core.guard.decide import GUARD_REFUSALS, NOBODY_SIGNED_IN, OPEN_REFUSALS, Guard
from latchstring.core.guard.socket_layer import watchable_socket
from latchstring.errors import Code, ConfigurationError
from latchstring.foundation.web.dependency import SecurityDependency
from latchstring.foundation.web.openapi import BEARER_SCHEME
from latchstring.foundation.web.problem import ProblemError


class GuardDependency(SecurityDependency):
    """FastAPI's view of the guard: a dependency that is also a security scheme of the OpenAPI document.

    Two that ask the same are equal, so that FastAPI solves one for both, and a test can override it by another.
    """

    instead: ClassVar[str] = "For a visitor who may be signed out, use OptionalUser; as a return type, User or Caller."
    allows_anonymous = False
    refusals: Collection[Code] = GUARD_REFUSALS

    def __init__(self, guard: Guard | None = None, *asked: Hashable) -> None:
        self.model = HTTPBearerModel(bearerFormat="JWT", description="An access token; or the `access_token` cookie.")
        self.scheme_name = BEARER_SCHEME
        self._guard = guard
        self._asked = (type(self), guard, *asked)

    def __str__(self) -> str:
        return "CallerDep"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GuardDependency) and self._asked == other._asked

    def __hash__(self) -> int:
        return hash(self._asked)


def _watch(guard: Guard, connection: HTTPConnection, caller: Caller) -> None:
    # A dependency that yields would tell when the route is over, at 30 µs for each HTTP request too.
    if connection.scope["type"] == "websocket":
        watchable_socket(connection).watch(partial(guard.watching, caller))


class CallerDependency(GuardDependency):
    """Who is asking."""

    async def __call__(self, connection: HTTPConnection) -> Caller:
        guard = self._guard or guard_of(connection)
        caller = await guard.caller(connection.scope)
        _watch(guard, connection, caller)
        return caller


current_caller = CallerDependency()
# The guard itself and not `Depends(guard)`: Pydantic asks it about `CallerDep | None`, and it refuses.
CallerDep = Annotated[Caller, current_caller]
"""Who is asking, known from the token alone: no I/O. The default choice."""


class FreshDependency(GuardDependency):
    """Who is asking, proven a moment ago."""

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


# `Depends(fresh)`, the call forgotten, would make `fresh` the dependency and let in whoever sends `?minutes=5`.
Minutes = Annotated[float, NotFromRequest("fresh is missing its call: write Depends(fresh(minutes=5))")]
RoleName = Annotated[str, NotFromRequest('requires is missing its call: write Depends(requires(role="admin"))')]


def fresh(*, minutes: Minutes) -> Callable[[HTTPConnection], Awaitable[Caller]]:
    """Return a dependency that lets in callers whose user proved who they are within the last `minutes`: no I/O.

    `Annotated[Caller, Depends(fresh(minutes=5))]` is for what a stolen session must not be enough for. Everybody else
    hears 401 `insufficient_user_authentication` with `max_age` in seconds (RFC 9470), proves it again at
    `POST …/confirm` or by signing in, and comes back.
    """
    return FreshDependency(timedelta(minutes=minutes))


class RoleDependency(GuardDependency):
    """Who is asking, with a role."""

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
    """Return a dependency that lets in callers who have a role: no I/O, the token says so.

    `Annotated[Caller, Depends(requires(role="admin"))]`. Everybody else who is signed in hears 403 `role_required`. A
    role that was withdrawn lets nobody in within a second, on every worker.
    """
    return RoleDependency(role)


class UserDependency(GuardDependency):
    """The same, and the user: one dependency and not two, since each costs a tenth of a bare request."""

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
"""The user who is asking, read from the database at each request; no connection is held while the route runs."""


class OptionalUserDependency(GuardDependency):
    """The user who is asking, or None."""

    allows_anonymous = True
    refusals = OPEN_REFUSALS

    def __str__(self) -> str:
        return "OptionalUser"

    async def __call__(self, connection: HTTPConnection) -> User | None:
        guard = self._guard or guard_of(connection)
        try:
            caller = await guard.caller(connection.scope)
            user = await guard.user(caller)
        except ProblemError as problem:
            if problem.status_code in NOBODY_SIGNED_IN:
                return None
            raise
        _watch(guard, connection, caller)
        return user


optional_user = OptionalUserDependency()
OptionalUser = Annotated[User | None, optional_user]
"""The user who is asking, or None where a guarded route would answer 401 or 404.

What is no visitor's innocent state is refused here as well: a malformed header, two cookies, a foreign origin, a
service that can't know for now (503).
"""


def guard_of(connection: HTTPConnection) -> Guard:
    """Return the guard of the application this connection came to.

    Raises:
        ConfigurationError: no `Auth` was installed there.
    """
    guard = getattr(getattr(connection.app.state, "latchstring", None), "guard", None)
    if not isinstance(guard, Guard):
        raise ConfigurationError(
            "no Auth is installed in this application: call auth.install(app), or auth.attach(app) where it is mounted"
        )
    return guard
