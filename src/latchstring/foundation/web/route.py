"""The route class under every route of ours: bodies are guarded, and what is refused leaves as problem+json.

It belongs to the route and not to the application, so that a host's exception handlers, its 422 and its body
limits stay as they are.
"""

from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

from fastapi import APIRouter
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

from latchstring.errors import Code, UnavailableError
from latchstring.foundation.web.body import read_json, refuse_announced_size
from latchstring.foundation.web.problem import ProblemError, problem_response

BODY_REFUSALS = (
    Code.BODY_TIMEOUT,
    Code.BODY_TOO_LARGE,
    Code.MALFORMED_JSON,
    Code.UNSUPPORTED_MEDIA_TYPE,
    Code.VALIDATION_FAILED,
)
"""What every route that takes a body may answer instead of its own."""


@runtime_checkable
class Guards(Protocol):
    """A dependency of ours that decides who may come to a route."""

    allows_anonymous: bool
    """Whether it is open to visitors as well."""
    refusals: Collection[Code]
    """What the route may answer instead of its own."""


def dependants_of(route: object) -> Iterator[Any]:
    """Return what FastAPI solves before a route, and before that: each with its `call` and its `own_oauth_scopes`."""
    waiting = list(getattr(getattr(route, "dependant", None), "dependencies", ()))
    while waiting:
        dependency = waiting.pop(0)
        yield dependency
        waiting += dependency.dependencies


def dependencies_of(route: object) -> Iterator[object]:
    """Return what FastAPI calls before a route, and before that."""
    for dependant in dependants_of(route):
        yield dependant.call


Handler = Callable[[Request], Coroutine[Any, Any, Response]]
"""FastAPI's own for a route: it solves what the route asks for, and calls it."""


class ProblemRoute(APIRoute):
    """A route that answers refusals itself."""

    def get_route_handler(self) -> Handler:
        """Wrap FastAPI's handler: body first, then the route, then its refusals."""
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            try:
                await self.admit(request)
                refuse_announced_size(request)
                if self.body_field is not None:
                    request = _JsonRequest(request.scope, await read_json(request))
                response = await self.respond(request, handle)
            except ProblemError as problem:
                response = self.refuse(request, problem)
            except RequestValidationError as error:
                response = self.refuse(
                    request, ProblemError(Code.VALIDATION_FAILED, errors=_field_errors(error.errors()))
                )
            except UnavailableError as error:
                response = self.refuse(request, ProblemError(error.code))
            _forbid_keeping(response)
            return response

        return guarded

    async def admit(self, request: Request) -> None:
        """Refuse a request by its headers alone; the plain route admits all."""

    async def respond(self, request: Request, handle: Handler) -> Response:
        """Return the route's own answer."""
        return await handle(request)

    def refuse(self, request: Request, problem: ProblemError) -> Response:
        """Return the answer that says no."""
        return problem_response(request.scope, problem.code, headers=problem.headers, errors=problem.errors)


def _forbid_keeping(response: Response) -> None:
    for name, _ in response.raw_headers:
        if name == b"cache-control":
            return
    response.raw_headers.append((b"cache-control", b"no-store"))


class PrefixRouter(APIRouter):
    """Every route of ours; a request to another address passes by after one look into a dictionary.

    FastAPI tries the routes of an included router one by one, and twice, which a host's own routes, coming after ours,
    would pay for at each of their requests. It does so here only below the beginning of a path that
    has a parameter in it, a socket or a mount.
    """

    def __init__(self, *mounts: tuple[str, Iterable[APIRouter]]) -> None:
        """Take routers in, each group of them below a prefix."""
        super().__init__()
        self._methods: dict[str, set[str]] = {}
        patterns: set[str] = set()
        for prefix, routers in mounts:
            below_prefix = APIRouter()
            below_prefix.routes.extend(route for router in routers for route in router.routes)
            self.include_router(below_prefix, prefix=prefix)
            for route in below_prefix.routes:
                if isinstance(route, APIRoute) and not route.param_convertors:
                    self._methods.setdefault(prefix + route.path, set()).update(route.methods or ())
                else:
                    patterns.add(prefix + getattr(route, "path", "").partition("{")[0])
        self._patterns = tuple(patterns)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Tell whether address and method are ours; which route it is, FastAPI finds out afterwards."""
        address = scope["path"]
        root = scope.get("root_path", "")
        # As Starlette does: a part of the path, and not of a word in it.
        if root and address.startswith(root) and address[len(root) : len(root) + 1] in {"", "/"}:
            address = address[len(root) :]
        methods = self._methods.get(address)
        if methods is not None:
            return (Match.FULL if scope.get("method") in methods else Match.PARTIAL), {}
        if address.startswith(self._patterns):
            return super().matches(scope)
        return Match.NONE, {}


class _JsonRequest(Request):
    """A request whose body has been read, checked and parsed; FastAPI takes the value from here."""

    def __init__(self, scope: Any, value: object) -> None:  # noqa: ANN401 -- Starlette's own Scope type
        super().__init__(scope)
        self._value = value

    async def body(self) -> bytes:
        return b"present"

    async def json(self) -> Any:  # noqa: ANN401 -- as Starlette declares it
        return self._value


def _field_errors(errors: Sequence[Any]) -> list[dict[str, str]]:
    # Pydantic's own dictionaries hold the input, and with it the password: only place and message leave.
    return [
        {"pointer": "#" + "".join(f"/{_escaped(part)}" for part in error["loc"][1:]), "detail": _message(error)}
        for error in errors
    ]


def _escaped(part: object) -> str:
    return str(part).replace("~", "~0").replace("/", "~1")


def _message(error: Any) -> str:  # noqa: ANN401 -- an untyped dictionary of Pydantic's
    message: str = error["msg"]
    return message.removeprefix("Value error, ")
