"""The route class of all our routes: bodies are limited, and refusals become problem+json.

This is done in the route and not in the application, so that a host's exception handlers, its 422 and its body limits
stay as they are.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

from fastapi import APIRouter
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

from latchstring.errors import Code, UnavailableError
from latchstring.foundation.measurements import UNMETERED, Meter
from latchstring.foundation.web.body import read_json, refuse_announced_size
from latchstring.foundation.web.measured import Handler, measured
from latchstring.foundation.web.problem import ProblemError, problem_response

BODY_REFUSALS = (
    Code.BODY_TIMEOUT,
    Code.BODY_TOO_LARGE,
    Code.MALFORMED_JSON,
    Code.UNSUPPORTED_MEDIA_TYPE,
    Code.VALIDATION_FAILED,
)
"""The codes with which every route that takes a body may refuse."""


@runtime_checkable
class Guards(Protocol):
    """A dependency of ours that decides who may use a route."""

    allows_anonymous: bool
    """Whether visitors without a token may use the route."""
    refusals: Collection[Code]
    """The codes with which it may refuse."""


def dependants_of(route: object) -> Iterator[Any]:
    """Return FastAPI's dependants of a route, nested ones included, each with `call` and `own_oauth_scopes`."""
    waiting = list(getattr(getattr(route, "dependant", None), "dependencies", ()))
    while waiting:
        dependency = waiting.pop(0)
        yield dependency
        waiting += dependency.dependencies


def dependencies_of(route: object) -> Iterator[object]:
    """Return the callables of a route's dependencies, nested ones included."""
    for dependant in dependants_of(route):
        yield dependant.call


class ProblemRoute(APIRoute):
    """A route that turns its refusals into responses itself."""

    meter: ClassVar[Meter] = UNMETERED

    def get_route_handler(self) -> Handler:
        """Wrap FastAPI's handler: check the headers, read the body, call the route, translate refusals."""
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            try:
                # The origin first: a request that another site caused must not cost a body, a query or a hash.
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
            _forbid_caching(response)
            return response

        return measured(guarded, self.meter, template=self.path_format)

    async def admit(self, request: Request) -> None:
        """Refuse a request by its headers alone; this class admits all."""

    async def respond(self, request: Request, handle: Handler) -> Response:
        """Return the response of the route."""
        return await handle(request)

    def refuse(self, request: Request, problem: ProblemError) -> Response:
        """Return the response to a refusal."""
        return problem_response(request.scope, problem.code, headers=problem.headers, errors=problem.errors)


def _forbid_caching(response: Response) -> None:
    # Responses about credentials must not be stored (RFC 6749, section 5.1); here and not only in the server's
    # middleware, because an application that installs our routes has no such middleware.
    for name, _ in response.raw_headers:
        if name == b"cache-control":
            return
    response.raw_headers.append((b"cache-control", b"no-store"))


class PrefixRouter(APIRouter):
    """The router of all our routes; requests for other paths cost it one dictionary lookup.

    FastAPI tries the routes of an included router one by one, and twice: 40 µs of a 130 µs request (decision 8), which
    requests for the host's own routes would cost as well. This router lets it do so only for paths that begin like one
    of ours with a parameter, a WebSocket route or a mount.
    """

    def __init__(self, prefix: str, routers: Iterable[APIRouter]) -> None:
        super().__init__()
        # Flat, and not one included in the other: FastAPI would work out each route twice, which doubles the start.
        for router in routers:
            self.routes.extend(router.routes)
        self._methods: dict[str, set[str]] = {}
        patterns: set[str] = set()
        for route in self.routes:
            if isinstance(route, APIRoute) and not route.param_convertors:
                self._methods.setdefault(prefix + route.path, set()).update(route.methods or ())
            else:
                patterns.add(prefix + getattr(route, "path", "").partition("{")[0])
        self._patterns = tuple(patterns)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match a request by path and method; FastAPI finds the route afterwards."""
        path = scope["path"]
        root = scope.get("root_path", "")
        # As Starlette does: only a whole segment counts, so that `/application` is not below `/app`.
        if root and path.startswith(root) and path[len(root) : len(root) + 1] in {"", "/"}:
            path = path[len(root) :]
        methods = self._methods.get(path)
        if methods is not None:
            return (Match.FULL if scope.get("method") in methods else Match.PARTIAL), {}
        if path.startswith(self._patterns):
            return super().matches(scope)
        return Match.NONE, {}


class _JsonRequest(Request):
    """A request whose body has been read, checked and parsed; FastAPI takes the parsed value from it."""

    def __init__(self, scope: Any, value: object) -> None:  # noqa: ANN401 -- Starlette's own Scope type
        super().__init__(scope)
        self._value = value

    async def body(self) -> bytes:
        return b"present"

    async def json(self) -> Any:  # noqa: ANN401 -- as Starlette declares it
        return self._value


def _field_errors(errors: Sequence[Any]) -> list[dict[str, str]]:
    # Pydantic's own dictionaries hold the input, and with it the password: only the field and the message are sent.
    return [
        {"pointer": "#" + "".join(f"/{_escaped(part)}" for part in error["loc"][1:]), "detail": _message(error)}
        for error in errors
    ]


def _escaped(part: object) -> str:
    return str(part).replace("~", "~0").replace("/", "~1")


def _message(error: Any) -> str:  # noqa: ANN401 -- an untyped dictionary of Pydantic's
    message: str = error["msg"]
    return message.removeprefix("Value error, ")
