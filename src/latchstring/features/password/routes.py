"""Register and login over HTTP."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from latchstring.core.accounts.schemas import UserResponse
from latchstring.core.sessions.routes import SignedInAnswer
from latchstring.errors import Code, Refused
from latchstring.features.password.actions import Passwords
from latchstring.features.password.schemas import Credentials, Registration
from latchstring.foundation.web.edge import Edge
from latchstring.foundation.web.problem import ProblemError, refusals
from latchstring.foundation.web.route import BODY_REFUSALS

_AWAY = (Code.DATABASE_UNAVAILABLE, Code.HASH_QUEUE_FULL, Code.KEYS_UNAVAILABLE)


def password_router(passwords: Passwords, answer: SignedInAnswer, edge: Edge) -> APIRouter:
    """Return `POST /register` and `POST /login`."""
    router = edge.credential_router(tags=["auth"])

    @router.post(
        "/register",
        operation_id="register",
        summary="Create an account and sign in",
        status_code=201,
        response_model=UserResponse,
        responses=refusals(
            *BODY_REFUSALS, *_AWAY, Code.EMAIL_TAKEN, Code.ORIGIN_NOT_ALLOWED, Code.PASSWORDS_DO_NOT_MATCH
        ),
    )
    async def register(registration: Registration, request: Request) -> Response:
        password = registration.password.get_secret_value()
        if password != registration.password_confirm.get_secret_value():
            raise ProblemError(Code.PASSWORDS_DO_NOT_MATCH)
        outcome = await passwords.register_user(
            email=registration.email,
            first_name=registration.first_name,
            last_name=registration.last_name,
            password=password,
            source=edge.source(request),
        )
        if isinstance(outcome, Refused):
            raise ProblemError(outcome.code)
        return answer(outcome, status=201)

    @router.post(
        "/login",
        operation_id="login",
        summary="Sign in with address and password",
        response_model=UserResponse,
        responses=refusals(*BODY_REFUSALS, *_AWAY, Code.INVALID_CREDENTIALS, Code.ORIGIN_NOT_ALLOWED),
    )
    async def login(credentials: Credentials, request: Request) -> Response:
        outcome = await passwords.sign_in(
            email=credentials.email, password=credentials.password.get_secret_value(), source=edge.source(request)
        )
        if isinstance(outcome, Refused):
            raise ProblemError(outcome.code)
        return answer(outcome)

    return router
