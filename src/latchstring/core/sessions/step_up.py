"""Step-up on pages: a form that needs a fresh proof waits in the page that asks for it, as it was filled in."""

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from latchstring.core.caller import Caller
from latchstring.core.guard.decide import Guard
from latchstring.core.guard.pages import Visitor
from latchstring.core.sessions.issuing import SignedIn
from latchstring.core.sessions.responses import SignedInResponse
from latchstring.core.sessions.visitor_page import VisitorPage
from latchstring.errors import Code, Refused
from latchstring.foundation.web.context import WebContext
from latchstring.foundation.web.cookies import replaced_cookies
from latchstring.foundation.web.origin import SAFE_METHODS
from latchstring.foundation.web.pages.form import Form
from latchstring.foundation.web.pages.renderer import Renderer
from latchstring.foundation.web.pages.translations import msgid
from latchstring.foundation.web.problem import ProblemError
from latchstring.foundation.web.route import Handler

_SIGNED_IN = "latchstring.signed_in"


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


class StepUpPages:
    """Asks for the proof, and then does what the form asks for."""

    def __init__(
        self,
        step_up: StepUp,
        guard: Guard,
        *,
        renderer: Renderer,
        visitor_page: VisitorPage,
        signed_in_response: SignedInResponse,
        web: WebContext,
    ) -> None:
        self._step_up = step_up
        self._guard = guard
        self._renderer = renderer
        self._visitor_page = visitor_page
        self._signed_in_response = signed_in_response
        self._cookies = web.cookies

    def handles(self, request: Request, problem: ProblemError) -> bool:
        """Tell whether a form was stopped only because its sender's proof is too old."""
        return problem.code is Code.INSUFFICIENT_USER_AUTHENTICATION and request.method not in SAFE_METHODS

    async def confirmed(self, request: Request, problem: ProblemError, handle: Handler) -> Response:
        """Ask for a proof on a page that holds the form which was stopped; once it is right, do what the form asks."""
        step_up, translate = self._step_up, self._renderer.translations(request.scope)
        caller = await self._guard.caller(request.scope)
        fields = dict(await self._renderer.form(request))
        shown = fields.pop(step_up.field, None)
        was_asked = [fields.pop(name) for name in step_up.beside if name in fields]
        if shown is None and was_asked:
            form = Form(summary=translate(step_up.missing))
            return await self._confirm_page(request, caller, fields, form=form, status=422)
        if shown is None:
            response = await self._confirm_page(request, caller, fields, form=Form(), status=401)
            response.headers.update(problem.headers or {})
            return response
        outcome = await step_up.prove(request, caller, shown)
        if isinstance(outcome, Refused):
            if outcome.code is not Code.INVALID_CREDENTIALS:
                raise ProblemError.of(outcome, token_sent=True)
            return await self._confirm_page(
                request, caller, fields, form=Form(summary=translate(step_up.wrong)), status=422
            )
        # Whatever becomes of the form: the session is one generation on, and its tokens have to reach the browser.
        request.scope[_SIGNED_IN] = outcome
        return await handle(self._with_tokens_of(request, outcome))

    async def _confirm_page(
        self, request: Request, caller: Caller, carried: dict[str, str], *, form: Form, status: int
    ) -> Response:
        renderer, scope = self._renderer, request.scope
        urls = renderer.urls
        return self._visitor_page(
            request,
            self._step_up.template,
            Visitor(caller, await self._guard.user(caller)),
            status=status,
            form=form,
            action=urls.requested(scope) or urls.current_page(scope),
            carried=list(carried.items()),
            cancel=urls.current_page(scope),
            purpose=renderer.translations(scope)(
                msgid("What you asked for is done as soon as you have confirmed that it is you.")
            ),
        )

    def _with_tokens_of(self, request: Request, signed_in: SignedIn) -> Request:
        cookies, tokens = self._cookies, signed_in.tokens
        headers = replaced_cookies(
            request.scope["headers"], {cookies.access_name: tokens.access, cookies.refresh_name: tokens.refresh}
        )
        return Request({**request.scope, "headers": headers}, request.receive)

    def keep_signed_in(self, request: Request, response: Response) -> None:
        """Put the tokens of a session that was proven on the way on the response, unless that has others."""
        signed_in: SignedIn | None = request.scope.get(_SIGNED_IN)
        names = (self._cookies.access_name, self._cookies.refresh_name)
        said = [value for name, value in response.raw_headers if name == b"set-cookie"]
        if signed_in is not None and not any(each.startswith(name.encode() + b"=") for each in said for name in names):
            self._signed_in_response.set_cookies(response, signed_in)
