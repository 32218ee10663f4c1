"""Site: the addresses of the pages, and a template to an answer."""

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode, urlsplit

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import Scope

from latchstring.errors import Code
from latchstring.foundation.web.body import read_form
from latchstring.foundation.web.origin import SAFE_METHODS
from latchstring.foundation.web.pages.assets import THEME, Assets
from latchstring.foundation.web.pages.destination import is_allowed
from latchstring.foundation.web.pages.form import Form
from latchstring.foundation.web.pages.options import Pages
from latchstring.foundation.web.pages.problems import told
from latchstring.foundation.web.pages.words import OURS, Languages, Words, msgid
from latchstring.foundation.web.problem import PROBLEMS, ProblemError
from latchstring.foundation.web.request_id import request_id

if TYPE_CHECKING:
    from latchstring.foundation.web.pages.templates import Templates

_FORM = "latchstring.form"
_MOST_KEPT = 256
_FORM_ACTION = "form-action 'self'"
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    f"{_FORM_ACTION}; frame-ancestors 'none'; base-uri 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": (
        "accelerometer=(), camera=(), geolocation=(), gyroscope=(), magnetometer=(), microphone=(), payment=(), usb=()"
    ),
    # Not `no-referrer`, under which browsers send `Origin: null` with a form, and an old one nothing else to tell by.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""What every page carries, redirects and refusals included."""


@dataclass(frozen=True, slots=True)
class Link:
    """An entry of the navigation, as a template shows it."""

    label: str
    url: str
    is_current: bool


@dataclass(frozen=True, slots=True)
class Renewal:
    """What the quiet refresh of a page that is left open needs to know."""

    url: str
    due_in_seconds: int
    """Until the access token expires."""
    life_seconds: int
    """Of the next one."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What stands around a page's own content: the site, as its header and footer show it."""

    name: str
    logo: str | None
    home: str
    links: Sequence[Link]
    stylesheets: Sequence[str]


