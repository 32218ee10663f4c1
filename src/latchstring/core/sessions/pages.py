"""The pages of sessions: the list, sign-out, and the renewal."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from latchstring.core.accounts.rules import User
from latchstring.core.caller import Caller
from latchstring.core.guard.credentials import cookie_token, every_token
from latchstring.core.guard.pages import Visitor
from latchstring.core.revocations.rules import RevocationReason
from latchstring.core.sessions.actions import Sessions
from latchstring.core.sessions.page_router import PageRouter
from latchstring.core.sessions.refresh import Refresher
from latchstring.core.sessions.rules import ListedSession, session_id_from
from latchstring.core.sessions.settings import SessionSettings
from latchstring.errors import Code, Refused
from latchstring.foundation.web.origin import is_navigation
from latchstring.foundation.web.pages.agents import named
from latchstring.foundation.web.pages.destination import is_local
from latchstring.foundation.web.pages.translations import Translations, msgid
from latchstring.foundation.web.pages.urls import see_other
from latchstring.foundation.web.problem import ProblemError

TEMPLATES = Path(__file__).with_name("templates")
_FETCH_METADATA = b"sec-fetch-"
_METHODS = {"pwd": msgid("password")}
_NOTICES = {
    "ended": msgid("That session has ended."),
    "others": msgid("All your other sessions have ended."),
}
# Refusals of a refresh after which the session is still active: the visitor must not be sent to the sign-in page.
_STILL_ACTIVE = frozenset({Code.DUPLICATE_COOKIE, Code.TOO_MANY_REQUESTS})


@dataclass(frozen=True, slots=True)
class SessionEntry:
    """A session, as the list shows it."""

    id: str
    browser: str
    user_agent: str | None
    first_seen: datetime
    last_seen: datetime
    expires_at: datetime
    address: str | None
    methods: Sequence[str]
    is_current: bool
    elsewhere_at: datetime | None
    """When a refresh was last repeated from another network or browser; None if never."""


def method_names(methods: Sequence[str], translate: Translations) -> list[str]:
    """Return the translated names of the methods by which a user proved who they are."""
    return [translate(_METHODS[method]) if method in _METHODS else method for method in methods]


def sessions_pages(
    sessions: Sessions,
    refresher: Refresher,
    pages: PageRouter,
    *,
    fresh: Callable[[HTTPConnection], Awaitable[Caller]],
    settings: SessionSettings,
) -> APIRouter:
    """Return the pages of sessions."""
    router = pages.router(templates=TEMPLATES)
    _add_renewal(router, refresher, pages)
    _add_sign_out(router, sessions, pages, settings)
    _add_list(router, sessions, pages, fresh)
    return router


def well_known_pages(pages: PageRouter) -> APIRouter:
    """Return the URL where password managers look for the password page (W3C, change-password-url)."""
    router = pages.router()
    urls = pages.urls

    @router.get("/.well-known/change-password")
    async def change_password(request: Request) -> Response:
        if "/account/password" not in urls.paths:
            raise ProblemError(Code.NOT_FOUND)
        return see_other(urls.url(request.scope, "/account/password"))

    return router


def _add_renewal(router: APIRouter, refresher: Refresher, pages: PageRouter) -> None:
    urls, renderer, web = pages.urls, pages.renderer, pages.web
    cookie = web.cookies.refresh_name.encode()
    renewed = partial(_renewed, refresher, pages)

    @router.get("/renew")
    async def renew_for_page(request: Request) -> Response:
        # Navigations only: an image or a frame on another site must not rotate the tokens. Scripts use the JSON route.
        headers = request.scope["headers"]
        has_fetch_metadata = any(name.startswith(_FETCH_METADATA) for name, _ in headers)
        if has_fetch_metadata and not is_navigation(headers):
            raise ProblemError(Code.ORIGIN_NOT_ALLOWED)
        destination = urls.destination_in_query(request)
        if isinstance(cookie_token(headers, cookie), str) and not web.is_own_origin(headers):
            # A link on another site sends the cookies, and must not rotate their tokens (ASVS 5.0, 3.5.3). A form on
            # this page does. Redirects keep `Sec-Fetch-Site: cross-site`, so a link to any other page gets here too.
            return renderer.public_page(request, "renew.html", destination=destination)
        return await renewed(request, destination=destination, status=303)

    @router.post("/renew")
    async def renew_for_form(request: Request) -> Response:
        destination = urls.destination_in_query(request)
        if destination is not None and not is_local(destination):
            # 307 sends the form again, with everything that was filled in. It must not reach another origin.
            raise ProblemError(Code.NEXT_NOT_ALLOWED)
        return await renewed(request, destination=destination, status=307)

    # A route of its own, which always redirects by GET. With one route for both, a link on another site could make the
    # form above send a POST of its choice, such as `/sign-out`, in the visitor's name (CSRF).
    @router.post("/renew/continue")
    async def renew_and_continue(request: Request) -> Response:
        requested = (await renderer.form(request)).get("next")
        return await renewed(request, destination=urls.destination(requested), status=303)


async def _renewed(
    refresher: Refresher, pages: PageRouter, request: Request, *, destination: str | None, status: int
) -> Response:
    urls, web = pages.urls, pages.web
    token = cookie_token(request.scope["headers"], web.cookies.refresh_name.encode())
    if isinstance(token, str):
        outcome = await refresher.refresh(token, source=web.source(request))
        if not isinstance(outcome, Refused):
            return pages.to_destination(request, outcome, destination=destination, status=status)
        token = outcome
    problem = ProblemError.of(token or Refused(Code.MISSING_REFRESH_TOKEN))
    if problem.code in _STILL_ACTIVE:
        raise problem
    # No cookies are cleared: another tab may have set newer ones since, which this response would delete.
    redirect = pages.redirects.to_sign_in(
        request.scope,
        was_signed_in=problem.code is not Code.MISSING_REFRESH_TOKEN,
        destination=urls.by_get(request.scope, destination) if destination else None,
    )
    if redirect is None:
        raise problem
    return redirect


def _add_sign_out(
    router: APIRouter,
    sessions: Sessions,
    pages: PageRouter,
    settings: SessionSettings,
) -> None:
    urls, renderer, web = pages.urls, pages.renderer, pages.web
    names = (web.cookies.access_name.encode(), web.cookies.refresh_name.encode())

    @router.post("/sign-out")
    async def sign_out(request: Request) -> Response:
        await sessions.sign_out(every_token(request.scope["headers"], names), source=web.source(request))
        response = see_other(urls.url(request.scope, "/signed-out"))
        web.cookies.clear(response)
        # After a form that set cookies, Chromium keeps the page for the back button in spite of `no-store`. With
        # JavaScript the page reloads itself; without it, the browser has to clear its cache.
        if settings.logout_clears_cache or await _is_without_script(request):
            response.headers["Clear-Site-Data"] = '"cache"'
        return response

    async def _is_without_script(request: Request) -> bool:
        try:
            return "without_script" in await renderer.form(request)
        except ProblemError:
            return False  # a malformed form must not prevent the sign-out

    @router.get("/signed-out")
    async def show_signed_out(request: Request, user: Annotated[User | None, Depends(pages.optional_user)]) -> Response:
        if user is not None:
            return see_other(urls.landing_page(request.scope))
        return renderer.public_page(request, "signed_out.html")


def _add_list(
    router: APIRouter,
    sessions: Sessions,
    pages: PageRouter,
    fresh: Callable[[HTTPConnection], Awaitable[Caller]],
) -> None:
    urls, renderer, web = pages.urls, pages.renderer, pages.web
    PageVisitor = Annotated[Visitor, Depends(pages.visitor)]  # noqa: N806 -- a type
    FreshCaller = Annotated[Caller, Depends(fresh)]  # noqa: N806 -- likewise

    @router.get("/account/sessions")
    async def show_sessions(request: Request, visitor: PageVisitor) -> Response:
        found = await sessions.list_sessions(visitor.user.id)
        translate = renderer.translations(request.scope)
        # In a thread: hundreds of patterns parse each User-Agent, 20 to 30 ms for a list of 100.
        entries = await asyncio.to_thread(_entries, found, visitor.caller, translate)
        return pages.visitor_page(
            request, "sessions.html", visitor, sessions=entries, notice=renderer.notice(request, _NOTICES)
        )

    @router.post("/account/sessions/end")
    async def end_session(request: Request, visitor: PageVisitor) -> Response:
        wanted = session_id_from((await renderer.form(request)).get("session_id", ""))
        if wanted is None:
            raise ProblemError(Code.SESSION_NOT_FOUND)
        # The same response for a session that has ended already and for another user's: ids can't be probed.
        await sessions.revoke_session(
            wanted, user_id=visitor.user.id, reason=RevocationReason.REVOKED, source=web.source(request)
        )
        if wanted == visitor.caller.session_id:
            response = see_other(urls.url(request.scope, "/signed-out"))
            web.cookies.clear(response)
            return response
        return see_other(urls.url(request.scope, "/account/sessions", done="ended"))

    @router.post("/account/sessions/end-others")
    async def end_other_sessions(request: Request, caller: FreshCaller) -> Response:
        if not await sessions.revoke_other_sessions(caller, source=web.source(request)):
            raise ProblemError(Code.SESSION_ENDED, token_sent=True)
        return see_other(urls.url(request.scope, "/account/sessions", done="others"))


def _entries(found: Sequence[ListedSession], caller: Caller, translate: Translations) -> list[SessionEntry]:
    entries = [
        SessionEntry(
            id=str(listed.session.id),
            browser=named(listed.user_agent, translate),
            user_agent=listed.user_agent,
            first_seen=listed.session.created_at,
            last_seen=listed.session.rotated_at,
            expires_at=listed.session.expires_at,
            address=listed.address,
            methods=method_names(listed.session.methods, translate),
            is_current=listed.session.id == caller.session_id,
            elsewhere_at=listed.session.repeated_elsewhere_at,
        )
        for listed in found
    ]
    return sorted(entries, key=lambda session: not session.is_current)
