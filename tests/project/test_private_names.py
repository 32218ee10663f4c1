"""Names of dependencies that none of them promises: each was seen in a version, and each is missed when it goes.

A name that begins with an underscore, or one that its project's documentation does not have. A new version may rename
either on any day; the sentence of the row that fails says what of ours leans on it.
"""

import ast
import sqlite3
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa
import uvicorn.config
import uvicorn.server
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import APIRouter, Depends, FastAPI, Security
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient
from joserfc.jwk import OKPKey
from joserfc.jws import JWSRegistry
from pydantic import BaseModel
from sqlalchemy.dialects.sqlite.aiosqlite import AsyncAdapt_aiosqlite_connection
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from uvicorn.lifespan.off import LifespanOff
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

import latchstring
from latchstring.foundation.database import Database
from latchstring.foundation.database.sqlite import OneTripConnection

SOURCES = Path(latchstring.__file__).parent


class Name(NamedTuple):
    """A name of somebody else's."""

    package: str
    name: str
    seen_in: str
    why: str
    """What of ours leans on it."""
    look: Callable[[], object]
    """Uses it as we do; true where it is what we take it for."""


class Body(BaseModel):
    word: str


def _sample() -> FastAPI:
    """An application with one of each kind of route that we look at."""
    app, router = FastAPI(), APIRouter()

    @router.post("/{name}/route")
    def route(name: str, body: Body) -> None: ...

    app.include_router(router, prefix="/in", dependencies=[Security(_sample, scopes=["some"])])
    app.frontend("/pages", directory=SOURCES)
    return app


def _context() -> Any:  # noqa: ANN401 -- FastAPI's own kinds of routes
    (context,) = (each for each in iter_route_contexts(_sample().routes) if each.path == "/in/{name}/route")
    return context


def _frontend() -> Any:  # noqa: ANN401 -- as above
    (found,) = _sample().router._iter_low_priority_routes()
    return found


def _cors() -> CORSMiddleware:
    return CORSMiddleware(Starlette(), allow_origins=["https://a.example"], allow_credentials=True)


def _scope_below_a_mount() -> dict[str, Any]:
    def show(request: Request) -> JSONResponse:
        return JSONResponse({key: value for key, value in request.scope.items() if isinstance(value, str)})

    app = Starlette()
    app.mount("/inner", Starlette(routes=[Route("/show", show)]))
    scope: dict[str, Any] = TestClient(app, root_path="/root").get("/root/inner/show").json()
    return scope


def _portal() -> object:
    with TestClient(Starlette()) as client:
        portal = client.portal
        return portal is not None and portal.wrap_async_context_manager


def _asked_of_sqlite() -> set[str]:
    """Which attributes of aiosqlite's connection SQLAlchemy's adapter names."""
    source = Path(import_module(AsyncAdapt_aiosqlite_connection.__module__).__file__ or "").read_text()
    return {
        node.attr
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self._connection"
    }


