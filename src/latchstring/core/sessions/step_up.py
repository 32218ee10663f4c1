"""Step-up on pages: a form that needs a fresh proof is kept in the confirmation page while the user confirms."""

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
from latchstring.foundation.web.measured import Handler
from latchstring.foundation.web.origin import SAFE_METHODS
from latchstring.foundation.web.pages.form import Form
from latchstring.foundation.web.pages.renderer import Renderer
from latchstring.foundation.web.pages.translations import msgid
from latchstring.foundation.web.problem import ProblemError

_SIGNED_IN = "latchstring.signed_in"


@dataclass(frozen=True, slots=True)
class StepUp:
    """How a feature confirms a visitor's identity on a page."""

    template: str
    field: str
    """The field of the proof. No other form of ours has a field with that name."""
    other_fields: Collection[str]
    """The other fields of the confirmation page's own form."""
    prove: Callable[[Request, Caller, str], Awaitable[SignedIn | Refused]]
    """Checks the value of `field`."""
    missing: str
    """The message for an empty field: a sentence of the catalogues."""
    wrong: str
    """The message for a wrong value: a sentence of the catalogues."""


class StepUpPages:
    """Shows the confirmation page, and runs the form's own route once the proof is right."""

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
        """Return whether a form was refused only because the proof is too old."""
        return problem.code is Code.INSUFFICIENT_USER_AUTHENTICATION and request.method not in SAFE_METHODS

    async def confirmed(self, request: Request, problem: ProblemError, handle: Handler) -> Response:
        """Show a confirmation page that holds the refused form; with the right proof, run the form's route.

        Raises:
            ProblemError: the proof was refused for another reason than being wrong, as with too many attempts.
        """
        # The form is kept in the page. On the server it would need a table of unfinished forms, and a cookie would be
        # sent with every request (decision 21).
        step_up, translate = self._step_up, self._renderer.translations(request.scope)
        caller = await self._guard.caller(request.scope)
        fields = dict(await self._renderer.form(request))
        proof = fields.pop(step_up.field, None)
        # The form reader drops empty fields. The page's other fields show that it was submitted without a proof.
        own_fields = [fields.pop(name) for name in step_up.other_fields if name in fields]
        if proof is None and own_fields:
            form = Form(summary=translate(step_up.missing))
            return await self._confirm_page(request, caller, fields, form=form, status=422)
        if proof is None:
            response = await self._confirm_page(request, caller, fields, form=Form(), status=401)
            response.headers.update(problem.headers or {})
            return response
        outcome = await step_up.prove(request, caller, proof)
        if isinstance(outcome, Refused):
            if outcome.code is not Code.INVALID_CREDENTIALS:
                raise ProblemError.of(outcome, token_sent=True)
            return await self._confirm_page(
                request, caller, fields, form=Form(summary=translate(step_up.wrong)), status=422
            )
        # Set on any response, also an error: the session has a new generation, and a browser left with the old
        # refresh token would later be taken for a thief.
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
        # The form's route has to see the new proof, which is in the new access token only.
        headers = replaced_cookies(
            request.scope["headers"], {cookies.access_name: tokens.access, cookies.refresh_name: tokens.refresh}
        )
        return Request({**request.scope, "headers": headers}, request.receive)

    def keep_signed_in(self, request: Request, response: Response) -> None:
        """Set the tokens of a session confirmed during this request, unless the response sets others itself."""
        signed_in: SignedIn | None = request.scope.get(_SIGNED_IN)
        names = (self._cookies.access_name, self._cookies.refresh_name)
        # A route that sets cookies itself, such as a password change, has newer tokens or clears them.
        set_cookies = [value for name, value in response.raw_headers if name == b"set-cookie"]
        if signed_in is not None and not any(
            each.startswith(name.encode() + b"=") for each in set_cookies for name in names
        ):
            self._signed_in_response.set_cookies(response, signed_in)
