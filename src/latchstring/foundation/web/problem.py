"""Refusals as RFC 9457 problem+json: status and sentence for each code of the closed list."""

import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Self

from fastapi import HTTPException
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse
from starlette.types import Scope

from latchstring.errors import Code, Refused
from latchstring.foundation.web.request_id import request_id

_TRY_AGAIN_SECONDS = 1.0

# The sentences are part of the HTTP contract: clients written for the tutorial compare them.
PROBLEMS: Mapping[Code, tuple[int, str]] = {
    Code.BODY_TIMEOUT: (408, "The body was not sent in time."),
    Code.BODY_TOO_LARGE: (413, "The body may have at most 65536 bytes."),
    Code.CLAIMS_CHANGED: (401, "You must refresh"),
    Code.CREDENTIALS_CONFLICT: (400, "The Authorization header and the cookie name different users."),
    Code.DATABASE_UNAVAILABLE: (503, "The database is away for now."),
    Code.DUPLICATE_COOKIE: (400, "A cookie was sent more than once."),
    Code.EMAIL_TAKEN: (409, "An account by that email already registered!"),
    Code.FEED_TOKEN_REQUIRED: (401, "This address takes a feed token."),
    Code.HASH_QUEUE_FULL: (503, "Too many sign-ins at once."),
    Code.INTERNAL_ERROR: (500, "Something broke here; it was not your doing."),
    Code.INSUFFICIENT_USER_AUTHENTICATION: (401, "Prove again who you are: the last proof was too long ago."),
    Code.INVALID_AUTHORIZATION_HEADER: (403, "Invalid Header Error"),
    Code.INVALID_CLIENT: (401, "There is no such client."),
    Code.INVALID_CREDENTIALS: (400, "Incorrect username or password"),
    Code.INVALID_SCOPE: (400, "There is no such scope."),
    Code.INVALID_TOKEN: (401, "The token is not valid."),
    Code.KEYS_UNAVAILABLE: (503, "The keys are not loaded yet."),
    Code.MALFORMED_JSON: (400, "The body is not valid JSON."),
    Code.METHOD_NOT_ALLOWED: (405, "This address does not know that method."),
    Code.MISSING_REFRESH_TOKEN: (403, "Missing refresh token!"),
    Code.MISSING_TOKEN: (401, "You must refresh"),
    Code.NEXT_NOT_ALLOWED: (400, "The address to go on to is not an allowed one."),
    Code.NOT_FOUND: (404, "There is nothing at this address."),
    Code.ORIGIN_NOT_ALLOWED: (403, "This request came from a place that may not make it."),
    Code.PASSWORDS_DO_NOT_MATCH: (400, "Passwords do not match!"),
    Code.REFRESH_TOKEN_REUSED: (401, "The refresh token was used before; the session has ended."),
    Code.REVOCATIONS_UNKNOWN: (503, "Revocations can't be followed for now."),
    Code.ROLE_REQUIRED: (403, "This takes a role that you do not have."),
    Code.SESSION_ENDED: (401, "The session has ended."),
    Code.SESSION_NOT_FOUND: (404, "There is no such session."),
    Code.TOKEN_EXPIRED: (401, "You must refresh"),
    Code.TOO_MANY_REQUESTS: (429, "Too many tries. Try again later."),
    Code.UNSUPPORTED_GRANT_TYPE: (400, "There is no such grant type."),
    Code.UNSUPPORTED_MEDIA_TYPE: (415, "The body is not of the content type that this address takes."),
    Code.USER_GONE: (401, "The user belonging to this token does not exist."),
    Code.USER_NOT_FOUND: (404, "User not found"),
    Code.VALIDATION_FAILED: (422, "The request is not what this address takes."),
}


