"""The routes of assets, and of the visitor's choice of a language."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from latchstring.errors import Code
from latchstring.foundation.web.context import WebContext
from latchstring.foundation.web.pages.renderer import Renderer
from latchstring.foundation.web.pages.translations import COOKIE
from latchstring.foundation.web.pages.urls import see_other
from latchstring.foundation.web.problem import ProblemError

_A_YEAR = 365 * 24 * 60 * 60


def add_asset_routes(router: APIRouter, renderer: Renderer, web: WebContext) -> None:
    """Add `/assets/{name}` and `/language` to a router of pages."""

    @router.get("/assets/{name}")
    async def get_asset(name: str) -> Response:
        found = renderer.assets.response(name)
        if found is None:
            raise ProblemError(Code.NOT_FOUND)
        return found

    @router.post("/language")
    async def choose_language(request: Request) -> Response:
        fields = await renderer.form(request)
        # Back to the page the form was on, under the same rules as after a sign-in: no open redirect.
        destination = renderer.urls.destination(fields.get("next")) or renderer.urls.landing_page(request.scope)
        language = renderer.languages.tag_of(fields.get("language", ""))
        # Only languages that exist: visitors' input must not get into a Set-Cookie header (CVE-2020-7695 is the kind).
        if language is None:
            raise ProblemError(Code.VALIDATION_FAILED)
        response = see_other(destination)
        response.set_cookie(
            COOKIE, language, max_age=_A_YEAR, path="/", httponly=True, samesite="lax", secure=web.cookies.secure
        )
        return response
