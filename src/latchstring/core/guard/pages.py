"""Guards for pages: they redirect a visitor where a JSON route refuses.

`on_page` redirects to the renewal, to the sign-in page or to the confirmation page, each of which redirects back.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Protocol, runtime_checkable

from fastapi import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import Response

from latchstring.annotations import NotFromRequest
from latchstring.core.accounts.rules import User
from latchstring.core.caller import Caller
from latchstring.core.guard.dependencies import GuardDependency, current_user, guard_of
from latchstring.errors import Code, ConfigurationError
from latchstring.foundation.web.problem import ProblemError


@dataclass(frozen=True, slots=True)
class Visitor:
    """The signed-in visitor of a page."""

    caller: Caller
    user: User


class VisitorDependency(GuardDependency):
    """Returns the caller and the user, both of which a page needs."""

    refusals = current_user.refusals

    def __str__(self) -> str:
        return "Visitor"

    async def __call__(self, connection: HTTPConnection) -> Visitor:
        guard = self._guard or guard_of(connection)
        caller = await guard.caller(connection.scope)
        return Visitor(caller, await guard.user(caller))


@runtime_checkable
class PageRedirects(Protocol):
    """The redirects of an application's pages."""

    def redirect_for(self, connection: HTTPConnection, code: Code) -> Response | None:
        """Return the redirect that resolves a refusal, to the sign-in page for example; None if there is none."""
        ...


class PageDependency(GuardDependency):
    """Wraps another guard of ours, and redirects where that refuses."""

    def __init__(self, wrapped: GuardDependency) -> None:
        super().__init__(None, wrapped)
        self._dependency = wrapped
        self.allows_anonymous = wrapped.allows_anonymous
        self.refusals = wrapped.refusals

    def __str__(self) -> str:
        return f"on_page({self._dependency})"

    async def __call__(self, connection: HTTPConnection) -> Any:  # noqa: ANN401 -- what the other one returns
        try:
            return await self._dependency(connection)  # type: ignore[operator]  # every kind has a `__call__`, of its own type
        except ProblemError as problem:
            # A WebSocket's handshake can't be redirected.
            if connection.scope["type"] != "http":
                raise
            redirect = redirects_of(connection).redirect_for(connection, problem.code)
            if redirect is None:
                raise
            # `no-store`: the redirect depends on the cookies, and a cached one would go on after the sign-in.
            headers = {"Location": redirect.headers["Location"], "Cache-Control": "no-store"}
            raise HTTPException(redirect.status_code, headers=headers) from problem


_PageGuard = Annotated[Any, NotFromRequest("on_page is missing its call: write Depends(on_page(current_user))")]


def on_page(dependency: _PageGuard) -> Any:  # noqa: ANN401 -- a dependency of any return type
    """Return a guard for an application's own pages: `Annotated[User, Depends(on_page(current_user))]`.

    Where `dependency` would refuse a visitor with an expired token, without a session or with an old proof, this
    redirects to the renewal, the sign-in page or the confirmation page, and from there back. Requires
    `Auth(…, pages=True)`.

    Args:
        dependency: `current_caller`, `current_user`, `fresh(minutes=…)` or `requires(role=…)`.

    Raises:
        ConfigurationError: `dependency` is not one of our guards.
    """
    if not isinstance(dependency, GuardDependency):
        raise ConfigurationError("on_page takes a guard of ours: current_user, fresh(minutes=…) or requires(role=…)")
    return PageDependency(dependency)


PageUser = Annotated[User, PageDependency(current_user)]
"""`CurrentUser` for an application's own pages: redirects a signed-out visitor to the sign-in page, and back."""


def redirects_of(connection: HTTPConnection) -> PageRedirects:
    """Return the redirects of the application that serves this connection.

    Raises:
        ConfigurationError: no pages are installed in it.
    """
    mounted = getattr(getattr(connection.app.state, "latchstring", None), "mounted", None)
    redirects = getattr(getattr(mounted, "pages", None), "redirects", None)
    if not isinstance(redirects, PageRedirects):
        raise ConfigurationError(
            "the pages that on_page redirects to are not installed: use Auth(…, pages=True) and auth.install(app)"
        )
    return redirects
