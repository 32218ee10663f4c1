"""What pages load, and the visitor's choice of a language."""

from typing import TYPE_CHECKING

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from latchstring.errors import Code
from latchstring.foundation.web.pages.words import COOKIE
from latchstring.foundation.web.problem import ProblemError

if TYPE_CHECKING:
    from latchstring.foundation.web.edge import Edge
    from latchstring.foundation.web.pages.site import Site

_A_YEAR = 365 * 24 * 60 * 60


def add_surroundings(router: APIRouter, site: "Site", edge: "Edge") -> None:
    """Add them to a router of pages."""

    @router.get("/assets/{name}")
    async def get_asset(name: str) -> Response:
        found = site.assets.answer(name)
        if found is None:
            raise ProblemError(Code.NOT_FOUND)
        return found

    @router.post("/language")
    async def choose_language(request: Request) -> Response:
        fields = await site.form(request)
        destination = site.destination(fields.get("next")) or site.home(request.scope)
        language = site.languages.known(fields.get("language", ""))
        if language is None:
            raise ProblemError(Code.VALIDATION_FAILED)
        response = site.see_other(destination)
        response.set_cookie(
            COOKIE, language, max_age=_A_YEAR, path="/", httponly=True, samesite="lax", secure=edge.cookies.secure
        )
        return response
