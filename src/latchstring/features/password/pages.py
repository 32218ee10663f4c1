"""Pages to sign up, sign in, change the password and confirm it, over the same actions as the JSON routes.

A page with a wrong form is sent with 422 and the visitor's input, except for passwords.
"""

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, SecretStr, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from latchstring.core.accounts.rules import User
from latchstring.core.accounts.schemas import CanonicalEmail, Name
from latchstring.core.caller import Caller
from latchstring.core.guard.credentials import cookie_token, cookie_tokens
from latchstring.core.guard.pages import Visitor
from latchstring.core.sessions.issuing import SignedIn
from latchstring.core.sessions.page_router import PageRouter
from latchstring.core.sessions.redirects import WHY_ENDED
from latchstring.core.sessions.refresh import Refresher
from latchstring.core.sessions.step_up import StepUp
from latchstring.errors import Code, Refused
from latchstring.features.password.actions import Passwords
from latchstring.features.password.schemas import PASSWORD_MIN_LENGTH, Confirmation, Credentials, Password
from latchstring.foundation.web.context import WebContext
from latchstring.foundation.web.pages.form import FieldProblem, Form, problems_of, without
from latchstring.foundation.web.pages.translations import msgid
from latchstring.foundation.web.pages.urls import see_other
from latchstring.foundation.web.problem import ProblemError

TEMPLATES = Path(__file__).with_name("templates")
_NO_PASSWORD = msgid("Enter your password.")
_NO_EMAIL = msgid("Enter your e-mail address.")
_SIGN_UP_FIELDS = {
    "first_name": msgid("Enter your first name."),
    "last_name": msgid("Enter your last name."),
    "email": _NO_EMAIL,
    "password": msgid("Choose a password."),
}
_SIGN_IN_FIELDS = {"email": _NO_EMAIL, "password": _NO_PASSWORD}
_CHANGE_FIELDS = {
    "current_password": msgid("Enter your current password."),
    "new_password": msgid("Choose a new password."),
}
_CONFIRM_FIELD = "confirm_password"
_NOT_RIGHT = msgid("The e-mail address or the password is not right.")
_PASSWORD_NOT_RIGHT = msgid("The password is not right.")
_WHY = {WHY_ENDED: msgid("Your session has ended. Sign in to go on.")}
_NOTICES = {"changed": msgid("Your password is changed, and all your other sessions have ended.")}


class SignUpForm(BaseModel):
    """The fields of the JSON route, but the password only once: on the page it can be made visible."""

    first_name: Name
    last_name: Name
    email: CanonicalEmail
    password: Password


class ChangeForm(BaseModel):
    """The current password may be any text, which is then wrong; the new one must be valid."""

    # Not a `Password`: "use at least 8 characters" beside the current password would be no help.
    current_password: SecretStr
    new_password: Password


def password_pages(passwords: Passwords, step_up: StepUp, pages: PageRouter) -> APIRouter:
    """Return the pages of this package."""
    router = pages.router(templates=TEMPLATES)
    _add_sign_up(router, passwords, pages)
    _add_sign_in(router, passwords, pages)
    _add_change(router, passwords, pages)
    _add_confirm(router, step_up, pages)
    return router


def _add_sign_up(router: APIRouter, passwords: Passwords, pages: PageRouter) -> None:
    urls, renderer, web = pages.urls, pages.renderer, pages.web
    cookie_names = [name.encode() for name in web.cookies.names]
    MaybeUser = Annotated[User | None, Depends(pages.optional_user)]  # noqa: N806 -- a type

    def form_again(request: Request, *, destination: str | None, form: Form) -> Response:
        return renderer.page(
            request,
            "sign_up.html",
            status=422,
            page_url=urls.url(request.scope, "/sign-up", next=destination),
            form=form,
            destination=destination,
            password_min_length=PASSWORD_MIN_LENGTH,
        )

    @router.get("/sign-up")
    async def show_sign_up(request: Request, user: MaybeUser) -> Response:
        destination = urls.destination_in_query(request)
        if user is not None:
            return see_other(destination or urls.landing_page(request.scope))
        # The same for every visitor, and rendered once: a template takes ten times as long as a bare route.
        return renderer.public_page(
            request, "sign_up.html", destination=destination, password_min_length=PASSWORD_MIN_LENGTH
        )

    @router.post("/sign-up")
    async def sign_up(request: Request) -> Response:
        fields = await renderer.form(request)
        translate = renderer.translations(request.scope)
        # Checked again after the GET: the hidden field comes from the browser, where it can be changed.
        destination = urls.destination(fields.get("next"))
        # A password is never sent back, not even in a form with an error.
        kept = without(fields, {"password"})
        try:
            filled = SignUpForm.model_validate({name: fields[name] for name in _SIGN_UP_FIELDS if name in fields})
        except ValidationError as error:
            form = Form(kept, problems_of(error, translate, blank=_SIGN_UP_FIELDS))
            return form_again(request, destination=destination, form=form)
        outcome = await passwords.register_user(
            email=filled.email,
            first_name=filled.first_name,
            last_name=filled.last_name,
            password=filled.password.get_secret_value(),
            former=cookie_tokens(request.scope["headers"], cookie_names),
            source=web.source(request),
        )
        if isinstance(outcome, Refused):
            if outcome.code is not Code.EMAIL_TAKEN:
                raise ProblemError.of(outcome)
            taken = translate(msgid("There is an account with this address already. Sign in with it."))
            return form_again(request, destination=destination, form=Form(kept, (FieldProblem("email", taken),)))
        return pages.to_destination(request, outcome, destination=destination)


