"""Guards for pages: a visitor is redirected where a JSON route refuses, and comes back.

A page's visitor is never told to refresh a token: `on_page` redirects to the quiet renewal, to the sign-in page, or to
the page that asks to confirm.
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
    """Who looks at a page."""

    caller: Caller
    user: User


class VisitorDependency(GuardDependency):
    """Who is asking, from the token and from the database: what a signed-in page shows of itself."""

    refusals = current_user.refusals

    def __str__(self) -> str:
        return "Visitor"

    async def __call__(self, connection: HTTPConnection) -> Visitor:
        guard = self._guard or guard_of(connection)
        caller = await guard.caller(connection.scope)
        return Visitor(caller, await guard.user(caller))


@runtime_checkable
class PageRedirects(Protocol):
    """Knows where a visitor can mend what a guard refused."""

    def redirect_for(self, connection: HTTPConnection, code: Code) -> Response | None:
        """Return the redirect to where a refusal can be mended; None where it can't."""
        ...


class PageDependency(GuardDependency):
    """Another guard of ours, which sends a visitor on and does not tell them to refresh."""

    def __init__(self, asked: GuardDependency) -> None:
        super().__init__(None, asked)
        self._dependency = asked
        self.allows_anonymous = asked.allows_anonymous
        self.refusals = asked.refusals

    def __str__(self) -> str:
        return f"on_page({self._dependency})"

    async def __call__(self, connection: HTTPConnection) -> Any:  # noqa: ANN401 -- what the other one returns
        try:
            return await self._dependency(connection)  # type: ignore[operator]  # every kind has a `__call__`, of its own type
        except ProblemError as problem:
            if connection.scope["type"] != "http":
                raise
            redirect = redirects_of(connection).redirect_for(connection, problem.code)
            if redirect is None:
                raise
            headers = {"Location": redirect.headers["Location"], "Cache-Control": "no-store"}
            raise HTTPException(redirect.status_code, headers=headers) from problem


_PageGuard = Annotated[Any, NotFromRequest("on_page is missing its call: write Depends(on_page(current_user))")]


def on_page(dependency: _PageGuard) -> Any:  # noqa: ANN401 -- a dependency, whatever it returns
    """Return a guard for pages of the application's own: `Annotated[User, Depends(on_page(current_user))]`.

    Whom the guard would refuse, because the token is over or nobody is signed in, it sends on to where that is mended,
    and back: to the quiet renewal, to the sign-in page, to the one that asks to confirm. It takes the pages of
    `Auth(…, pages=True)`.

    Args:
        dependency: `current_caller`, `current_user`, `fresh(minutes=…)` or `requires(role=…)`.

    Raises:
        ConfigurationError: it is no guard of ours.
    """
    if not isinstance(dependency, GuardDependency):
        raise ConfigurationError("on_page takes one of our guards: current_user, fresh(minutes=…), requires(role=…)")
    return PageDependency(dependency)


PageUser = Annotated[User, PageDependency(current_user)]
"""`CurrentUser` for a page of the application's own: who is not signed in is sent to sign in, and back."""


def redirects_of(connection: HTTPConnection) -> PageRedirects:
    """Return the redirects of the application this connection came to.

    Raises:
        ConfigurationError: it has no pages.
    """
    mounted = getattr(getattr(connection.app.state, "latchstring", None), "mounted", None)
    redirects = getattr(getattr(mounted, "pages", None), "redirects", None)
    if not isinstance(redirects, PageRedirects):
        raise ConfigurationError("the application has no pages of ours: say Auth(…, pages=True)")
    return redirects
