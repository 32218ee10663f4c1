"""One's own names: a page."""

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from latchstring.core.accounts.actions import Accounts
from latchstring.core.accounts.schemas import Name
from latchstring.core.sessions.page_edge import PageEdge, Visitor
from latchstring.errors import Code
from latchstring.foundation.web.pages.form import Form, problems_of
from latchstring.foundation.web.pages.words import msgid
from latchstring.foundation.web.problem import ProblemError

TEMPLATES = Path(__file__).with_name("templates")
_FIELDS = {"first_name": msgid("Enter your first name."), "last_name": msgid("Enter your last name.")}
_NOTICES = {"saved": msgid("Your names are saved.")}


class NamesForm(BaseModel):
    """Both names."""

    first_name: Name
    last_name: Name


def profile_pages(accounts: Accounts, page_edge: PageEdge) -> APIRouter:
    """Return the account page."""
    router = page_edge.router(templates=TEMPLATES)
    site, edge = page_edge.site, page_edge.edge
    site.add_link(msgid("Account"), "/account")
    PageVisitor = Annotated[Visitor, Depends(page_edge.visitor)]  # noqa: N806 -- a type

    @router.get("/account")
    async def show_account(request: Request, visitor: PageVisitor) -> Response:
        user = visitor.user
        return page_edge.page(
            request,
            "account.html",
            visitor,
            form=Form({"first_name": user.first_name, "last_name": user.last_name}),
            notice=site.notice(request, _NOTICES),
        )

    @router.post("/account")
    async def change_names(request: Request, visitor: PageVisitor) -> Response:
        fields = await site.form(request)
        try:
            names = NamesForm.model_validate({name: fields[name] for name in _FIELDS if name in fields})
        except ValidationError as error:
            form = Form(fields, problems_of(error, site.words(request.scope), blank=_FIELDS))
            return page_edge.page(request, "account.html", visitor, status=422, form=form)
        user = await accounts.rename_user(
            visitor.user.id, first_name=names.first_name, last_name=names.last_name, source=edge.source(request)
        )
        if user is None:
            raise ProblemError(Code.USER_NOT_FOUND)
        return site.see_other(site.url(request.scope, "/account", done="saved"))

    return router