def _add_sign_in(router: APIRouter, passwords: Passwords, pages: PageRouter) -> None:
    urls, renderer, web = pages.urls, pages.renderer, pages.web
    cookie_names = [name.encode() for name in web.cookies.names]
    MaybeUser = Annotated[User | None, Depends(pages.optional_user)]  # noqa: N806 -- a type

    def form_again(request: Request, *, destination: str | None, form: Form) -> Response:
        page_url = urls.url(request.scope, "/sign-in", next=destination)
        return renderer.page(
            request, "sign_in.html", status=422, page_url=page_url, form=form, destination=destination, why=None
        )

    @router.get("/sign-in")
    async def show_sign_in(request: Request, user: MaybeUser) -> Response:
        destination = urls.destination_in_query(request)
        redirect = pages.redirects.past_sign_in(request, user, destination=destination)
        if redirect is not None:
            return redirect
        # One of our own sentences, named by a key: text from a link would be an attacker's, beside a password field.
        reason = _WHY.get(request.query_params.get("why", ""))
        why = renderer.translations(request.scope)(reason) if reason else None
        return renderer.public_page(request, "sign_in.html", destination=destination, why=why)

    @router.post("/sign-in")
    async def sign_in(request: Request) -> Response:
        fields = await renderer.form(request)
        translate = renderer.translations(request.scope)
        destination = urls.destination(fields.get("next"))
        kept = without(fields, {"password"})
        # Only empty fields are named. Which of the two was wrong is never said.
        missing = tuple(
            FieldProblem(name, translate(blank)) for name, blank in _SIGN_IN_FIELDS.items() if name not in fields
        )
        if missing:
            return form_again(request, destination=destination, form=Form(kept, missing))
        outcome = await _signed_in(passwords, fields, request)
        if isinstance(outcome, Refused):
            if outcome.code is not Code.INVALID_CREDENTIALS:
                raise ProblemError.of(outcome)
            return form_again(request, destination=destination, form=Form(kept, summary=translate(_NOT_RIGHT)))
        return pages.to_destination(request, outcome, destination=destination)

    async def _signed_in(passwords: Passwords, fields: dict[str, str], request: Request) -> SignedIn | Refused:
        try:
            credentials = Credentials.model_validate({name: fields[name] for name in _SIGN_IN_FIELDS})
        except ValidationError:
            # No account can have such an email or password: the same response as for a wrong one.
            return Refused(Code.INVALID_CREDENTIALS)
        return await passwords.sign_in(
            email=credentials.email,
            password=credentials.password.get_secret_value(),
            former=cookie_tokens(request.scope["headers"], cookie_names),
            source=web.source(request),
        )


