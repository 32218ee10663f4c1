"""Completes the OpenAPI document of an application with what FastAPI can't know of our guards.

It adds how a token is presented (header or cookie) and how to get one (`/token`, for the *Authorize* button of the
documentation), the refusals of guarded routes, and the media type of our own refusals.
"""

from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.routing import RouteContext, iter_route_contexts
from pydantic import ConfigDict

from latchstring.foundation.web.problem import PROBLEMS, ProblemResponse
from latchstring.foundation.web.route import Guards, ProblemRoute, dependencies_of

BEARER_SCHEME = "accessToken"
COOKIE_SCHEME = "accessCookie"
SIGN_IN_SCHEME = "signIn"
_TOKEN_SCHEMES: list[dict[str, list[str]]] = [{BEARER_SCHEME: []}, {SIGN_IN_SCHEME: []}, {COOKIE_SCHEME: []}]


def example(value: dict[str, Any]) -> ConfigDict:
    """Return the configuration of a model with `value` as its example in the document."""
    return ConfigDict(json_schema_extra={"examples": [value]})


def described(app: FastAPI, *, cookie_name: str, token_url: str) -> Callable[[], dict[str, Any]]:
    """Return an `openapi` function that calls the application's present one and completes its document.

    Args:
        app: the application.
        cookie_name: the name of the access cookie.
        token_url: the URL of the token endpoint, relative to the document.
    """
    document_of = app.openapi

    def openapi() -> dict[str, Any]:
        document = document_of()
        schemes = document.setdefault("components", {}).setdefault("securitySchemes", {})
        if COOKIE_SCHEME not in schemes:
            schemes[COOKIE_SCHEME] = {"type": "apiKey", "in": "cookie", "name": cookie_name}
            schemes[SIGN_IN_SCHEME] = {
                "type": "oauth2",
                "description": "Email and password, for an access token.",
                "flows": {"password": {"tokenUrl": token_url, "scopes": {}}},
            }
            for operation, context in _operations(app, document):
                responses = operation.setdefault("responses", {})
                if isinstance(context.original_route, ProblemRoute):
                    _add_problems(responses)
                if guards := [each for each in dependencies_of(context) if isinstance(each, Guards)]:
                    _add_guards(operation, guards)
        return document

    return openapi


def _operations(app: FastAPI, document: dict[str, Any]) -> Iterator[tuple[dict[str, Any], RouteContext]]:
    for context in iter_route_contexts(app.routes):
        item = document.get("paths", {}).get(context.path_format, {})
        for method in context.methods or ():
            if method.lower() in item:
                yield item[method.lower()], context


def _add_guards(operation: dict[str, Any], guards: Iterable[Guards]) -> None:
    # In OpenAPI an empty requirement makes the others optional.
    others = [each for each in operation.get("security", []) if each != {BEARER_SCHEME: []}]
    is_optional = all(guard.allows_anonymous for guard in guards)
    operation["security"] = [*([{}] if is_optional else []), *_TOKEN_SCHEMES, *others]
    refused: dict[str, dict[str, Any]] = {}
    for code in sorted({code for guard in guards for code in guard.refusals}):
        number, detail = PROBLEMS[code]
        refused.setdefault(str(number), {})[code.value] = {"value": {"detail": detail}}
    for status, examples in refused.items():
        # The body of FastAPI's own handler for HTTPException; an application with another handler documents its own.
        content = {"application/json": {"schema": _DETAIL, "examples": examples}}
        operation["responses"].setdefault(status, {"description": HTTPStatus(int(status)).phrase, "content": content})


_DETAIL = {"type": "object", "required": ["detail"], "properties": {"detail": {"type": "string"}}}


def _add_problems(responses: dict[str, Any]) -> None:
    # FastAPI documents the model of an additional response under the route's media type, and only one of ours has a
    # model: move its schema to problem+json, for all of them.
    contents = [each["content"] for each in responses.values() if ProblemResponse.media_type in each.get("content", {})]
    schema: dict[str, Any] = {}
    for content in contents:
        for other in content.keys() - {ProblemResponse.media_type}:
            schema |= content.pop(other)
    for content in contents:
        content[ProblemResponse.media_type] |= schema
