"""PageUrls: the URLs of the pages, and where a visitor may be redirected to."""

from collections.abc import Collection, Mapping
from functools import cached_property
from urllib.parse import quote, urlencode

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from latchstring.errors import Code
from latchstring.foundation.web.origin import SAFE_METHODS
from latchstring.foundation.web.pages.destination import is_allowed
from latchstring.foundation.web.problem import ProblemError


class PageUrls:
    """The URLs of the pages, as they are mounted."""

    def __init__(
        self,
        app: FastAPI,
        *,
        prefix: str,
        renewal_path: str,
        landing_page: str | None,
        return_urls: Collection[str],
    ) -> None:
        """Make the URLs of an application's pages.

        Args:
            app: the application that the pages are installed in.
            prefix: the prefix of the pages.
            renewal_path: the path of the JSON route that refreshes.
            landing_page: the path of the application's own landing page, if it has one.
            return_urls: whole URLs that a visitor may be redirected to, besides paths on our own origin.
        """
        # Only paths are ever made, never the Host header's origin: a visitor chooses that one (CVE-2021-30185).
        self.return_urls = frozenset(return_urls)
        self._app = app
        self._prefix = prefix
        self._renewal_path = renewal_path
        self._landing_page = landing_page
        self._routers: list[APIRouter] = []

    def add(self, router: APIRouter) -> None:
        """Add the pages of a router."""
        self._routers.append(router)

    @cached_property
    def paths(self) -> Mapping[str, Collection[str]]:
        """The methods of each page, by its path below the prefix."""
        found: dict[str, set[str]] = {}
        for router in self._routers:
            for route in router.routes:
                if isinstance(route, APIRoute):
                    found.setdefault(route.path, set()).update(route.methods or ())
        return found

    def url(self, scope: Scope, path: str, **query: str | None) -> str:
        """Return the URL of one of our pages, with the root path, as a browser must request it."""
        given = {name: value for name, value in query.items() if value is not None}
        return self.root(scope) + self._prefix + path + ("?" + urlencode(given) if given else "")

    def landing_page(self, scope: Scope) -> str:
        """Return the landing page: where a visitor is redirected without a `next`."""
        if self._landing_page is not None:
            return self.root(scope) + self._landing_page
        return self.url(scope, "/account" if "/account" in self.paths else "/account/sessions")

    def renewal_url(self, scope: Scope) -> str:
        """Return the URL of the JSON route that refreshes."""
        return self.root(scope) + self._renewal_path

    def current_page(self, scope: Scope) -> str:
        """Return the page that a visitor is on: a URL that can be requested again by GET."""
        if scope["method"] in SAFE_METHODS:
            return self.requested(scope) or self.landing_page(scope)
        path = _below_root(scope)
        if not self._is_ours(scope) or not path.startswith(self._prefix):
            return self.landing_page(scope)
        # A form is posted to its page's path or to one below it, so the page is the next path upwards with a GET.
        path = path.removeprefix(self._prefix)
        while path and "GET" not in self.paths.get(path, ()):
            path = path.rpartition("/")[0]
        return self.url(scope, path) if path else self.landing_page(scope)

    def requested(self, scope: Scope) -> str | None:
        """Return the requested URL, as the browser has it; None if it can't be used as `next`."""
        own = requested_url(scope)
        return own if is_allowed(own) else None

    def by_get(self, scope: Scope, destination: str) -> str:
        """Return the destination if it can be requested by GET; the landing page if it is a form's POST-only path."""
        path = destination.partition("?")[0].removeprefix(self.root(scope) + self._prefix)
        return destination if "GET" in self.paths.get(path, {"GET"}) else self.landing_page(scope)

    def destination(self, given: str | None) -> str | None:
        """Return the value of `next` if it is allowed; None if there is none.

        Raises:
            ProblemError: `next_not_allowed`.
        """
        if not given:
            return None
        # Refused and not ignored: visitors should learn that the link they followed was not to be trusted.
        if not is_allowed(given, listed=self.return_urls):
            raise ProblemError(Code.NEXT_NOT_ALLOWED)
        return given

    def destination_in_query(self, request: Request) -> str | None:
        """Return the value of `next` in the query string if it is allowed; None if there is none.

        Raises:
            ProblemError: `next_not_allowed`, also if it is there twice.
        """
        # Twice: which of the two is used must not depend on who reads the query.
        given = request.query_params.getlist("next")
        if len(given) > 1:
            raise ProblemError(Code.NEXT_NOT_ALLOWED)
        return self.destination(given[0] if given else None)

    def _is_ours(self, scope: Scope) -> bool:
        return scope.get("app") is self._app

    def root(self, scope: Scope) -> str:
        """Return the root path of the application with the pages, without a trailing slash (ASGI `root_path`)."""
        # In a mounted application, `root_path` includes the mount; `app_root_path` is that of the outer application.
        root: str = scope.get("root_path", "")
        return root.rstrip("/") if self._is_ours(scope) else scope.get("app_root_path", root).rstrip("/")


def see_other(location: str) -> Response:
    """Redirect by 303 See Other: the browser continues by GET, and reloading does not send the form again."""
    return Response(status_code=303, headers={"Location": location})


def _below_root(scope: Scope) -> str:
    # Servers differ: some leave the root path in `path`, as ASGI says today, and others remove it.
    path: str = scope["path"]
    root = scope.get("root_path", "").rstrip("/")
    return path[len(root) :] if root and (path + "/").startswith(root + "/") else path


def requested_url(scope: Scope) -> str:
    """Return the path and query that the browser requested, without scheme and host."""
    # Browsers send characters such as brackets unencoded; in `next` only those of RFC 3986 are allowed.
    query = quote(scope["query_string"], safe="%/?:@!$&'()*+,;=~")
    path = quote(_below_root(scope), safe="/!$&'()*+,;=:@~")
    root: str = scope.get("root_path", "")
    return root.rstrip("/") + path + (f"?{query}" if query else "")