NAMES = [
    Name(
        "fastapi",
        "APIRouter._iter_low_priority_routes",
        "0.165.0",
        "the doctor lists what app.frontend(…) serves",
        lambda: len(list(_sample().router._iter_low_priority_routes())) == 1,
    ),
    Name(
        "fastapi",
        "_FrontendRouteGroup.routes",
        "0.165.0",
        "the doctor lists what app.frontend(…) serves",
        lambda: [route.path for route in _frontend().routes] == ["/pages"],
    ),
    Name(
        "fastapi",
        "routing.iter_route_contexts",
        "0.165.0",
        "the doctor and the OpenAPI document read included routes as they are served",
        lambda: (
            (_context().path, _context().path_format, _context().methods) == ("/in/{name}/route",) * 2 + ({"POST"},)
            and _context().endpoint.__name__ == _context().original_route.endpoint.__name__ == "route"
        ),
    ),
    Name(
        "fastapi",
        "APIRoute.dependant",
        "0.165.0",
        "the doctor and the OpenAPI document see guards by it; without it every route is undeclared",
        lambda: (
            [(each.call, each.own_oauth_scopes) for each in _context().dependant.dependencies] == [(_sample, ["some"])]
        ),
    ),
    Name(
        "fastapi",
        "APIRoute.body_field",
        "0.165.0",
        "a route of ours reads, bounds and checks the body where FastAPI would",
        lambda: _context().original_route.body_field is not None,
    ),
    Name(
        "fastapi",
        "params.Depends.dependency",
        "0.165.0",
        "a guard is its own Depends, and install refuses one on the whole application",
        lambda: FastAPI(dependencies=[Depends(_sample)]).router.dependencies[0].dependency is _sample,
    ),
    Name(
        "starlette",
        "Route.param_convertors",
        "1.10.0",
        "PrefixRouter finds routes without parameters in a dictionary",
        lambda: list(_context().original_route.param_convertors) == ["name"],
    ),
    Name(
        "starlette",
        "Router.middleware_stack",
        "1.10.0",
        "the layer by which guards watch WebSockets stands there",
        lambda: Starlette().router.middleware_stack,
    ),
    Name(
        "starlette",
        "Router.lifespan_context",
        "1.10.0",
        "install puts its own lifespan around the application's",
        lambda: Starlette().router.lifespan_context,
    ),
    Name(
        "starlette",
        "Starlette.user_middleware",
        "1.10.0",
        "the doctor sees CORS, sessions' cookies and GuardMiddleware",
        lambda: Starlette().user_middleware == [],
    ),
    Name(
        "starlette",
        "CORSMiddleware.allow_credentials",
        "1.10.0",
        "the doctor finds CORS that lets any site in",
        lambda: _cors().allow_credentials is True,
    ),
    Name(
        "starlette",
        "CORSMiddleware.is_allowed_origin",
        "1.10.0",
        "the doctor finds CORS that lets any site in",
        lambda: _cors().is_allowed_origin("https://a.example") and not _cors().is_allowed_origin("https://b.example"),
    ),
    Name(
        "starlette",
        "SessionMiddleware.security_flags",
        "1.10.0",
        "the doctor finds cookies of sessions that travel in the clear",
        lambda: "secure" in SessionMiddleware(Starlette(), secret_key="…", https_only=True).security_flags,
    ),
    Name(
        "starlette",
        'scope["app_root_path"]',
        "1.10.0",
        "pages find the root path of the application they were installed in, from one mounted in it; `base_url` would "
        "have it, too, but reads the Host header",
        lambda: _scope_below_a_mount()["app_root_path"] == "/root",
    ),
    Name(
        "starlette",
        "TestClient.portal",
        "1.10.0",
        "the pytest plugin works in the event loop of the application's lifespan",
        _portal,
    ),
    Name(
        "sqlalchemy",
        "util.greenlet_spawn",
        "2.1.9",
        "the hottest read is one greenlet from the pool and back",
        lambda: sa.util.greenlet_spawn,
    ),
    Name(
        "sqlalchemy",
        "AsyncAdapt_aiosqlite_connection",
        "2.1.9",
        "our connection to SQLite has what the adapter asks aiosqlite's for, private names among it",
        lambda: {"_conn", "_tx", "stop", "close"} <= _asked_of_sqlite() <= {*dir(_connection()), "execute"},
    ),
    Name(
        "uvicorn",
        "protocols.http.httptools_impl.HttpToolsProtocol",
        "0.54.0",
        "the server's bounds on what a connection may hold are in a subclass",
        lambda: (
            all(
                callable(getattr(HttpToolsProtocol, name))
                for name in (
                    *("connection_made", "data_received", "connection_lost", "pause_writing", "resume_writing"),
                    *("on_response_complete", "timeout_keep_alive_handler"),
                )
            )
            and {"loop", "transport", "flow", "parser", "app_state", "scope", "cycle"} <= _attributes(HttpToolsProtocol)
            and {"timeout_keep_alive", "timeout_keep_alive_task"} <= _attributes(HttpToolsProtocol)
        ),
    ),
    Name(
        "uvicorn",
        "protocols.http.httptools_impl.RequestResponseCycle",
        "0.54.0",
        "a response that starts before the request's body has arrived ends the connection",
        lambda: (
            {"scope", "transport", "keep_alive", "more_body", "response_started"} <= _attributes(RequestResponseCycle)
        ),
    ),
    Name(
        "uvicorn",
        "protocols.http.flow_control.FlowControl.resume_reading",
        "0.54.0",
        "the rest of a body that nobody reads is discarded",
        lambda: FlowControl.resume_reading,
    ),
    Name(
        "uvicorn",
        "Server.on_tick",
        "0.54.0",
        "latchstring serve drains before it stops, in a subclass",
        lambda: (
            all(callable(getattr(uvicorn.Server, name)) for name in ("handle_exit", "startup", "on_tick", "shutdown"))
            and {"servers", "server_state", "lifespan", "started", "should_exit"} <= _attributes(uvicorn.Server)
            and "force_exit" in _attributes(uvicorn.Server)
            and uvicorn.server.ServerState().connections == set()
            and LifespanOff(uvicorn.Config("")).state == {}
        ),
    ),
    Name(
        "uvicorn",
        'the logger "uvicorn.error"',
        "0.54.0",
        "the server's log has one line of its own in place of uvicorn's",
        lambda: "uvicorn.error" in uvicorn.config.LOGGING_CONFIG["loggers"],
    ),
    Name(
        "joserfc",
        "JWSRegistry.algorithms",
        "1.8.0",
        "tokens are signed and verified without the JSON that jws would read once more",
        lambda: all(callable(getattr(JWSRegistry.algorithms["RS256"], name)) for name in ("sign", "verify")),
    ),
    Name(
        "joserfc",
        "OKPKey.raw_value",
        "1.8.0",
        "keys of another issuer are judged as cryptography's own",
        lambda: isinstance(OKPKey.generate_key("Ed25519").raw_value, Ed25519PrivateKey),
    ),
]


