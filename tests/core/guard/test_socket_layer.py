"""The ASGI layer by which guards watch WebSockets: where it stands, what passes it, and what is refused without it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, HTTPException, WebSocket, WebSocketException
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from latchstring import Caller, CallerDep, CurrentUser, Settings, current_caller, requires
from latchstring.core.guard.socket_layer import SocketLayer
from latchstring.core.guard.sockets import CLOSED_UNAUTHORIZED
from latchstring.errors import ConfigurationError
from latchstring.testing import ManualClock
from tests.support.hang import HANG_SECONDS
from tests.support.host import Host, Line

CLOSING = {"type": "websocket.close", "code": CLOSED_UNAUTHORIZED, "reason": "session_ended"}


@pytest.fixture
async def host(settings: Settings, clock: ManualClock) -> AsyncIterator[Host]:
    host = Host(settings, clock)
    async with host.auth.running():
        yield host


async def echo(socket: WebSocket) -> None:
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(text)


def with_guarded_echo(app: FastAPI) -> FastAPI:
    @app.websocket("/echo")
    async def guarded(socket: WebSocket, _caller: CallerDep) -> None:
        await echo(socket)

    return app


async def closed_with_the_session(host: Host, path: str, *, guards: int = 1) -> None:
    """Opens a socket, uses it, ends its session, and hears one close of each guard; a server takes the first."""
    ada = await host.signed_in()
    line = Line(host.app, path, ada.cookies["access_token"])
    assert (await line.heard())["type"] == "websocket.accept"
    line.say(type="websocket.receive", text="hello")
    assert (await line.heard())["text"] == "hello"
    await ada.post("/auth/logout")
    assert await line.heard() == CLOSING
    async with asyncio.timeout(HANG_SECONDS):
        await line.task
    for _ in range(1, guards):
        if not line.is_silent:
            assert await line.heard() == CLOSING
    assert line.is_silent
    assert not host.auth.parts.sockets._connected


class Noting:
    """A host's own middleware, which notes what passes."""

    def __init__(self, app: ASGIApp, *, notes: list[str]) -> None:
        self.app = app
        self.notes = notes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            self.notes.append(message["type"])
            await send(message)

        await self.app(scope, receive, sending)


async def test_the_hosts_middleware_sees_the_close_whenever_it_was_added(host: Host) -> None:
    """Before `install` or after it: the layer is inside of both."""
    before: list[str] = []
    after: list[str] = []
    app = with_guarded_echo(FastAPI())
    app.add_middleware(Noting, notes=before)
    host.auth.attach(app)
    app.add_middleware(Noting, notes=after)
    host.app.mount("/other", app)
    await closed_with_the_session(host, "/other/echo")
    assert before == after == ["websocket.accept", "websocket.send", "websocket.close"]


async def test_an_application_that_has_begun_to_serve_can_be_attached(host: Host) -> None:
    """Its middleware stack is built by then, and Starlette would refuse any more middleware."""
    app = with_guarded_echo(FastAPI())
    host.app.mount("/late", app)
    await host.browser().get("/late/anything")
    assert app.middleware_stack is not None
    host.auth.attach(app)
    await closed_with_the_session(host, "/late/echo")


async def test_applications_in_one_another(host: Host) -> None:
    """Attached in attached, protected around a guard of ours: the socket is closed, and nothing stays of it."""
    middle, inner = FastAPI(), with_guarded_echo(FastAPI())
    for app in (middle, inner):
        host.auth.attach(app)
    middle.mount("/inner", host.auth.protect(inner))
    host.app.mount("/middle", middle)
    await closed_with_the_session(host, "/middle/inner/echo", guards=2)


async def test_two_guards_of_one_route(host: Host) -> None:
    """Each watches, one inside the other."""

    @host.app.websocket("/twice", dependencies=[Depends(current_caller)])
    async def twice(socket: WebSocket, _user: CurrentUser) -> None:
        await echo(socket)

    await closed_with_the_session(host, "/twice", guards=2)


async def test_a_plain_starlette_application(host: Host) -> None:
    """It has no dependencies: its routes ask the guard themselves, and are watched all the same."""

    async def guarded(socket: WebSocket) -> None:
        await current_caller(socket)
        await echo(socket)

    plain = Starlette(routes=[WebSocketRoute("/echo", guarded)])
    host.auth.attach(plain)
    host.app.mount("/plain", plain)
    await closed_with_the_session(host, "/plain/echo")


