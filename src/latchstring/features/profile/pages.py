"""The account page: the signed-in user's names."""

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from latchstring.core.accounts.schemas import Name
from latchstring.core.guard.pages import Visitor
from latchstring.core.sessions.page_router import PageRouter
from latchstring.core.users.actions import Users
from latchstring.errors import Code
from latchstring.foundation.web.pages.form import Form, problems_of
from latchstring.foundation.web.pages.translations import msgid
from latchstring.foundation.web.pages.urls import see_other
from latchstring.foundation.web.problem import ProblemError

TEMPLATES = Path(__file__).with_name("templates")
_FIELDS = {"first_name": msgid("Enter your first name."), "last_name": msgid("Enter your last name.")}
_NOTICES = {"saved": msgid("Your names are saved.")}


class NamesForm(BaseModel):
    """The page's form: both names, which a page always sends."""

    first_name: Name
    last_name: Name


def profile_pages(users: Users, pages: PageRouter) -> APIRouter:
    """Return the account page."""
    router = pages.router(templates=TEMPLATES)
    urls, renderer, web = pages.urls, pages.renderer, pages.web
    PageVisitor = Annotated[Visitor, Depends(pages.visitor)]  # noqa: N806 -- a type

    @router.get("/account")
    async def show_account(request: Request, visitor: PageVisitor) -> Response:
        user = visitor.user
        return pages.visitor_page(
            request,
            "account.html",
            visitor,
            form=Form({"first_name": user.first_name, "last_name": user.last_name}),
            notice=renderer.notice(request, _NOTICES),
        )

    @router.post("/account")
    async def change_names(request: Request, visitor: PageVisitor) -> Response:
        fields = await renderer.form(request)
        # Only the fields of this form: the rest of the body must not reach the model.
        try:
            names = NamesForm.model_validate({name: fields[name] for name in _FIELDS if name in fields})
        except ValidationError as error:
            form = Form(fields, problems_of(error, renderer.translations(request.scope), blank=_FIELDS))
            return pages.visitor_page(request, "account.html", visitor, status=422, form=form)
        # The user's id is the caller's, never one from the form (CVE-2025-61928 trusted an id in the body).
        user = await users.rename(
            visitor.user.id, first_name=names.first_name, last_name=names.last_name, source=web.source(request)
        )
        # Deleted since the guard read the user.
        if user is None:
            raise ProblemError(Code.USER_NOT_FOUND)
        # A redirect, so that reloading the page does not send the form again.
        return see_other(urls.url(request.scope, "/account", done="saved"))

    return router
