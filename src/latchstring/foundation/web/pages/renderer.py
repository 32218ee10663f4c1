"""Renderer: a template and its variables to a response. Public pages are rendered once and kept in memory."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import Scope

from latchstring.foundation.web.body import read_form
from latchstring.foundation.web.origin import SAFE_METHODS
from latchstring.foundation.web.pages.assets import THEME, Assets
from latchstring.foundation.web.pages.form import Form
from latchstring.foundation.web.pages.options import Pages
from latchstring.foundation.web.pages.policy import CONTENT_SECURITY_POLICY, FORM_ACTION
from latchstring.foundation.web.pages.problems import message_for
from latchstring.foundation.web.pages.translations import OURS, Languages, Translations, msgid
from latchstring.foundation.web.pages.urls import PageUrls, requested_url
from latchstring.foundation.web.problem import PROBLEMS, ProblemError
from latchstring.foundation.web.request_id import request_id

if TYPE_CHECKING:
    from latchstring.foundation.web.pages.templates import Templates

_FORM = "latchstring.form"
# Public pages kept in memory, for each combination of template, language, path and destination.
_MAX_KEPT = 256


@dataclass(frozen=True, slots=True)
class Link:
    """An entry of the navigation."""

    label: str
    url: str
    is_current: bool


@dataclass(frozen=True, slots=True)
class Renewal:
    """The data with which `session.js` refreshes the tokens of a page that is left open."""

    url: str
    due_in_seconds: int
    """Seconds until the access token expires."""
    life_seconds: int
    """Lifetime of the next access token, in seconds."""


@dataclass(frozen=True, slots=True)
class Frame:
    """The data of a page's header and footer."""

    name: str
    logo: str | None
    landing_page: str
    links: Sequence[Link]
    stylesheets: Sequence[str]