async def test_where_no_layer_is_a_guard_lets_nobody_in(host: Host) -> None:
    """A socket that can't be watched would outlive its session: said in words, and never accepted."""
    app = FastAPI()

    @app.websocket("/echo")
    async def guarded(socket: WebSocket, _caller: Annotated[Caller, Depends(host.auth.current_caller)]) -> None:
        await echo(socket)

    ada = await host.signed_in()
    line = Line(app, "/echo", ada.cookies["access_token"])
    with pytest.raises(ConfigurationError, match=r"auth\.install\(app\), or auth\.attach\(app\)"):
        await line.task
    assert line.is_silent
    host.auth.attach(app)
    line = Line(app, "/echo", ada.cookies["access_token"])
    assert (await line.heard())["type"] == "websocket.accept"
    line.say(type="websocket.disconnect", code=1000)
    await line.task


async def test_a_guard_that_knows_its_auth_below_a_mount(host: Host) -> None:
    """The application around it has the layer; or `protect`, where that has none either."""
    inner = FastAPI()

    @inner.websocket("/echo")
    async def guarded(socket: WebSocket, _caller: Annotated[Caller, Depends(host.auth.current_caller)]) -> None:
        await echo(socket)

    host.app.mount("/inner", inner)
    await closed_with_the_session(host, "/inner/echo")
    bare = FastAPI()
    bare.mount("/protected", host.auth.protect(inner))
    ada = await host.signed_in("bob@example.com")
    line = Line(bare, "/protected/echo", ada.cookies["access_token"])
    assert (await line.heard())["type"] == "websocket.accept"
    await ada.post("/auth/logout")
    assert await line.heard() == CLOSING
    await line.task


@pytest.mark.parametrize("is_accepted", [False, True])
async def test_what_a_route_raises_reaches_the_client(is_accepted: bool, host: Host) -> None:  # noqa: FBT001
    """Starlette answers it by the `send` that the layer gave out."""

    @host.app.websocket("/raising")
    async def raising(socket: WebSocket, _caller: CallerDep) -> None:
        if is_accepted:
            await socket.accept()
            raise WebSocketException(4000, "enough")
        raise HTTPException(402)

    ada = await host.signed_in()
    line = Line(host.app, "/raising", ada.cookies["access_token"])
    async with asyncio.timeout(HANG_SECONDS):
        await line.task
    if is_accepted:
        assert (await line.heard())["type"] == "websocket.accept"
        assert await line.heard() == {"type": "websocket.close", "code": 4000, "reason": "enough"}
    else:
        assert (await line.heard())["status"] == 402
    assert not host.auth.parts.sockets._connected


async def test_a_guard_that_a_test_replaced_watches_nothing(host: Host) -> None:
    """`dependency_overrides` puts something else in its place, layer or no layer."""

    @host.app.websocket("/admins", dependencies=[Depends(requires(role="admin"))])
    async def admins(socket: WebSocket) -> None:
        await echo(socket)

    host.app.dependency_overrides[requires(role="admin")] = lambda: None
    line = Line(host.app, "/admins", None)
    assert (await line.heard())["type"] == "websocket.accept"
    assert not host.auth.parts.sockets._connected
    line.say(type="websocket.disconnect", code=1000)
    await line.task


async def test_an_http_request_passes_as_it_is() -> None:
    """The application's own awaitable comes back: an HTTP request pays for one comparison, not for a coroutine."""

    async def nothing() -> None: ...

    awaitable = nothing()
    given: list[object] = []

    def app(*arguments: Any) -> Awaitable[None]:  # noqa: ANN401 -- ASGI's own
        given.extend(arguments)
        return awaitable

    async def receive() -> Message:
        raise AssertionError

    async def send(_message: Message) -> None: ...

    for kind in ("http", "lifespan"):
        scope = {"type": kind}
        assert SocketLayer(app)(scope, receive, send) is awaitable
        assert given == [{"type": kind}, receive, send]
        assert given[0] is scope
        given.clear()
    await awaitable