def _add_change(router: APIRouter, passwords: Passwords, pages: PageRouter) -> None:
    urls, renderer, web = pages.urls, pages.renderer, pages.web
    PageVisitor = Annotated[Visitor, Depends(pages.visitor)]  # noqa: N806 -- a type

    def password_page(
        request: Request, visitor: Visitor, *, form: Form | None = None, status: int = 200, notice: str | None = None
    ) -> Response:
        return pages.visitor_page(
            request,
            "password.html",
            visitor,
            status=status,
            form=form,
            notice=notice,
            password_min_length=PASSWORD_MIN_LENGTH,
        )

    @router.get("/account/password")
    async def show_password(request: Request, visitor: PageVisitor) -> Response:
        return password_page(request, visitor, notice=renderer.notice(request, _NOTICES))

    @router.post("/account/password")
    async def change_password(request: Request, visitor: PageVisitor) -> Response:
        fields = await renderer.form(request)
        translate = renderer.translations(request.scope)
        try:
            filled = ChangeForm.model_validate({name: fields[name] for name in _CHANGE_FIELDS if name in fields})
        except ValidationError as error:
            form = Form({}, problems_of(error, translate, blank=_CHANGE_FIELDS))
            return password_page(request, visitor, form=form, status=422)
        current, new = filled.current_password.get_secret_value(), filled.new_password.get_secret_value()
        outcome: SignedIn | Refused = Refused(Code.INVALID_CREDENTIALS)
        if _is_valid(current):
            outcome = await passwords.change_password(
                visitor.caller, current_password=current, new_password=new, source=web.source(request)
            )
        if not isinstance(outcome, Refused):
            # With the new session's cookies: every session has ended, including the one that sent this form.
            changed = urls.url(request.scope, "/account/password", done="changed")
            return pages.to_destination(request, outcome, destination=changed)
        if outcome.code is not Code.INVALID_CREDENTIALS:
            raise ProblemError.of(outcome, token_sent=True)
        wrong = FieldProblem("current_password", translate(_PASSWORD_NOT_RIGHT))
        return password_page(request, visitor, form=Form({}, (wrong,)), status=422)


def password_step_up(passwords: Passwords, refresher: Refresher, web: WebContext) -> StepUp:
    """Return the step-up by password: how a page asks for a fresh proof."""
    refresh_cookie = web.cookies.refresh_name.encode()

    async def prove(request: Request, caller: Caller, password: str) -> SignedIn | Refused:
        presented = cookie_token(request.scope["headers"], refresh_cookie)
        if isinstance(presented, Refused):
            return presented
        if not _is_valid(password):
            return Refused(Code.INVALID_CREDENTIALS)
        bearer = refresher.refresh_claims(caller, presented)
        return await passwords.confirm(caller, password=password, bearer=bearer, source=web.source(request))

    return StepUp("confirm.html", _CONFIRM_FIELD, ("username",), prove, missing=_NO_PASSWORD, wrong=_PASSWORD_NOT_RIGHT)


def _add_confirm(router: APIRouter, step_up: StepUp, pages: PageRouter) -> None:
    urls, renderer = pages.urls, pages.renderer
    PageVisitor = Annotated[Visitor, Depends(pages.visitor)]  # noqa: N806 -- a type

    def confirm_page(
        request: Request, visitor: Visitor, *, destination: str | None, form: Form | None = None, status: int = 200
    ) -> Response:
        return pages.visitor_page(
            request,
            "confirm.html",
            visitor,
            status=status,
            form=form,
            destination=destination,
            action=urls.url(request.scope, "/account/confirm"),
            # Only a form that waits for its proof has fields here, and is then sent to its own URL (`step_up.py`).
            carried=[],
            cancel=urls.landing_page(request.scope),
            purpose=None,
        )

    @router.get("/account/confirm")
    async def show_confirm(request: Request, visitor: PageVisitor) -> Response:
        return confirm_page(request, visitor, destination=urls.destination_in_query(request))

    @router.post("/account/confirm")
    async def confirm(request: Request, visitor: PageVisitor) -> Response:
        fields = await renderer.form(request)
        translate = renderer.translations(request.scope)
        destination = urls.destination(fields.get("next"))
        password = fields.get(_CONFIRM_FIELD)
        if password is None:
            form = Form({}, (FieldProblem(_CONFIRM_FIELD, translate(_NO_PASSWORD)),))
            return confirm_page(request, visitor, destination=destination, form=form, status=422)
        outcome = await step_up.prove(request, visitor.caller, password)
        if isinstance(outcome, Refused):
            if outcome.code is not Code.INVALID_CREDENTIALS:
                raise ProblemError.of(outcome, token_sent=True)
            form = Form({}, (FieldProblem(_CONFIRM_FIELD, translate(_PASSWORD_NOT_RIGHT)),))
            return confirm_page(request, visitor, destination=destination, form=form, status=422)
        return pages.to_destination(request, outcome, destination=destination)


def _is_valid(password: str) -> bool:
    # A password that no account can have is no attempt and costs no hash, as over JSON.
    try:
        Confirmation.model_validate({"password": password})
    except ValidationError:
        return False
    return True
