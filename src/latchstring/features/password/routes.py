"""Routes to register, log in, confirm and change the password, and the password grant of the token endpoint."""

from fastapi import APIRouter
from pydantic import SecretStr, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from latchstring.core.accounts.schemas import UserResponse
from latchstring.core.caller import Caller
from latchstring.core.guard.credentials import cookie_token, cookie_tokens
from latchstring.core.guard.decide import GUARD_REFUSALS
from latchstring.core.guard.dependencies import CallerDep
from latchstring.core.sessions.issuing import SignedIn
from latchstring.core.sessions.refresh import Refresher
from latchstring.core.sessions.responses import SignedInResponse, TokenResponse
from latchstring.core.sign_in.token_endpoint import Form, Grant, required
from latchstring.core.tokens.rules import RefreshClaims
from latchstring.errors import Code, Refused
from latchstring.features.password.actions import Passwords
from latchstring.features.password.schemas import Confirmation, Credentials, PasswordChange, Registration
from latchstring.foundation.events import Source
from latchstring.foundation.web.context import WebContext
from latchstring.foundation.web.problem import ProblemError, refusals
from latchstring.foundation.web.route import BODY_REFUSALS

_OUTAGE = (Code.DATABASE_UNAVAILABLE, Code.HASH_QUEUE_FULL, Code.KEYS_UNAVAILABLE)


def password_router(
    passwords: Passwords, refresher: Refresher, signed_in_response: SignedInResponse, web: WebContext
) -> APIRouter:
    """Return the routes that sign in, and those with which a signed-in user proves or changes the password."""
    # A credential router: the request's origin is checked first, also for sign-in (login CSRF, CVE-2021-21241).
    router = web.credential_router(tags=["auth"])
    _add_sign_in(router, passwords, signed_in_response, web)
    _add_confirm_and_change(router, passwords, refresher, signed_in_response, web)
    return router


def _add_sign_in(
    router: APIRouter, passwords: Passwords, signed_in_response: SignedInResponse, web: WebContext
) -> None:
    cookie_names = [name.encode() for name in web.cookies.names]

    @router.post(
        "/register",
        operation_id="register",
        summary="Create an account and sign in",
        status_code=201,
        response_model=UserResponse,
        responses=refusals(
            *BODY_REFUSALS,
            *_OUTAGE,
            Code.EMAIL_TAKEN,
            Code.ORIGIN_NOT_ALLOWED,
            Code.PASSWORDS_DO_NOT_MATCH,
            Code.TOO_MANY_REQUESTS,
        ),
    )
    async def register(registration: Registration, request: Request) -> Response:
        password = registration.password.get_secret_value()
        # Not in the model, because it has a code of its own and is no `validation_failed`.
        if password != registration.password_confirm.get_secret_value():
            raise ProblemError(Code.PASSWORDS_DO_NOT_MATCH)
        outcome = await passwords.register_user(
            email=registration.email,
            first_name=registration.first_name,
            last_name=registration.last_name,
            password=password,
            # From the cookies only: a token in `Authorization` may be a gateway's, and ends nothing.
            former=cookie_tokens(request.scope["headers"], cookie_names),
            source=web.source(request),
        )
        if isinstance(outcome, Refused):
            raise ProblemError.of(outcome)
        return signed_in_response(outcome, status=201)

    @router.post(
        "/login",
        operation_id="login",
        summary="Sign in with address and password",
        response_model=UserResponse,
        responses=refusals(
            *BODY_REFUSALS, *_OUTAGE, Code.INVALID_CREDENTIALS, Code.ORIGIN_NOT_ALLOWED, Code.TOO_MANY_REQUESTS
        ),
    )
    async def login(credentials: Credentials, request: Request) -> Response:
        """Sign in. The session that the browser's cookies belong to ends."""
        outcome = await passwords.sign_in(
            email=credentials.email,
            password=credentials.password.get_secret_value(),
            # ASVS 5.0, 7.2.4: a new sign-in replaces the browser's session. Only the cookies count, as at /register.
            former=cookie_tokens(request.scope["headers"], cookie_names),
            source=web.source(request),
        )
        if isinstance(outcome, Refused):
            raise ProblemError.of(outcome)
        return signed_in_response(outcome)


