"""PageEdge: the routers that every room's pages build on, and the way back in for a visitor whose token is over.

    no access token, or one that is over    → 303 /renew?next=…, where there is a refresh token to renew it by;
                                              a form goes the same way by 307, and keeps what was filled in; for a
                                              link from another site /renew is a page, whose form renews
    nobody signed in, or not any more       → 303 /sign-in?next=…
    proven too long ago                     → the page that asks to confirm; a form waits in it, as it was filled in

Nobody who looks at a page is told to refresh.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import Scope

from latchstring.annotations import NotFromRequest
from latchstring.core.accounts.rules import User
from latchstring.core.caller import Caller
from latchstring.core.sessions.actions import SignedIn
from latchstring.core.sessions.answer import SignedInAnswer
from latchstring.core.sessions.guard import Guard, GuardDependency, OptionalUserDependency, current_user, guard_of
from latchstring.errors import Code, ConfigurationError, Refused
from latchstring.foundation.clock import Clock
from latchstring.foundation.web.cookies import read_cookies, replaced_cookies
from latchstring.foundation.web.edge import Edge
from latchstring.foundation.web.origin import SAFE_METHODS
from latchstring.foundation.web.pages.form import Form
from latchstring.foundation.web.pages.route import PageRoute
from latchstring.foundation.web.pages.site import Renewal, Site, with_headers
from latchstring.foundation.web.pages.words import msgid
from latchstring.foundation.web.problem import ProblemError
from latchstring.foundation.web.route import Handler

_SIGNED_IN = "latchstring.signed_in"
_RENEWABLE = frozenset({Code.CLAIMS_CHANGED, Code.INVALID_TOKEN, Code.MISSING_TOKEN, Code.TOKEN_EXPIRED})
_OVER = frozenset({Code.REFRESH_TOKEN_REUSED, Code.SESSION_ENDED, Code.USER_GONE, Code.USER_NOT_FOUND})

WHY_ENDED = "ended"
"""Why a visitor is asked to sign in, who was signed in: `?why=ended`."""


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


@dataclass(frozen=True, slots=True)
class StepUp:
    """How a visitor proves on a page, once more, who they are."""

    template: str
    field: str
    """The field of the proof; no form of ours has one of that name."""
    beside: Collection[str]
    """What else its page sends of its own, filled in or not."""
    prove: Callable[[Request, Caller, str], Awaitable[SignedIn | Refused]]
    """Checks what was filled into it."""
    missing: str
    """What is said where it was left empty: a sentence of the catalogues."""
    wrong: str
    """What is said where it is not right: a sentence of the catalogues."""


class PageEdge:
    """What pages need to know of sessions."""

    def __init__(
        self, site: Site, edge: Edge, guard: Guard, answer: SignedInAnswer, clock: Clock, *, access_life_seconds: float
    ) -> None:
        self.site = site
        self.edge = edge
        self.step_up: StepUp | None = None
        """What a feature offers for it."""
        self.visitor = VisitorDependency(guard)
        self.optional_user = OptionalUserDependency(guard)
        self._guard = guard
        self._answer = answer
        self._clock = clock
        self._access_life_seconds = access_life_seconds

    def router(self, *, templates: Path | None = None) -> APIRouter:
        """Return a router of pages.

        Args:
            templates: the folder of the room's own.
        """
        if templates is not None:
            self.site.templates.add_folder(templates)
        page_edge = self

        class Route(PageRoute):
            site = page_edge.site
            edge = page_edge.edge

            async def answered(self, request: Request, handle: Handler) -> Response:
                try:
                    return await super().answered(request, handle)
                except ProblemError as problem:
                    step_up = page_edge.step_up_for(request, problem)
                    if step_up is None:
                        raise
                    return await page_edge.confirmed(request, problem, handle, step_up=step_up)

            def detour(self, request: Request, problem: ProblemError) -> Response | None:
                return page_edge.detour(request, problem.code)

            def finished(self, request: Request, response: Response) -> Response:
                page_edge.keep_signed_in(request, response)
                return super().finished(request, response)

        router = APIRouter(route_class=Route, include_in_schema=False)
        self.site.routers.append(router)
        return router

    def page(self, request: Request, template: str, visitor: Visitor, **content: Any) -> Response:  # noqa: ANN401 -- whatever a template asks for
        """Return the page of a visitor who is signed in, which keeps their session alive while it is open."""
        return self.site.page(
            request, template, user=visitor.user, renewal=self.renewal(request, visitor.caller), **content
        )

    def renewal(self, connection: HTTPConnection, caller: Caller) -> Renewal:
        """Return what a page needs to keep a session alive while it is open."""
        left = caller.expires_at_unix - self._clock.now().timestamp()
        return Renewal(
            url=self.site.renewal_url(connection.scope),
            due_in_seconds=max(int(left), 0),
            life_seconds=max(int(self._access_life_seconds), 1),
        )

    def onward(self, request: Request, signed_in: SignedIn, *, destination: str | None, status: int = 303) -> Response:
        """Send the browser on, signed in: to its destination, or home."""
        location = destination or self.site.home(request.scope)
        response = Response(status_code=status, headers={"Location": location})
        self._answer.put_cookies(response, signed_in)
        return response

    def refused(self, request: Request, code: Code, *, headers: Mapping[str, str]) -> Response:
        """Return the page of a refusal for what is no route of ours."""
        response = self.site.problem(request, ProblemError(code))
        response.headers.update(headers)
        return with_headers(response)

    # --- the way back in ----------------------------------------------------------------------------------------------

    def detour(self, connection: HTTPConnection, code: Code) -> Response | None:
        """Return the way to where a refusal can be mended; None where it can't."""
        scope, site = connection.scope, self.site
        by_get = scope["method"] in SAFE_METHODS
        if code in _RENEWABLE and self._has_refresh_token(scope):
            # 307 keeps method and form: what was filled in comes through, however long it took to fill in.
            address = site.address(scope)
            location = site.url(scope, "/renew", next=address or site.here(scope))
            return Response(status_code=303 if by_get or address is None else 307, headers={"Location": location})
        if code in _RENEWABLE or code in _OVER:
            return self.to_sign_in(scope, was_signed_in=code is not Code.MISSING_TOKEN, destination=site.here(scope))
        if code is Code.INSUFFICIENT_USER_AUTHENTICATION and by_get and self.step_up is not None:
            return site.see_other(site.url(scope, "/account/confirm", next=site.here(scope)))
        return None

    def way_past_sign_in(self, request: Request, user: User | None, *, destination: str | None) -> Response | None:
        """Return the way on for who is signed in, or may be once renewed; None for who has to sign in."""
        if user is not None:
            return self.site.see_other(destination or self.site.home(request.scope))
        if "why" in request.query_params or not self._has_refresh_token(request.scope):
            return None
        return self.site.see_other(self.site.url(request.scope, "/renew", next=destination))

    def to_sign_in(self, scope: Scope, *, was_signed_in: bool, destination: str | None) -> Response | None:
        """Return the way to the sign-in page, and from there on; None where no feature has one."""
        if "/sign-in" not in self.site.paths:
            return None
        why = WHY_ENDED if was_signed_in else None
        onward = None if destination == self.site.home(scope) else destination
        return self.site.see_other(self.site.url(scope, "/sign-in", next=onward, why=why))

    def _has_refresh_token(self, scope: Scope) -> bool:
        return any(read_cookies(scope["headers"], self.edge.cookies.refresh_name.encode()))

    # --- a fresh proof ------------------------------------------------------------------------------------------------

    def step_up_for(self, request: Request, problem: ProblemError) -> StepUp | None:
        """Return how to go on with a form that was stopped only because its sender's proof is too old."""
        is_stopped = problem.code is Code.INSUFFICIENT_USER_AUTHENTICATION and request.method not in SAFE_METHODS
        return self.step_up if is_stopped else None

    async def confirmed(self, request: Request, problem: ProblemError, handle: Handler, *, step_up: StepUp) -> Response:
        """Ask for a proof on a page that holds the form which was stopped; once it is right, do what the form asks."""
        caller = await self._guard.caller(request.scope)
        fields = dict(await self.site.form(request))
        shown = fields.pop(step_up.field, None)
        was_asked = [fields.pop(name) for name in step_up.beside if name in fields]
        if shown is None and was_asked:
            form = Form(summary=self.site.words(request.scope)(step_up.missing))
            return await self._confirm_page(request, caller, fields, form=form, status=422, step_up=step_up)
        if shown is None:
            response = await self._confirm_page(request, caller, fields, form=Form(), status=401, step_up=step_up)
            response.headers.update(problem.headers or {})
            return response
        outcome = await step_up.prove(request, caller, shown)
        if isinstance(outcome, Refused):
            if outcome.code is not Code.INVALID_CREDENTIALS:
                raise ProblemError.of(outcome, token_sent=True)
            form = Form(summary=self.site.words(request.scope)(step_up.wrong))
            return await self._confirm_page(request, caller, fields, form=form, status=422, step_up=step_up)
        # Whatever becomes of the form: the session is one generation on, and its tokens have to reach the browser.
        request.scope[_SIGNED_IN] = outcome
        return await handle(self._with_tokens_of(request, outcome))

    async def _confirm_page(
        self,
        request: Request,
        caller: Caller,
        carried: dict[str, str],
        *,
        form: Form,
        status: int,
        step_up: StepUp,
    ) -> Response:
        site, scope = self.site, request.scope
        return self.page(
            request,
            step_up.template,
            Visitor(caller, await self._guard.user(caller)),
            status=status,
            form=form,
            action=site.address(scope) or site.here(scope),
            carried=list(carried.items()),
            cancel=site.here(scope),
            purpose=site.words(scope)(
                msgid("What you asked for is done as soon as you have confirmed that it is you.")
            ),
        )

    def _with_tokens_of(self, request: Request, signed_in: SignedIn) -> Request:
        cookies, tokens = self.edge.cookies, signed_in.tokens
        headers = replaced_cookies(
            request.scope["headers"], {cookies.access_name: tokens.access, cookies.refresh_name: tokens.refresh}
        )
        return Request({**request.scope, "headers": headers}, request.receive)

    def keep_signed_in(self, request: Request, response: Response) -> None:
        """Put the tokens of a session that was proven on the way on the answer, unless that has others."""
        signed_in: SignedIn | None = request.scope.get(_SIGNED_IN)
        names = (self.edge.cookies.access_name, self.edge.cookies.refresh_name)
        said = [value for name, value in response.raw_headers if name == b"set-cookie"]
        if signed_in is not None and not any(each.startswith(name.encode() + b"=") for each in said for name in names):
            self._answer.put_cookies(response, signed_in)