def _connection() -> OneTripConnection:
    connection = OneTripConnection()
    connection.stop()
    return connection


def _attributes(kind: type) -> set[str]:
    """What a class gives its instances, where to make one takes a server."""
    source = Path(import_module(kind.__module__).__file__ or "").read_text()
    return {
        node.attr
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self"
    }


@pytest.mark.parametrize("row", NAMES, ids=[f"{row.package} {row.name}" for row in NAMES])
def test_a_name_that_nobody_promises_is_still_there(row: Name) -> None:
    """As what we take it for."""
    try:
        found, how = row.look(), ""
    except (AttributeError, ImportError, LookupError, TypeError, ValueError) as error:
        found, how = None, f" ({error!r})"
    assert found, (
        f"{row.package} {version(row.package)} no longer has {row.name}, seen in {row.seen_in}: {row.why}{how}"
    )


async def test_sqlalchemys_adapter_and_our_connection_to_sqlite(tmp_path: Path) -> None:
    """It sets the isolation level by `_conn` and `_tx`, which we never ask it to, and an application may."""
    database = Database(f"sqlite:///{tmp_path / 'some.db'}")
    async with database.engine.connect() as connection:
        _ = await connection.execution_options(isolation_level="AUTOCOMMIT")
        driver = (await connection.get_raw_connection()).driver_connection
        assert isinstance(driver, OneTripConnection)
        assert isinstance(driver._tx, SimpleQueue)
        assert isinstance(driver._conn, sqlite3.Connection)
        assert driver.isolation_level is None
        assert await connection.scalar(sa.text("SELECT 'a' REGEXP 'a'")) == 1  # by `create_function`
    await database.close()


# --- found in our code ------------------------------------------------------------------------------------------------

# What the ASGI specification has, Starlette's documented "app", and our own.
_KNOWN_IN_SCOPE = {
    *("type", "asgi", "http_version", "method", "scheme", "path", "raw_path", "query_string", "root_path", "headers"),
    *("client", "server", "state", "extensions", "subprotocols", "app"),
}


def _is_private(name: str) -> bool:
    return name.startswith("_") and name.isidentifier() and not name.startswith("__") and name != "_"


def _own_private_names(tree: ast.AST) -> set[str]:
    """What a module of ours defines: functions, classes, names, and attributes of its own instances."""
    own: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                own.add(name)
            case ast.Name(id=name, ctx=ast.Store()):
                own.add(name)
            case ast.Attribute(attr=name, value=ast.Name(id="self" | "cls"), ctx=ast.Store()):
                own.add(name)
            case _:
                pass
    return {name for name in own if _is_private(name)}


