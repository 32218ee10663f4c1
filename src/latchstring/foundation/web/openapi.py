"""The OpenAPI document of an application that we are installed in: FastAPI's own, and what it can't know of our guards.

How a token is carried (header or cookie) and got (`/token`, for the documentation's *Authorize* button), what a guarded
route refuses with, and of which media type our own refusals are.
"""

from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from pydantic import ConfigDict

from latchstring.foundation.web.problem import PROBLEMS, ProblemResponse
from latchstring.foundation.web.route import Guards, dependencies_of

BEARER_SCHEME = "accessToken"
COOKIE_SCHEME = "accessCookie"
SIGN_IN_SCHEME = "signIn"
_METHODS = {"get", "put", "post", "delete", "options", "head", "patch", "trace", "query"}
_WAYS_IN: list[dict[str, list[str]]] = [{BEARER_SCHEME: []}, {SIGN_IN_SCHEME: []}, {COOKIE_SCHEME: []}]


def example(value: dict[str, Any]) -> ConfigDict:
    """Return the configuration of a model that shows this in the document."""
    return ConfigDict(json_schema_extra={"examples": [value]})


def described(app: FastAPI, *, cookie_name: str, token_url: str) -> Callable[[], dict[str, Any]]:
    """Return a function that makes an application's document as it did, and tells in it what there is to tell.

    Args:
        app: the application, whose present `openapi` is asked.
        cookie_name: the access token's.
        token_url: where the token endpoint is, seen from the document.
    """
    document_of = app.openapi

    def openapi() -> dict[str, Any]:
        document = document_of()
        schemes = document.setdefault("components", {}).setdefault("securitySchemes", {})
        if COOKIE_SCHEME not in schemes:
            schemes[COOKIE_SCHEME] = {"type": "apiKey", "in": "cookie", "name": cookie_name}
            schemes[SIGN_IN_SCHEME] = {
                "type": "oauth2",
                "description": "Address and password, for an access token.",
                "flows": {"password": {"tokenUrl": token_url, "scopes": {}}},
            }
            for operation in _operations(document):
                for response in operation.setdefault("responses", {}).values():
                    _as_problem(response.get("content", {}))
            for operation, guards in _guarded(app, document):
                _tell(operation, guards)
        return document

    return openapi


def _operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for item in document.get("paths", {}).values():
        # Beside the methods, an item may have parameters, words, and anything that begins with `x-`.
        yield from (item[method] for method in item.keys() & _METHODS)


def _guarded(app: FastAPI, document: dict[str, Any]) -> Iterator[tuple[dict[str, Any], list[Guards]]]:
    for context in iter_route_contexts(app.routes):
        guards = [guard for guard in dependencies_of(context) if isinstance(guard, Guards)]
        item = document.get("paths", {}).get(context.path_format, {})
        for method in context.methods or () if guards else ():
            if method.lower() in item:
                yield item[method.lower()], guards


def _tell(operation: dict[str, Any], guards: Iterable[Guards]) -> None:
    # An empty requirement is how OpenAPI says that none of the others has to be met.
    others = [each for each in operation.get("security", []) if each != {BEARER_SCHEME: []}]
    is_open = all(guard.lets_everyone_in for guard in guards)
    operation["security"] = [*([{}] if is_open else []), *_WAYS_IN, *others]
    refused: dict[str, dict[str, Any]] = {}
    for code in sorted({code for guard in guards for code in guard.refusals}):
        number, detail = PROBLEMS[code]
        refused.setdefault(str(number), {})[code.value] = {"value": {"detail": detail}}
    for status, examples in refused.items():
        # As FastAPI answers an HTTPException; an application with a handler of its own says its own here.
        content = {"application/json": {"schema": _DETAIL, "examples": examples}}
        operation["responses"].setdefault(status, {"description": HTTPStatus(int(status)).phrase, "content": content})


_DETAIL = {"type": "object", "required": ["detail"], "properties": {"detail": {"type": "string"}}}


def _as_problem(content: dict[str, Any]) -> None:
    # FastAPI files the model of every additional response under the route's own media type.
    if ProblemResponse.media_type in content:
        for other in content.keys() - {ProblemResponse.media_type}:
            content[ProblemResponse.media_type] |= content.pop(other)