class Site:
    """Every page's surroundings."""

    def __init__(self, options: Pages, templates: "Templates", *, listed: Collection[str]) -> None:
        """Surround pages.

        Args:
            options: what the application says of them.
            templates: theirs and ours.
            listed: whole addresses where a visitor may be sent on to, besides paths of our own.
        """
        self.options = options
        self.templates = templates
        self.languages = Languages(OURS, *([Path(options.locale)] if options.locale else []))
        self.assets = Assets(options.theme)
        self.app: object = None
        """The application that has them."""
        self.prefix = ""
        """Where the pages begin, once they are installed."""
        self.renewal_path = "/refresh"
        """Where the JSON route is that refreshes."""
        self.routers: list[APIRouter] = []
        """All of the pages'."""
        self._kept: dict[tuple[object, ...], str] = {}
        self._links: list[tuple[str, str]] = []
        self._listed = frozenset(listed)

    @cached_property
    def paths(self) -> Mapping[str, Collection[str]]:
        """The methods of each page, by its path below the prefix."""
        found: dict[str, set[str]] = {}
        for router in self.routers:
            for route in router.routes:
                if isinstance(route, APIRoute):
                    found.setdefault(route.path, set()).update(route.methods or ())
        return found

    def add_link(self, label: str, path: str) -> None:
        """Put a page of ours into the navigation, under a label that is in the catalogues."""
        self._links.append((label, path))

    def notice(self, request: Request, notices: Mapping[str, str]) -> str | None:
        """Return what `done` says has just been done, in the visitor's language; None for what is none of these."""
        said = notices.get(request.query_params.get("done", ""))
        return self.words(request.scope)(said) if said else None

    # --- addresses ----------------------------------------------------------------------------------------------------

    def url(self, scope: Scope, path: str, **query: str | None) -> str:
        """Return the address of one of our pages, as a browser has to ask for it."""
        given = {name: value for name, value in query.items() if value is not None}
        return self._root(scope) + self.prefix + path + ("?" + urlencode(given) if given else "")

    def home(self, scope: Scope) -> str:
        """Return where a visitor goes who is on the way to nowhere else."""
        if self.options.home is not None:
            return self._root(scope) + self.options.home
        return self.url(scope, "/account" if "/account" in self.paths else "/account/sessions")

    def renewal_url(self, scope: Scope) -> str:
        """Return the address of the JSON route that refreshes."""
        return self._root(scope) + self.renewal_path

    def here(self, scope: Scope) -> str:
        """Return the page that a visitor is on, which can be asked for again by GET."""
        if scope["method"] in SAFE_METHODS:
            return self.address(scope) or self.home(scope)
        path = _below_root(scope)
        if not self._is_ours(scope) or not path.startswith(self.prefix):
            return self.home(scope)
        # What a form of a page is sent to lies below that page.
        path = path.removeprefix(self.prefix)
        while path and "GET" not in self.paths.get(path, ()):
            path = path.rpartition("/")[0]
        return self.url(scope, path) if path else self.home(scope)

    def address(self, scope: Scope) -> str | None:
        """Return the address that was asked for, as the browser has it; None where `next` could not lead there."""
        own = _address(scope)
        return own if is_allowed(own) else None

    def by_get(self, scope: Scope, destination: str) -> str:
        """Return where to go by GET instead, where a form of ours has nothing but POST."""
        path = destination.partition("?")[0].removeprefix(self._root(scope) + self.prefix)
        return destination if "GET" in self.paths.get(path, {"GET"}) else self.home(scope)

    def destination(self, given: str | None) -> str | None:
        """Return where `next` leads; None where it is not given.

        Raises:
            ProblemError: nowhere that we would lead anybody to.
        """
        if not given:
            return None
        if not is_allowed(given, listed=self._listed):
            raise ProblemError(Code.NEXT_NOT_ALLOWED)
        return given

    def destination_in_query(self, request: Request) -> str | None:
        """Return the same of an address that was asked for."""
        given = request.query_params.getlist("next")
        if len(given) > 1:
            raise ProblemError(Code.NEXT_NOT_ALLOWED)
        return self.destination(given[0] if given else None)

    def _is_ours(self, scope: Scope) -> bool:
        return self.app is None or scope.get("app") is self.app

    def _root(self, scope: Scope) -> str:
        # In an application that is mounted in the one with the pages, the root path is the mount's.
        root: str = scope.get("root_path", "")
        return root.rstrip("/") if self._is_ours(scope) else scope.get("app_root_path", root).rstrip("/")

    # --- in -----------------------------------------------------------------------------------------------------------

    def words(self, scope: Scope) -> Words:
        """Return the visitor's language."""
        return self.languages.spoken_by(scope["headers"])

    async def form(self, request: Request) -> dict[str, str]:
        """Return what was filled in, without the empty fields; read once, however often it is asked for.

        Raises:
            ProblemError: as `read_form` does.
        """
        fields: dict[str, str] | None = request.scope.get(_FORM)
        if fields is None:
            fields = request.scope[_FORM] = await read_form(request)
        return fields

    # --- out ----------------------------------------------------------------------------------------------------------

    def see_other(self, location: str) -> Response:
        """Send the browser on, by GET: what a form has done is not done again when its page is loaded again."""
        return Response(status_code=303, headers={"Location": location})

    def page(
        self,
        request: Request,
        template: str,
        *,
        status: int = 200,
        user: object = None,
        renewal: Renewal | None = None,
        here: str | None = None,
        notice: str | None = None,
        form: Form | None = None,
        destination: str | None = None,
        **content: object,
    ) -> Response:
        """Return a template's page.

        Args:
            request: what is answered.
            template: its name.
            status: of the answer; 422 where the form is wrong.
            user: who is signed in, where the page is about that.
            renewal: how the page keeps a session alive.
            here: the page's own address, where it is not that of the request.
            notice: what has just been done, in the visitor's language.
            form: what was filled in.
            destination: where the visitor goes from there: `next`.
            content: what the template itself asks for.
        """
        form = form or Form()
        text = self._rendered(
            request.scope,
            template,
            here=here or self.here(request.scope),
            user=user,
            renewal=renewal,
            notice=notice,
            form=form,
            has_errors=form.is_wrong,
            next=destination,
            status=status,
            **content,
        )
        return self._answer(text, status=status, destination=destination)

    def open_page(
        self, request: Request, template: str, *, destination: str | None = None, **content: Hashable
    ) -> Response:
        """Return a page that is the same for everybody who comes to it: rendered once, and kept.

        Args:
            request: what is answered.
            template: its name.
            destination: where the visitor goes from there: `next`.
            content: what the template itself asks for.
        """
        scope = request.scope
        here = self.here(scope)
        key = (template, self.words(scope).language, self._root(scope), here, destination, *content.items())
        text = self._kept.get(key)
        if text is None:
            if len(self._kept) >= _MOST_KEPT:
                # Whoever asks with a thousand addresses has each rendered, and fills no memory.
                self._kept.clear()
            text = self._kept[key] = self._rendered(
                scope,
                template,
                here=here,
                user=None,
                renewal=None,
                notice=None,
                form=Form(),
                has_errors=False,
                next=destination,
                status=200,
                **content,
            )
        return self._answer(text, status=200, destination=destination)

    def _rendered(self, scope: Scope, template: str, **content: object) -> str:
        words = self.words(scope)
        return self.templates.get(template, words).render(
            languages=[(each.language, each.own_name) for each in self.languages],
            site=self._frame(scope, words),
            url=lambda path, **query: self.url(scope, path, **query),
            asset=lambda name: self.asset_url(scope, name),
            has_sign_in="/sign-in" in self.paths,
            has_sign_up="/sign-up" in self.paths,
            has_password="/account/password" in self.paths,
            **content,
        )

    def _answer(self, text: str, *, status: int, destination: str | None) -> Response:
        response = HTMLResponse(text, status_code=status)
        if destination in self._listed:
            # Chromium holds the redirect that answers a form against this as well.
            target = urlsplit(destination)
            allowed = f"{_FORM_ACTION} {target.scheme}://{target.netloc}"
            response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY.replace(_FORM_ACTION, allowed)
        return response

    def problem(self, request: Request, problem: ProblemError) -> Response:
        """Return the page of a refusal."""
        said = told(problem.code)
        # Without the query: what was wrong may be in it.
        here = self.here(request.scope).partition("?")[0]
        words = self.words(request.scope)
        retry_after = (problem.headers or {}).get("Retry-After")
        is_form = request.method not in SAFE_METHODS
        response = self.page(
            request,
            said.template,
            status=PROBLEMS[problem.code][0],
            here=here,
            heading=words(said.heading),
            words=words(said.words),
            code=problem.code.value,
            retry_after_minutes=-(-int(retry_after) // 60) if retry_after else None,
            back=here if is_form else self.home(request.scope),
            back_label=words(msgid("Go back") if is_form else msgid("Go to the start")),
            request_id=request_id(request.scope),
        )
        response.headers.update(problem.headers or {})
        return response

    def asset_url(self, scope: Scope, name: str) -> str:
        """Return the address of a style sheet, a module or an image of ours."""
        return self.url(scope, "/assets/" + self.assets.hashed_name(name))

    def _frame(self, scope: Scope, words: Words) -> Frame:
        options, root, here = self.options, self._root(scope), _address(scope).partition("?")[0]
        entries = [(label, root + path) for label, path in options.links]
        entries += [(label, self.url(scope, path)) for label, path in self._links]
        return Frame(
            name=options.name,
            logo=root + options.logo if options.logo else None,
            home=self.home(scope),
            links=[Link(words(label), url, url == here) for label, url in entries],
            stylesheets=[self.asset_url(scope, THEME)] if THEME in self.assets else [],
        )


def with_headers(response: Response) -> Response:
    """Put on a page's answer what every page carries."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.setdefault("Cache-Control", "no-store")
    return response


def _below_root(scope: Scope) -> str:
    # Some servers leave the root path in the path, and others take it off.
    path: str = scope["path"]
    root = scope.get("root_path", "").rstrip("/")
    return path[len(root) :] if root and (path + "/").startswith(root + "/") else path


def _address(scope: Scope) -> str:
    # Browsers send brackets and the like as they are; in `next` they are written out.
    query = quote(scope["query_string"], safe="%/?:@!$&'()*+,;=~")
    path = quote(_below_root(scope), safe="/!$&'()*+,;=:@~")
    root: str = scope.get("root_path", "")
    return root.rstrip("/") + path + (f"?{query}" if query else "")
