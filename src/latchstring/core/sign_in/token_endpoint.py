"""The token endpoint (RFC 6749): tokens in the body, for clients that are not browsers.

POST /token   grant_type=refresh_token&refresh_token=…       the sessions room's own grant
              grant_type=password&username=…&password=…      a feature's: whoever can prove a user offers a `Grant`

No cookie is set, and every refusal has the shape that OAuth 2 clients know: `error` and `error_description`, beside the
stable `code` of ours. All clients are public ones, and there are no scopes.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Protocol

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from latchstring.core.sessions.issuing import SignedIn
from latchstring.core.sessions.refresh import Refresher
from latchstring.core.sessions.responses import SignedInResponse, TokenResponse
from latchstring.core.tokens.rules import CLIENT_ID
from latchstring.errors import Code, Refused
from latchstring.foundation.events import Source
from latchstring.foundation.web.body import read_form
from latchstring.foundation.web.context import WebContext
from latchstring.foundation.web.problem import PROBLEMS, ProblemError
from latchstring.foundation.web.request_id import request_id

Form = Mapping[str, str]

_INVALID_GRANT = "invalid_grant"
_INVALID_REQUEST = "invalid_request"
_TEMPORARILY_UNAVAILABLE = "temporarily_unavailable"
# RFC 6749, section 5.2. It knows no errors for what passes by itself; 4.1.2.1 has one, which clients know.
_ERRORS: Mapping[Code, tuple[int, str]] = {
    Code.INVALID_CLIENT: (401, "invalid_client"),
    Code.INVALID_CREDENTIALS: (400, _INVALID_GRANT),
    Code.INVALID_SCOPE: (400, "invalid_scope"),
    Code.INVALID_TOKEN: (400, _INVALID_GRANT),
    Code.REFRESH_TOKEN_REUSED: (400, _INVALID_GRANT),
    Code.SESSION_ENDED: (400, _INVALID_GRANT),
    Code.TOKEN_EXPIRED: (400, _INVALID_GRANT),
    Code.UNSUPPORTED_GRANT_TYPE: (400, "unsupported_grant_type"),
    Code.USER_GONE: (400, _INVALID_GRANT),
    Code.VALIDATION_FAILED: (400, _INVALID_REQUEST),
    Code.BODY_TIMEOUT: (408, _INVALID_REQUEST),
    Code.BODY_TOO_LARGE: (413, _INVALID_REQUEST),
    Code.ORIGIN_NOT_ALLOWED: (403, _INVALID_REQUEST),
    Code.UNSUPPORTED_MEDIA_TYPE: (415, _INVALID_REQUEST),
    Code.DATABASE_UNAVAILABLE: (503, _TEMPORARILY_UNAVAILABLE),
    Code.HASH_QUEUE_FULL: (503, _TEMPORARILY_UNAVAILABLE),
    Code.KEYS_UNAVAILABLE: (503, _TEMPORARILY_UNAVAILABLE),
    Code.TOO_MANY_REQUESTS: (429, _TEMPORARILY_UNAVAILABLE),
}


class Grant(Protocol):
    """A way to get tokens: looks at the form, and signs in or refuses."""

    async def __call__(self, form: Form, *, source: Source) -> SignedIn | Refused:
        """Return whom the form lets in.

        Raises:
            ProblemError: a field is missing, or can't be what it should be.
        """
        ...


class TokenProblem(BaseModel):
    """Why no token was given (RFC 6749, section 5.2), with the stable code of every other refusal."""

    error: str
    error_description: str
    code: Code
    request_id: str


def token_router(
    refresher: Refresher, signed_in_response: SignedInResponse, web: WebContext, *, grants: Mapping[str, Grant]
) -> APIRouter:
    """Return `POST /token`; `grants` are those that features offer, beside the refresh token."""
    router = web.credential_router(tags=["auth"], refuse=_refuse)

    async def refresh(form: Form, *, source: Source) -> SignedIn | Refused:
        return await refresher.refresh(required(form, "refresh_token"), source=source)

    known: Mapping[str, Grant] = {"refresh_token": refresh, **grants}

    @router.post(
        "/token",
        operation_id="token",
        summary="Tokens for clients that are not browsers (OAuth 2)",
        response_model=TokenResponse,
        openapi_extra={"requestBody": {"required": True, "content": {"application/x-www-form-urlencoded": _FORM}}},
        responses=_responses(),
    )
    async def token(request: Request) -> Response:
        """Exchange a password, or a refresh token, for a pair of tokens; nothing is set as a cookie."""
        form = await read_form(request)
        grant = known.get(required(form, "grant_type"))
        if grant is None:
            raise ProblemError(Code.UNSUPPORTED_GRANT_TYPE)
        if form.get("client_id", CLIENT_ID) != CLIENT_ID:
            raise ProblemError(Code.INVALID_CLIENT)
        if "scope" in form:
            raise ProblemError(Code.INVALID_SCOPE)
        outcome = await grant(form, source=web.source(request))
        if isinstance(outcome, Refused):
            raise ProblemError.of(outcome)
        return signed_in_response.in_body(outcome)

    return router


def required(form: Form, name: str) -> str:
    """Return a field.

    Raises:
        ProblemError: it is not there.
    """
    try:
        return form[name]
    except KeyError:
        raise ProblemError(
            Code.VALIDATION_FAILED, errors=[{"pointer": f"#/{name}", "detail": f"{name} is required"}]
        ) from None


def _refuse(request: Request, problem: ProblemError) -> Response:
    # A feature's grant may refuse for a reason of its own.
    status, error = _ERRORS.get(problem.code, (problem.status_code, _INVALID_REQUEST))
    description = problem.errors[0]["detail"] if problem.errors else problem.detail
    content = TokenProblem(
        error=error, error_description=description, code=problem.code, request_id=request_id(request.scope)
    )
    headers = {name: value for name, value in (problem.headers or {}).items() if name == "Retry-After"}
    if problem.code is Code.INVALID_CLIENT:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(content.model_dump(mode="json"), status_code=status, headers=headers | {"Pragma": "no-cache"})


_FORM = {
    "schema": {
        "type": "object",
        "required": ["grant_type"],
        "properties": {
            "grant_type": {"type": "string", "examples": ["password", "refresh_token"]},
            "username": {"type": "string", "description": "With `password`: the e-mail address."},
            "password": {"type": "string", "format": "password"},
            "refresh_token": {"type": "string", "description": "With `refresh_token`."},
            "client_id": {"type": "string", "description": f"May be left out; nothing but `{CLIENT_ID}`."},
        },
    }
}


def _responses() -> dict[int | str, dict[str, Any]]:
    documented: dict[int | str, dict[str, Any]] = {}
    for code, (status, error) in sorted(_ERRORS.items(), key=lambda item: (item[1][0], item[0])):
        entry = documented.setdefault(
            status,
            {
                "model": TokenProblem,
                "description": HTTPStatus(status).phrase,
                "content": {"application/json": {"examples": {}}},
            },
        )
        entry["content"]["application/json"]["examples"][code.value] = {
            "value": {
                "error": error,
                "error_description": PROBLEMS[code][1],
                "code": code.value,
                "request_id": "6f1c0de2a4b83957",
            }
        }
    return documented
