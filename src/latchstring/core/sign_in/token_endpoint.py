"""The token endpoint (RFC 6749): tokens in the body, for clients that are not browsers.

    POST /token   grant_type=refresh_token&refresh_token=…    built in
                  grant_type=password&username=…&password=…   a feature's `Grant`: each sign-in method can offer one

No cookie is set. Every refusal has `error` and `error_description` as in RFC 6749, section 5.2, and our stable `code`.
All clients are public clients, and there are no scopes.
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
# RFC 6749, section 5.2. It has no error for a temporary failure; `temporarily_unavailable` is from section 4.1.2.1.
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
    """A grant type of the token endpoint."""

    async def __call__(self, form: Form, *, source: Source) -> SignedIn | Refused:
        """Sign in with the fields of the form, or refuse.

        Raises:
            ProblemError: a field is missing or malformed.
        """
        ...


class TokenProblem(BaseModel):
    """Why no token was issued (RFC 6749, section 5.2), with the same stable `code` as every other refusal."""

    error: str
    error_description: str
    code: Code
    request_id: str


def token_router(
    refresher: Refresher, signed_in_response: SignedInResponse, web: WebContext, *, grants: Mapping[str, Grant]
) -> APIRouter:
    """Return the route `POST /token`. `grants` are those of features, by `grant_type`; `refresh_token` is built in."""
    router = web.credential_router(tags=["auth"], refuse=_refuse)

    async def refresh(form: Form, *, source: Source) -> SignedIn | Refused:
        return await refresher.refresh(required(form, "refresh_token"), source=source)

    grants_by_type: Mapping[str, Grant] = {"refresh_token": refresh, **grants}

    @router.post(
        "/token",
        operation_id="token",
        summary="Tokens for clients that are not browsers (OAuth 2)",
        response_model=TokenResponse,
        openapi_extra={"requestBody": {"required": True, "content": {"application/x-www-form-urlencoded": _FORM}}},
        responses=_responses(),
    )
    async def token(request: Request) -> Response:
        """Exchange a password or a refresh token for a pair of tokens. Sets no cookie."""
        form = await read_form(request)
        grant = grants_by_type.get(required(form, "grant_type"))
        if grant is None:
            raise ProblemError(Code.UNSUPPORTED_GRANT_TYPE)
        # There is one public client. It may name itself (RFC 6749, section 3.2.1); any other is unknown.
        if form.get("client_id", CLIENT_ID) != CLIENT_ID:
            raise ProblemError(Code.INVALID_CLIENT)
        # RFC 6749, section 3.3: to ignore a scope, a server must say so in the response. We refuse instead.
        if "scope" in form:
            raise ProblemError(Code.INVALID_SCOPE)
        outcome = await grant(form, source=web.source(request))
        if isinstance(outcome, Refused):
            raise ProblemError.of(outcome)
        return signed_in_response.in_body(outcome)

    return router


def required(form: Form, name: str) -> str:
    """Return a field of the form.

    Raises:
        ProblemError: 422 `validation_failed`, if the field is missing.
    """
    try:
        return form[name]
    except KeyError:
        raise ProblemError(
            Code.VALIDATION_FAILED, errors=[{"pointer": f"#/{name}", "detail": f"{name} is required"}]
        ) from None


def _refuse(request: Request, problem: ProblemError) -> Response:
    # A feature's grant may refuse with a code that is not in the table.
    status, error = _ERRORS.get(problem.code, (problem.status_code, _INVALID_REQUEST))
    description = problem.errors[0]["detail"] if problem.errors else problem.detail
    content = TokenProblem(
        error=error, error_description=description, code=problem.code, request_id=request_id(request.scope)
    )
    headers = {name: value for name, value in (problem.headers or {}).items() if name == "Retry-After"}
    # RFC 9110, section 15.5.2: a 401 response must have this header.
    if problem.code is Code.INVALID_CLIENT:
        headers["WWW-Authenticate"] = "Bearer"
    # RFC 6749, section 5.1 asks for `Pragma` as well, for caches of HTTP/1.0.
    return JSONResponse(content.model_dump(mode="json"), status_code=status, headers=headers | {"Pragma": "no-cache"})


_FORM = {
    "schema": {
        "type": "object",
        "required": ["grant_type"],
        "properties": {
            "grant_type": {"type": "string", "examples": ["password", "refresh_token"]},
            "username": {"type": "string", "description": "With `password`: the email."},
            "password": {"type": "string", "format": "password"},
            "refresh_token": {"type": "string", "description": "With `refresh_token`."},
            "client_id": {"type": "string", "description": f"Optional. If present, it must be `{CLIENT_ID}`."},
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
