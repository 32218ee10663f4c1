"""The guard before what is no route of FastAPI's: static files, mounted applications, sockets below them."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket

from latchstring import Caller, GuardMiddleware, Settings
from latchstring.core.guard.sockets import CLOSED_UNAUTHORIZED
from latchstring.testing import ManualClock
from tests.support.backends import ON_SQLITE
from tests.support.hang import HANG_SECONDS
from tests.support.host import Host, Line


async def who(request: Request) -> Response:
    caller: Caller = request.state.caller
    return PlainTextResponse(str(caller.user_id), headers=dict(request.query_params))


async def echo(socket: WebSocket) -> None:
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(text)


def mounted() -> Starlette:
    return Starlette(routes=[Route("/who", who, methods=["GET", "POST"]), WebSocketRoute("/echo", echo)])


@pytest.fixture
async def host(settings: Settings, clock: ManualClock, tmp_path: Path) -> AsyncIterator[Host]:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "report.txt").write_text("for your eyes only")
    host = Host(settings, clock)
    host.app.mount("/files", host.auth.protect(StaticFiles(directory=tmp_path / "files")))
    host.app.mount("/inner", host.auth.protect(mounted()))
    host.app.mount("/admin", host.auth.protect(mounted(), role="admin"))
    async with host.auth.running():
        yield host


@ON_SQLITE
async def test_static_files_are_for_callers_only(host: Host) -> None:
    """What a guarded route refuses is refused here, in problem+json; what is served no shared cache may keep."""
    ada = await host.signed_in()
    answer = await ada.get("/files/report.txt")
    assert (answer.status_code, answer.text) == (200, "for your eyes only")
    assert answer.headers["cache-control"] == "private, no-cache"
    again = await ada.get("/files/report.txt", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.headers["cache-control"]) == (304, "private, no-cache")
    assert (await ada.get("/files/nothing.txt")).status_code == 404
    cookie = f"access_token={ada.cookies['access_token']}"
    for browser, status, code in (
        (host.browser(), 401, "missing_token"),
        (host.browser(Authorization="Bearer"), 403, "invalid_authorization_header"),
        (host.browser(Authorization="Bearer a.b.c"), 401, "invalid_token"),
        (host.browser(Cookie=cookie, Origin="https://evil.example"), 403, "origin_not_allowed"),
    ):
        for path in ("/files/report.txt", "/files/nothing.txt", "/files/../files/report.txt"):
            answer = await browser.get(path)
            assert (answer.status_code, answer.json()["code"]) == (status, code)
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.headers["cache-control"] == "no-store"
            assert ("www-authenticate" in answer.headers) == (status == 401)
    kept = host.browser(Authorization=f"Bearer {ada.cookies['access_token']}")
    await ada.post("/auth/logout")
    assert (await kept.get("/files/report.txt")).json()["code"] == "session_ended"
    host.clock.suspend(seconds=6)
    assert (await kept.get("/files/report.txt")).status_code == 503


@ON_SQLITE
async def test_a_mounted_application_finds_its_caller(host: Host) -> None:
    """As `request.state.caller`; a method that changes something takes an origin of ours; its own cache words stay."""
    ada = await host.signed_in()
    user_id = (await ada.get("/auth/me")).json()["id"]
    assert (await ada.get("/inner/who")).text == user_id
    assert (await ada.post("/inner/who")).text == user_id
    assert (await ada.post("/inner/who", headers={"Sec-Fetch-Site": "cross-site"})).status_code == 403
    answer = await ada.get("/inner/who?Cache-Control=max-age%3D60")
    assert answer.headers.get_list("cache-control") == ["max-age=60"]


@ON_SQLITE
async def test_a_state_that_all_requests_share_is_left_alone(settings: Settings, clock: ManualClock) -> None:
    """What the lifespan gave is there for the mounted application, and no caller is left in it."""
    host, shared = Host(settings, clock), {"colour": "green"}
    seen: list[str] = []

    async def look(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 -- ASGI's own
        seen.append(scope["state"]["colour"])
        await PlainTextResponse(str(scope["state"]["caller"].user_id))(scope, receive, send)

    guarded = host.auth.protect(look)

    async def serve(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 -- ASGI's own
        await guarded({**scope, "state": shared}, receive, send)

    host.app.mount("/shared", serve)
    async with host.auth.running():
        assert (await (await host.signed_in()).get("/shared/")).status_code == 200
    assert (seen, shared) == (["green"], {"colour": "green"})


@ON_SQLITE
async def test_a_role_may_be_asked_for(host: Host) -> None:
    """403 without it, and in with it."""
    ada = await host.signed_in()
    answer = await ada.get("/admin/who")
    assert (answer.status_code, answer.json()["code"]) == (403, "role_required")
    (user,) = await host.auth.users.list()
    await host.auth.users.grant_role(user.id, "admin")
    await ada.post("/auth/refresh")
    assert (await ada.get("/admin/who")).status_code == 200


@ON_SQLITE
async def test_as_an_applications_middleware(settings: Settings, clock: ManualClock) -> None:
    """Around everything, where nothing is to be open; the lifespan passes through."""
    host = Host(settings, clock)
    began: list[str] = []

    async def lifespan(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 -- ASGI's own
        began.append(scope["type"])

    app = Starlette(routes=[Route("/who", who)], middleware=[Middleware(GuardMiddleware, guard=host.auth.guard)])
    host.app.mount("/all", app)
    await GuardMiddleware(lifespan, guard=host.auth.guard)({"type": "lifespan"}, _never, _never)
    assert began == ["lifespan"]
    async with host.auth.running():
        ada = await host.signed_in()
        assert (await ada.get("/all/who")).status_code == 200
        assert (await host.browser().get("/all/who")).status_code == 401


async def _never(*_: object) -> Any:  # noqa: ANN401 -- ASGI's own
    raise AssertionError


@ON_SQLITE
async def test_sockets_below_a_mount(host: Host) -> None:
    """Guarded, told and closed when the session ends; a refused handshake says why where the server can."""
    ada = await host.signed_in()
    token = ada.cookies["access_token"]
    refused = Line(host.app, "/inner/echo", None)
    assert (await refused.heard())["status"] == 401
    assert b"missing_token" in (await refused.heard())["body"]
    bare = Line(host.app, "/inner/echo", None, denial=False)
    assert await bare.heard() == {"type": "websocket.close", "code": 1008, "reason": "missing_token"}
    line = Line(host.app, "/inner/echo", token)
    assert (await line.heard())["type"] == "websocket.accept"
    line.say(type="websocket.receive", text="hello")
    assert (await line.heard())["text"] == "hello"
    await ada.post("/auth/logout")
    assert await line.heard() == {"type": "websocket.close", "code": CLOSED_UNAUTHORIZED, "reason": "session_ended"}
    # The client does not care, and its server neither: the route hears of the end all the same, and nothing else.
    line.say(type="websocket.receive", text="still here?")
    async with asyncio.timeout(HANG_SECONDS):
        await asyncio.gather(refused.task, bare.task, line.task)
    assert line.is_silent
    assert not host.auth.parts.sockets._connected