def _add_confirm_and_change(
    router: APIRouter, passwords: Passwords, refresher: Refresher, signed_in_response: SignedInResponse, web: WebContext
) -> None:
    refresh_cookie = web.cookies.refresh_name.encode()

    def refresh_claims(request: Request, caller: Caller) -> RefreshClaims | None:
        # Read from the raw header by its exact name; a duplicate, which a sibling domain can plant, is refused.
        presented = cookie_token(request.scope["headers"], refresh_cookie)
        if isinstance(presented, Refused):
            raise ProblemError(presented.code)
        return refresher.refresh_claims(caller, presented)

    @router.post(
        "/confirm",
        operation_id="confirm",
        summary="Prove again who one is",
        response_model=UserResponse | TokenResponse,
        responses=refusals(*GUARD_REFUSALS, *BODY_REFUSALS, *_OUTAGE, Code.INVALID_CREDENTIALS, Code.TOO_MANY_REQUESTS),
    )
    async def confirm(confirmation: Confirmation, request: Request, caller: CallerDep) -> Response:
        """Confirm the session, for routes that require a fresh proof. The proof belongs to this response's tokens.

        A browser gets two new cookies, and the user as the body. A client that sent `Authorization: Bearer` gets the
        body of `/token` instead and must store both tokens: they replace the ones it had.
        """
        # A reused refresh token here is theft as at /refresh: it ends the session before the proof counts.
        bearer = refresh_claims(request, caller)
        outcome = await passwords.confirm(
            caller,
            password=confirmation.password.get_secret_value(),
            bearer=bearer,
            source=web.source(request),
        )
        if isinstance(outcome, Refused):
            raise ProblemError.of(outcome, token_sent=True)
        # By the caller's own transport: a bearer client that got cookies would keep using a replaced refresh token.
        user = Response(UserResponse.of(outcome.user).model_dump_json(), media_type="application/json")
        return signed_in_response.to_caller(request, outcome, by_cookie=user, has_cookie=bearer is not None)

    @router.post(
        "/password/change",
        operation_id="change_password",
        summary="Change one's password",
        status_code=204,
        response_class=Response,
        responses={
            200: {"model": TokenResponse, "description": "For `Authorization: Bearer`: the same body as `/token`."},
            **refusals(*GUARD_REFUSALS, *BODY_REFUSALS, *_OUTAGE, Code.INVALID_CREDENTIALS, Code.TOO_MANY_REQUESTS),
        },
    )
    async def change_password(change: PasswordChange, request: Request, caller: CallerDep) -> Response:
        """Change the password. Every session ends, and the caller gets a new one with this response."""
        bearer = refresh_claims(request, caller)
        outcome = await passwords.change_password(
            caller,
            current_password=change.current_password.get_secret_value(),
            new_password=change.new_password.get_secret_value(),
            source=web.source(request),
        )
        if isinstance(outcome, Refused):
            raise ProblemError.of(outcome, token_sent=True)
        done = Response(status_code=204)
        return signed_in_response.to_caller(request, outcome, by_cookie=done, has_cookie=bearer is not None)


def password_grant(passwords: Passwords) -> Grant:
    """Return the password grant (RFC 6749, section 4.3). It refuses what `/login` refuses, in the same way."""

    async def sign_in(form: Form, *, source: Source) -> SignedIn | Refused:
        username, password = required(form, "username"), required(form, "password")
        try:
            credentials = Credentials(email=username, password=SecretStr(password))
        except ValidationError:
            # No account can have such an email or such a password.
            return Refused(Code.INVALID_CREDENTIALS)
        # Without `former`: /token sets no cookies, and clients with several accounts keep their other sessions.
        return await passwords.sign_in(email=credentials.email, password=password, source=source)

    return sign_in
