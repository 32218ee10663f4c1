"""The OpenAPI document: FastAPI's own, with both ways to carry a token."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from latchstring.core.sessions.guard import current_caller
from latchstring.foundation.web.cookies import CookieJar
from latchstring.foundation.web.problem import ProblemResponse


def describe(app: FastAPI, cookies: CookieJar) -> None:
    """Make `app.openapi()` say that a guarded route takes a bearer token or our cookie."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app, cookies)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # the way FastAPI documents to replace its own


def _document(app: FastAPI, cookies: CookieJar) -> dict[str, Any]:
    document = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
    bearer = current_caller.scheme_name
    document["components"]["securitySchemes"]["accessCookie"] = {
        "type": "apiKey",
        "in": "cookie",
        "name": cookies.access_name,
    }
    for operations in document["paths"].values():
        for operation in operations.values():
            for response in operation["responses"].values():
                _as_problem(response.get("content", {}))
            if operation.get("security") == [{bearer: []}]:
                operation["security"].append({"accessCookie": []})
    return document


def _as_problem(content: dict[str, Any]) -> None:
    # FastAPI files the model of every additional response under the route's own media type.
    if ProblemResponse.media_type in content:
        for other in content.keys() - {ProblemResponse.media_type}:
            content[ProblemResponse.media_type] |= content.pop(other)