def foreign_names(tree: ast.AST, ours: set[str]) -> Iterator[str]:
    """Return private names of others that a module uses, and keys of the scope that are in no specification."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr=name) if _is_private(name) and name not in ours:
                yield name
            case ast.Call(func=ast.Name(id="getattr" | "hasattr" | "setattr") | ast.Attribute(attr="setattr")):
                names = [each.value for each in node.args if isinstance(each, ast.Constant)]
                yield from (name for name in names if isinstance(name, str) and _is_private(name) and name not in ours)
            case ast.ImportFrom(module=str(module)) if not module.startswith("latchstring"):
                parts = [*module.split("."), *(alias.name for alias in node.names)]
                yield from filter(_is_private, parts)
            case ast.Import():
                parts = [part for alias in node.names for part in alias.name.split(".")]
                yield from filter(_is_private, parts)
            case (
                ast.Subscript(value=of, slice=ast.Constant(value=str(key)))
                | ast.Call(func=ast.Attribute(value=of, attr="get" | "pop"), args=[ast.Constant(value=str(key)), *_])
            ) if ast.unparse(of).endswith("scope") and key not in _KNOWN_IN_SCOPE:
                yield f'scope["{key}"]'
            case _:
                pass


def test_no_other_private_name_is_used() -> None:
    """What our code takes from others, and they promise nobody, is a row above."""
    trees = {path: ast.parse(path.read_text()) for path in SOURCES.rglob("*.py")}
    ours = set().union(*map(_own_private_names, trees.values()))
    rows = " ".join(row.name for row in NAMES)
    used = {
        f"{path.relative_to(SOURCES)}: {name}" for path, tree in trees.items() for name in foreign_names(tree, ours)
    }
    assert {each for each in used if each.partition(": ")[2] not in rows} == set()
    assert {each.partition(": ")[2] for each in used} == {"_iter_low_priority_routes", 'scope["app_root_path"]'}
    assert [str(path) for path in trees if "SLF001" in path.read_text()] == []


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("connection._receive", "_receive"),
        ("self._thread.daemon = True", "_thread"),
        ("super()._execute(1)", "_execute"),
        ("getattr(router, '_routes', ())", "_routes"),
        ("monkeypatch.setattr(router, '_routes', ())", "_routes"),
        ("from starlette._utils import is_async_callable", "_utils"),
        ("from fastapi.routing import _IncludedRouter", "_IncludedRouter"),
        ("import pydantic._internal", "_internal"),
        ("connection.scope['fastapi_inner_astack']", 'scope["fastapi_inner_astack"]'),
        ("scope.get('fastapi_inner_astack')", 'scope["fastapi_inner_astack"]'),
    ],
)
def test_a_private_name_is_found_however_it_is_written(code: str, name: str) -> None:
    """Those that this code once used among them."""
    assert list(foreign_names(ast.parse(code), ours=set())) == [name]
    assert list(foreign_names(ast.parse("self._own = scope['path']; self._own"), ours={"_own"})) == []


def test_no_class_of_ours_hides_a_private_name_of_its_base() -> None:
    """A subclass of somebody else's class must not give its own attribute a name that the base uses itself."""
    hidden: set[str] = set()
    for path in SOURCES.rglob("*.py"):
        if "migrations" in path.parts:
            continue  # no classes are there, and Alembic alone can import them
        module = import_module(".".join(path.relative_to(SOURCES.parent).with_suffix("").parts))
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                own = {name for name in _own_private_names(node) if name != node.name}
                bases = [
                    base for base in getattr(module, node.name).__mro__ if base.__module__.partition(".")[0] in _HOSTS
                ]
                theirs = {name for base in bases for name in (*vars(base), *_attributes(base))}
                hidden |= {f"{node.name}.{name}" for name in own & theirs}
    assert hidden == set()


_HOSTS = {"fastapi", "starlette", "sqlalchemy", "uvicorn", "pydantic", "jinja2", "typer", "click", "aiosqlite"}