class PageDependency(GuardDependency):
    """Another guard of ours, which sends a visitor on and does not tell them to refresh."""

    def __init__(self, asked: GuardDependency) -> None:
        super().__init__(None, asked)
        self._dependency = asked
        self.lets_everyone_in = asked.lets_everyone_in
        self.refusals = asked.refusals

    def __str__(self) -> str:
        return f"on_page({self._dependency})"

    async def __call__(self, connection: HTTPConnection) -> Any:  # noqa: ANN401 -- what the other one returns
        try:
            return await self._dependency(connection)  # type: ignore[operator]  # every kind has a `__call__`, of its own type
        except ProblemError as problem:
            way = (
                page_edge_of(connection).detour(connection, problem.code)
                if connection.scope["type"] == "http"
                else None
            )
            if way is None:
                raise
            headers = {"Location": way.headers["Location"], "Cache-Control": "no-store"}
            raise HTTPException(way.status_code, headers=headers) from problem


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


def page_edge_of(connection: HTTPConnection) -> PageEdge:
    """Return the pages of the application this connection came to.

    Raises:
        ConfigurationError: it has none.
    """
    found = getattr(getattr(connection.app.state, "latchstring", None), "page_edge", None)
    if not isinstance(found, PageEdge):
        raise ConfigurationError("the application has no pages of ours: say Auth(…, pages=True)")
    return found
