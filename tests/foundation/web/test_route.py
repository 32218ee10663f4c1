"""PrefixRouter: it answers as FastAPI's own router would, and has fewer routes tried."""

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from starlette.routing import Match
from starlette.types import Scope

from latchstring.foundation.web.route import PrefixRouter

_METHODS = ("GET", "HEAD", "POST", "DELETE", "OPTIONS")
_PATHS = (
    "/a/one",
    "/a/one/",
    "/a/shared",
    "/a/items",
    "/a/items/",
    "/a/items/1",
    "/a/items/1/2",
    "/a/files/x/y",
    "/a/numbers/1",
    "/a/numbers/one",
    "/a/nothing",
    "/b/one",
    "/one",
    "/",
)


def _groups() -> list[tuple[str, list[APIRouter]]]:
    first, second, last = APIRouter(), APIRouter(), APIRouter()
    first.get("/one")(lambda: "one")
    first.post("/shared")(lambda: "posted")
    first.get("/items")(lambda: "items")
    first.delete("/items/{name}")(_named)
    second.get("/shared")(lambda: "got")
    second.get("/items/{name}")(_named)
    second.get("/files/{name:path}")(_named)
    second.get("/numbers/{name:int}")(_named)
    last.get("/one")(lambda: "last")
    return [("/a", [first, second]), ("/b", [last])]


def _named(name: str) -> str:
    return name


def test_it_answers_as_routers_of_fastapi_do() -> None:
    """Paths, methods, parameters, converters, 404, 405 with its `Allow`, and redirects to a path without its slash."""
    ours, plain = FastAPI(), FastAPI()
    for prefix, routers in _groups():
        ours.include_router(PrefixRouter(prefix, routers), prefix=prefix)
    for prefix, routers in _groups():
        together = APIRouter()
        together.routes.extend(route for router in routers for route in router.routes)
        plain.include_router(together, prefix=prefix)
    clients = [TestClient(app, follow_redirects=False) for app in (ours, plain)]
    for path in _PATHS:
        for method in _METHODS:
            answers = [client.request(method, path) for client in clients]
            seen = [
                (each.status_code, each.text, each.headers.get("allow"), each.headers.get("location"))
                for each in answers
            ]
            assert seen[0] == seen[1], (method, path)


@pytest.mark.parametrize("path", ["/keys", "/keys/7"])
def test_a_request_tries_the_routes_of_its_own_group_alone(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The keys and the pages come last: they must not wait for all routes before them to be tried."""
    before, after = APIRouter(), APIRouter()
    for number in range(20):
        before.get(f"/route{number}")(lambda: None)
        before.get(f"/route{number}/{{name}}")(_named)
    after.get("/keys")(lambda: "keys")
    after.get("/keys/{name}")(_named)
    app = FastAPI(openapi_url=None)
    app.include_router(PrefixRouter("/auth", [before]), prefix="/auth")
    app.include_router(PrefixRouter("", [after]))
    tried = []
    matches = APIRoute.matches

    def counted(route: APIRoute, scope: Scope) -> tuple[Match, Scope]:
        tried.append(route.path)
        return matches(route, scope)

    monkeypatch.setattr(APIRoute, "matches", counted)
    assert TestClient(app).get(path).status_code == 200
    assert set(tried) <= {"/keys", "/keys/{name}"}
    tried.clear()
    assert TestClient(app).get("/of-the-application").status_code == 404
    assert tried == []