class ProblemError(HTTPException):
    """A refusal as an exception.

    On our own routes it becomes problem+json. On a route of the host application, whose exception handlers stay as they
    are, it is an ordinary HTTPException with the same status, sentence and headers.
    """

    def __init__(
        self,
        code: Code,
        *,
        token_sent: bool = False,
        errors: Sequence[Mapping[str, str]] = (),
        retry_after_seconds: float | None = None,
        max_age_seconds: float | None = None,
    ) -> None:
        status, detail = PROBLEMS[code]
        headers = _headers(
            code,
            status,
            token_sent=token_sent,
            retry_after_seconds=retry_after_seconds,
            max_age_seconds=max_age_seconds,
        )
        super().__init__(status, detail, headers=headers)
        self.code = code
        self.errors = errors

    @classmethod
    def of(cls, refused: Refused, *, token_sent: bool = False) -> Self:
        """Return the exception for a refusal that an action returned."""
        return cls(refused.code, token_sent=token_sent, retry_after_seconds=refused.retry_after_seconds)


class FieldError(BaseModel):
    """What is wrong with one field. Never holds the value that was sent."""

    pointer: str = Field(description="JSON pointer (RFC 6901) into the body, or into the query.")
    detail: str


class Problem(BaseModel):
    """Why a request was refused (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: Code = Field(description="Stable; switch on this.")
    request_id: str
    errors: list[FieldError] | None = Field(default=None, description="With 422: what is wrong, field by field.")


class ProblemResponse(JSONResponse):
    """A problem document."""

    media_type = "application/problem+json"


def problem_response(
    scope: Scope,
    code: Code,
    *,
    headers: Mapping[str, str] | None = None,
    errors: Sequence[Mapping[str, str]] = (),
) -> ProblemResponse:
    """Return the response for `code`, with the request's id and nothing of what was sent."""
    status, detail = PROBLEMS[code]
    content: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code.value,
        "request_id": request_id(scope),
    }
    if errors:
        content["errors"] = list(errors)
    sent = {"Cache-Control": "no-store", **(_headers(code, status) if headers is None else headers)}
    return ProblemResponse(content, status_code=status, headers=sent)


def refusals(*codes: Code) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI `responses` of a route that refuses with `codes`."""
    # Only the first names the model, and `openapi.described` gives its schema to the others: FastAPI would build a
    # validator for each, at the start of every application.
    documented: dict[int | str, dict[str, Any]] = {}
    for code in sorted(codes, key=lambda code: (PROBLEMS[code][0], code)):
        status, detail = PROBLEMS[code]
        phrase = HTTPStatus(status).phrase
        model = {} if documented else {"model": Problem}
        entry = documented.setdefault(
            status, {**model, "description": phrase, "content": {ProblemResponse.media_type: {"examples": {}}}}
        )
        entry["content"][ProblemResponse.media_type]["examples"][code.value] = {
            "value": {
                "type": "about:blank",
                "title": phrase,
                "status": status,
                "detail": detail,
                "code": code.value,
                "request_id": "6f1c0de2a4b83957",
            }
        }
    return documented


def _headers(
    code: Code,
    status: int,
    *,
    token_sent: bool = False,
    retry_after_seconds: float | None = None,
    max_age_seconds: float | None = None,
) -> dict[str, str]:
    if code is Code.INSUFFICIENT_USER_AUTHENTICATION:
        # RFC 9470, section 3: the token is valid, but its `auth_time` is too old.
        challenge = f'Bearer error="{code}", error_description="{PROBLEMS[code][1]}"'
        return {"WWW-Authenticate": challenge + _parameter("max_age", max_age_seconds)}
    # RFC 6750, section 3: a challenge with every 401, and an error only if a token was presented.
    if status == HTTPStatus.UNAUTHORIZED:
        return {"WWW-Authenticate": 'Bearer error="invalid_token"' if token_sent else "Bearer"}
    if code is Code.INVALID_CREDENTIALS:
        return {"WWW-Authenticate": "Bearer"}
    if status in {HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS}:
        wait = _TRY_AGAIN_SECONDS if retry_after_seconds is None else retry_after_seconds
        return {"Retry-After": str(max(math.ceil(wait), 1))}
    return {}


def _parameter(name: str, seconds: float | None) -> str:
    return "" if seconds is None else f', {name}="{math.floor(seconds)}"'
