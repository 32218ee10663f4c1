"""PageUrls: the URLs of the pages, and where a visitor may be redirected to."""

from collections.abc import Collection, Mapping
from functools import cached_property
from urllib.parse import quote, urlencode

from fastapi import APIRouter
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
        app: object,
        *,
        prefix: str,
        renewal_path: str,
        landing_page: str | None,
        return_urls: Collection[str],
    ) -> None:
        """Know the URLs of pages.

        Args:
            app: the application that has them.
            prefix: where they begin.
            renewal_path: where the JSON route is that refreshes.
            landing_page: the path of the application's own, if it has one.
            return_urls: whole URLs that a visitor may be redirected to, besides paths of our own.
        """
        self.return_urls = frozenset(return_urls)
        self._app = app
        self._prefix = prefix
        self._renewal_path = renewal_path
        self._landing_page = landing_page
        self._routers: list[APIRouter] = []

    def add(self, router: APIRouter) -> None:
        """Take the pages of a router in."""
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
        """Return the address of one of our pages, as a browser has to ask for it."""
        given = {name: value for name, value in query.items() if value is not None}
        return self.root(scope) + self._prefix + path + ("?" + urlencode(given) if given else "")

    def landing_page(self, scope: Scope) -> str:
        """Return where a visitor goes who is on the way to nowhere else."""
        if self._landing_page is not None:
            return self.root(scope) + self._landing_page
        return self.url(scope, "/account" if "/account" in self.paths else "/account/sessions")

    def renewal_url(self, scope: Scope) -> str:
        """Return the address of the JSON route that refreshes."""
        return self.root(scope) + self._renewal_path

    def current_page(self, scope: Scope) -> str:
        """Return the page that a visitor is on, which can be asked for again by GET."""
        if scope["method"] in SAFE_METHODS:
            return self.requested(scope) or self.landing_page(scope)
        path = _below_root(scope)
        if not self._is_ours(scope) or not path.startswith(self._prefix):
            return self.landing_page(scope)
        # What a form of a page is sent to lies below that page.
        path = path.removeprefix(self._prefix)
        while path and "GET" not in self.paths.get(path, ()):
            path = path.rpartition("/")[0]
        return self.url(scope, path) if path else self.landing_page(scope)

    def requested(self, scope: Scope) -> str | None:
        """Return the address that was asked for, as the browser has it; None where `next` could not lead there."""
        own = requested_url(scope)
        return own if is_allowed(own) else None

    def by_get(self, scope: Scope, destination: str) -> str:
        """Return where to go by GET instead, where a form of ours has nothing but POST."""
        path = destination.partition("?")[0].removeprefix(self.root(scope) + self._prefix)
        return destination if "GET" in self.paths.get(path, {"GET"}) else self.landing_page(scope)

    def destination(self, given: str | None) -> str | None:
        """Return where `next` leads; None where it is not given.

        Raises:
            ProblemError: nowhere that we would lead anybody to.
        """
        if not given:
            return None
        if not is_allowed(given, listed=self.return_urls):
            raise ProblemError(Code.NEXT_NOT_ALLOWED)
        return given

    def destination_in_query(self, request: Request) -> str | None:
        """Return the same of an address that was asked for."""
        given = request.query_params.getlist("next")
        if len(given) > 1:
            raise ProblemError(Code.NEXT_NOT_ALLOWED)
        return self.destination(given[0] if given else None)

    def _is_ours(self, scope: Scope) -> bool:
        return self._app is None or scope.get("app") is self._app

    def root(self, scope: Scope) -> str:
        """Return what comes before every path of the application, as a browser has to ask for it."""
        # In an application that is mounted in the one with the pages, the root path is the mount's.
        root: str = scope.get("root_path", "")
        return root.rstrip("/") if self._is_ours(scope) else scope.get("app_root_path", root).rstrip("/")


def see_other(location: str) -> Response:
    """Redirect the browser by GET: what a form has done is not done again when its page is loaded again."""
    return Response(status_code=303, headers={"Location": location})


def _below_root(scope: Scope) -> str:
    # Some servers leave the root path in the path, and others take it off.
    path: str = scope["path"]
    root = scope.get("root_path", "").rstrip("/")
    return path[len(root) :] if root and (path + "/").startswith(root + "/") else path


def requested_url(scope: Scope) -> str:
    """Return what the browser asked for, without scheme and host."""
    # Browsers send brackets and the like as they are; in `next` they are written out.
    query = quote(scope["query_string"], safe="%/?:@!$&'()*+,;=~")
    path = quote(_below_root(scope), safe="/!$&'()*+,;=:@~")
    root: str = scope.get("root_path", "")
    return root.rstrip("/") + path + (f"?{query}" if query else "")