class Renderer:
    """Renders the templates of all pages."""

    def __init__(
        self, urls: PageUrls, options: Pages, templates: "Templates", *, links: Sequence[tuple[str, str]]
    ) -> None:
        """Render the pages of one application.

        Args:
            urls: the URLs of the pages.
            options: the application's options.
            templates: our templates, and the application's.
            links: our entries of the navigation: a label from the catalogues, and a path below the pages' prefix.
        """
        self.urls = urls
        self.templates = templates
        self.languages = Languages(OURS, *([Path(options.locale)] if options.locale else []))
        self.assets = Assets(options.theme)
        self._options = options
        self._links = links
        self._kept: dict[tuple[object, ...], str] = {}

    def notice(self, request: Request, notices: Mapping[str, str]) -> str | None:
        """Return the notice that the query parameter `done` names, in the visitor's language; None if it names none."""
        # A key, never the text itself: a link could put any sentence on the page.
        done = notices.get(request.query_params.get("done", ""))
        return self.translations(request.scope)(done) if done else None

    def translations(self, scope: Scope) -> Translations:
        """Return the translations into the visitor's language."""
        return self.languages.spoken_by(scope["headers"])

    async def form(self, request: Request) -> dict[str, str]:
        """Return the form's fields, without empty ones. The body is read once per request.

        Raises:
            ProblemError: as `read_form`.
        """
        # Kept in the scope: a step-up reads the form, and then the page's own handler does.
        fields: dict[str, str] | None = request.scope.get(_FORM)
        if fields is None:
            fields = request.scope[_FORM] = await read_form(request)
        return fields

    def page(
        self,
        request: Request,
        template: str,
        *,
        status: int = 200,
        user: object = None,
        renewal: Renewal | None = None,
        page_url: str | None = None,
        notice: str | None = None,
        form: Form | None = None,
        destination: str | None = None,
        **content: object,
    ) -> Response:
        """Render a template and return the response.

        Args:
            request: the request.
            template: the template's name.
            status: the status of the response; 422 if the form is wrong.
            user: the signed-in user, if the page shows one.
            renewal: how the page refreshes its tokens while it is open.
            page_url: the page's own URL, if it is not that of the request.
            notice: what has just been done, in the visitor's language.
            form: the values of the page's form, and what is wrong with them.
            destination: where the visitor continues afterwards (`next`).
            content: further variables of the template.
        """
        form, page_url = form or Form(), page_url or self.urls.current_page(request.scope)
        content |= {"user": user, "renewal": renewal, "notice": notice, "form": form, "has_errors": form.is_wrong}
        text = self._rendered(request.scope, template, page_url=page_url, next=destination, status=status, **content)
        return self._response(text, status=status, destination=destination)

    def public_page(
        self, request: Request, template: str, *, destination: str | None = None, **content: Hashable
    ) -> Response:
        """Return a page that is the same for every visitor. It is rendered once and kept in memory.

        Args:
            request: the request.
            template: the template's name.
            destination: where the visitor continues afterwards (`next`).
            content: further variables of the template.
        """
        scope = request.scope
        page_url, language = self.urls.current_page(scope), self.translations(scope).language
        # Everything that the page depends on; a missing part would show one visitor another's page (CVE-2026-33496).
        key = (template, language, self.urls.root(scope), page_url, destination, *content.items())
        text = self._kept.get(key)
        if text is None:
            if len(self._kept) >= _MAX_KEPT:
                # A client that requests thousands of different URLs must not fill the memory.
                self._kept.clear()
            text = self._kept[key] = self._rendered(
                scope,
                template,
                page_url=page_url,
                user=None,
                renewal=None,
                notice=None,
                form=Form(),
                has_errors=False,
                next=destination,
                status=200,
                **content,
            )
        return self._response(text, status=200, destination=destination)

    def _rendered(self, scope: Scope, template: str, **content: object) -> str:
        translate = self.translations(scope)
        return self.templates.get(template, translate).render(
            languages=[(each.language, each.own_name) for each in self.languages],
            site=self._frame(scope, translate),
            url=lambda path, **query: self.urls.url(scope, path, **query),
            asset=lambda name: self.asset_url(scope, name),
            has_sign_in="/sign-in" in self.urls.paths,
            has_sign_up="/sign-up" in self.urls.paths,
            has_password="/account/password" in self.urls.paths,
            **content,
        )

    def _response(self, text: str, *, status: int, destination: str | None) -> Response:
        response = HTMLResponse(text, status_code=status)
        if destination in self.urls.return_urls:
            # Chromium applies `form-action` to the redirect after a form too: allow the listed URL's origin.
            target = urlsplit(destination)
            allowed = f"{FORM_ACTION} {target.scheme}://{target.netloc}"
            response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY.replace(FORM_ACTION, allowed)
        return response

    def problem(self, request: Request, problem: ProblemError) -> Response:
        """Return the page of a refusal."""
        message = message_for(problem.code)
        # Without the query, which may be what was refused.
        page_url = self.urls.current_page(request.scope).partition("?")[0]
        translate = self.translations(request.scope)
        retry_after = (problem.headers or {}).get("Retry-After")
        is_form = request.method not in SAFE_METHODS
        response = self.page(
            request,
            message.template,
            status=PROBLEMS[problem.code][0],
            page_url=page_url,
            heading=translate(message.heading),
            text=translate(message.text),
            code=problem.code.value,
            retry_after_minutes=-(-int(retry_after) // 60) if retry_after else None,
            back=page_url if is_form else self.urls.landing_page(request.scope),
            back_label=translate(msgid("Go back") if is_form else msgid("Go to the start")),
            request_id=request_id(request.scope),
        )
        response.headers.update(problem.headers or {})
        return response

    def asset_url(self, scope: Scope, name: str) -> str:
        """Return the URL of a style sheet, a script or an image of ours."""
        return self.urls.url(scope, "/assets/" + self.assets.hashed_name(name))

    def _frame(self, scope: Scope, translate: Translations) -> Frame:
        options, root, current = self._options, self.urls.root(scope), requested_url(scope).partition("?")[0]
        entries = [(label, root + path) for label, path in options.links]
        entries += [(label, self.urls.url(scope, path)) for label, path in self._links]
        return Frame(
            name=options.name,
            logo=root + options.logo if options.logo else None,
            landing_page=self.urls.landing_page(scope),
            links=[Link(translate(label), url, url == current) for label, url in entries],
            stylesheets=[self.asset_url(scope, THEME)] if THEME in self.assets else [],
        )
