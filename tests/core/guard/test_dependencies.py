"""The dependencies of a host's routes: whom each lets in, over HTTP and WebSockets, and how tests replace them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated, Any
from uuid import UUID

import httpx2
import pytest
import uvicorn
import websockets
from fastapi import Depends, FastAPI, WebSocket, WebSocketDisconnect

from latchstring import (
    Caller,
    CallerDep,
    CurrentUser,
    OptionalUser,
    Settings,
    User,
    current_caller,
    current_user,
    fresh,
    optional_user,
    requires,
)
from latchstring.core.guard.sockets import CLOSED_TRY_AGAIN, CLOSED_UNAUTHORIZED
from latchstring.errors import UnavailableError
from latchstring.testing import ManualClock
from tests.support.backends import ON_SQLITE
from tests.support.hang import HANG_SECONDS, until
from tests.support.host import Host, Line

Admin = Annotated[Caller, Depends(requires(role="admin"))]


def add_routes(app: FastAPI) -> None:
    add_sockets(app)

    @app.get("/visitor")
    async def visitor(user: OptionalUser) -> str | None:
        return user.email if user else None

    @app.get("/admin")
    async def admin(caller: Admin) -> tuple[str, ...]:
        return caller.roles

    @app.get("/plain")
    def plain(user: CurrentUser, caller: CallerDep) -> list[str]:
        return [user.email, str(caller.user_id)]

    @app.get("/just-proven", dependencies=[Depends(fresh(minutes=5))])
    def just_proven() -> str:
        return "in"


def add_sockets(app: FastAPI) -> None:
    @app.websocket("/echo")
    async def echo(socket: WebSocket, caller: CallerDep) -> None:
        await socket.accept()
        await socket.send_text(str(caller.user_id))
        async for text in socket.iter_text():
            await socket.send_text(text)

    @app.websocket("/admins")
    async def admins(socket: WebSocket, _caller: Admin) -> None:
        await socket.accept()
        await socket.receive_text()

    @app.websocket("/visitors")
    async def visitors(socket: WebSocket, user: OptionalUser) -> None:
        await socket.accept()
        await socket.send_text(user.email if user else "nobody")
        await socket.receive_text()

    @app.websocket("/ticks")
    async def ticks(socket: WebSocket, _user: CurrentUser) -> None:
        await socket.accept()
        while True:  # until a send says that the other end is gone
            await socket.send_text("tick")
            await asyncio.sleep(0.005)


@pytest.fixture
async def host(settings: Settings, clock: ManualClock) -> AsyncIterator[Host]:
    host = Host(settings, clock)
    add_routes(host.app)
    async with host.auth.running():
        yield host


async def user_of(browser: httpx2.AsyncClient) -> UUID:
    return UUID((await browser.get("/auth/me")).json()["id"])


@ON_SQLITE
async def test_an_optional_user_is_none_where_nobody_is_signed_in(host: Host) -> None:
    """None where a guarded route would answer 401 or 404; all other refusals are refusals here, too."""
    ada, bob, eve = [await host.signed_in(f"{name}@example.com") for name in ("ada", "bob", "eve")]
    assert (await ada.get("/visitor")).json() == "ada@example.com"
    assert (await host.browser().get("/visitor")).json() is None
    assert (await host.browser(Authorization="Bearer a.b.c").get("/visitor")).json() is None
    kept = host.browser(Authorization=f"Bearer {bob.cookies['access_token']}")
    await bob.post("/auth/logout")
    assert (await kept.get("/visitor")).json() is None
    assert await host.auth.users.delete(await user_of(eve))
    assert (await eve.get("/visitor")).json() is None
    for headers, status in (
        ({"Authorization": "Bearer"}, 403),
        (
            {
                "Authorization": f"Bearer {bob.cookies.get('access_token', 'a.b.c')}",
                "Cookie": "access_token=a; access_token=b",
            },
            400,
        ),
        ({"Cookie": f"access_token={ada.cookies['access_token']}", "Origin": "https://evil.example"}, 403),
    ):
        assert (await host.browser(**headers).get("/visitor")).status_code == status
    host.clock.suspend(seconds=6)
    assert (await ada.get("/visitor")).status_code == 503
    await host.auth.parts.core.feed.poll()
    host.clock.advance(minutes=16)
    assert (await ada.get("/visitor")).json() is None


@ON_SQLITE
async def test_a_role_opens_what_asks_for_it(host: Host) -> None:
    """403 without it; 401 `You must refresh` once it is granted, and in after the refresh; out again when withdrawn."""
    ada = await host.signed_in()
    answer = await ada.get("/admin")
    assert (answer.status_code, answer.json()["detail"]) == (403, "This takes a role that you do not have.")
    assert (await host.browser().get("/admin")).status_code == 401
    user_id = await user_of(ada)
    granted = await host.auth.users.grant_role(user_id, "admin")
    assert granted is not None
    assert granted.roles == ("admin",)
    answer = await ada.get("/admin")
    assert (answer.status_code, answer.json()["detail"]) == (401, "You must refresh")
    assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    assert (await ada.post("/auth/refresh")).status_code == 200
    assert (await ada.get("/admin")).json() == ["admin"]
    await host.auth.users.withdraw_role(user_id, "admin")
    assert (await ada.get("/admin")).status_code == 401
    await ada.post("/auth/refresh")
    assert (await ada.get("/admin")).status_code == 403


@ON_SQLITE
async def test_in_routes_of_both_kinds(host: Host) -> None:
    """`def` and `async def` routes, as arguments and as dependencies of the decorator."""
    ada = await host.signed_in()
    assert (await ada.get("/plain")).json() == ["ada@example.com", str(await user_of(ada))]
    assert (await ada.get("/just-proven")).json() == "in"
    assert [(await host.browser().get(path)).status_code for path in ("/plain", "/just-proven")] == [401, 401]
    host.clock.advance(minutes=6)
    assert (await ada.get("/just-proven")).status_code == 401


@ON_SQLITE
async def test_they_are_overridden_as_any_dependency(host: Host) -> None:
    """By the object itself, or by an equal one: `fresh(minutes=5)` is `fresh(minutes=5)` wherever it is written."""
    ada = await host.signed_in()
    stored = await host.auth.users.get(await user_of(ada))
    assert stored is not None
    nobody = Caller(
        user_id=stored.id,
        session_id=stored.id,
        claims_version=1,
        epoch=0,
        roles=("admin",),
        methods=("pwd",),
        proven_at_unix=0,
        issued_at_unix=0,
        expires_at_unix=0,
    )
    for dependency, value in (
        (current_user, stored),
        (current_caller, nobody),
        (optional_user, stored),
        (fresh(minutes=5), nobody),
        (requires(role="admin"), nobody),
    ):
        host.app.dependency_overrides[dependency] = partial(_same, value)
    stranger = host.browser()
    assert (await stranger.get("/plain")).json() == ["ada@example.com", str(stored.id)]
    assert (await stranger.get("/visitor")).json() == "ada@example.com"
    assert (await stranger.get("/just-proven")).json() == "in"
    assert (await stranger.get("/admin")).json() == ["admin"]
    assert fresh(minutes=5) != fresh(minutes=6)
    assert requires(role="admin") != requires(role="editor")
    assert requires(role="admin") != host.auth.requires(role="admin")


def _same(value: object) -> object:
    return value


# --- WebSockets, over a real server ----------------------------------------------------------------------------------


class Served:
    """A host at a real address, for real WebSockets."""

    def __init__(self, host: Host, address: str) -> None:
        self.host, self.address = host, address

    def socket(self, path: str, token: str | None = None, **options: Any) -> websockets.connect:  # noqa: ANN401
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        headers |= options.pop("headers", {})
        return websockets.connect(f"ws://{self.address}{path}", additional_headers=headers, proxy=None, **options)


@pytest.fixture
async def served(host: Host) -> AsyncIterator[Served]:
    async with serving(host.app) as address:
        yield Served(host, address)


@contextlib.asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", log_config=None, ws="auto"))
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 -- uvicorn tells nobody
        await asyncio.sleep(0.005)
    host, port = server.servers[0].sockets[0].getsockname()
    yield f"{host}:{port}"
    server.should_exit = True
    await task


async def refusal(connecting: websockets.connect) -> tuple[int, str]:
    with pytest.raises(websockets.InvalidStatus) as refused:
        await connecting
    return refused.value.response.status_code, refused.value.response.body.decode()


async def closed(socket: websockets.ClientConnection) -> tuple[int, str]:
    """Returns how the server closes a socket."""
    async with asyncio.timeout(HANG_SECONDS):
        with contextlib.suppress(websockets.ConnectionClosed):
            while True:
                await socket.recv()
    return socket.close_code or 0, socket.close_reason or ""


@ON_SQLITE
async def test_a_socket_is_guarded_like_a_route(served: Served) -> None:
    """By bearer token or by cookie, the origin checked where it is a cookie; a refused handshake says why."""
    ada = await served.host.signed_in()
    token, user_id = ada.cookies["access_token"], str(await user_of(ada))
    async with served.socket("/echo", token) as socket:
        assert await socket.recv() == user_id
        await socket.send("hello")
        assert await socket.recv() == "hello"
    cookie = {"Cookie": f"access_token={token}"}
    async with served.socket("/echo", headers=cookie) as socket:
        assert await socket.recv() == user_id
    async with served.socket("/echo", headers=cookie, origin=f"http://{served.address}") as socket:
        assert await socket.recv() == user_id
    status, body = await refusal(served.socket("/echo", headers=cookie, origin="https://evil.example"))
    assert (status, "may not make it" in body) == (403, True)
    # A token that a page can't send by itself needs no such check.
    async with served.socket("/echo", token, origin="https://evil.example") as socket:
        assert await socket.recv() == user_id
    status, body = await refusal(served.socket("/echo"))
    assert (status, "You must refresh" in body) == (401, True)
    assert (await refusal(served.socket("/echo", "a.b.c")))[0] == 401
    assert (await refusal(served.socket("/admins", token)))[0] == 403
    async with served.socket("/visitors") as socket:
        assert await socket.recv() == "nobody"
    async with served.socket("/visitors", token) as socket:
        assert await socket.recv() == "ada@example.com"
    await served.host.auth.users.disable(UUID(user_id))
    assert (await refusal(served.socket("/echo", token)))[0] == 401


@ON_SQLITE
async def test_an_open_socket_is_told_and_closed_when_its_session_ends(served: Served) -> None:
    """Whoever waits for a message, and whoever only sends; other people's sockets stay open."""
    ada, bob = await served.host.signed_in("ada@example.com"), await served.host.signed_in("bob@example.com")
    token, others = ada.cookies["access_token"], bob.cookies["access_token"]
    async with (
        served.socket("/echo", token) as echo,
        served.socket("/ticks", token) as ticks,
        served.socket("/visitors", token) as visitors,
        served.socket("/echo", others) as theirs,
    ):
        assert await ticks.recv() == "tick"
        await ada.post("/auth/logout")
        for socket in (echo, ticks, visitors):
            assert await closed(socket) == (CLOSED_UNAUTHORIZED, "session_ended")
        assert await theirs.recv() == str(await user_of(bob))
        await theirs.send("still here")
        assert await theirs.recv() == "still here"
        await served.host.auth.users.delete(await user_of(bob))
        assert await closed(theirs) == (CLOSED_UNAUTHORIZED, "user_not_found")


async def test_an_open_socket_is_closed_when_another_worker_ends_its_session(
    served: Served, settings: Settings
) -> None:
    """As every worker refuses a request within a second, so it closes what is open."""
    ada = await served.host.signed_in()
    other = Host(settings, served.host.clock)
    async with other.auth.running(), served.socket("/echo", ada.cookies["access_token"]) as socket:
        assert await socket.recv()
        elsewhere = other.browser()
        elsewhere.cookies = ada.cookies
        await elsewhere.post("/auth/logout")
        assert await closed(socket) == (CLOSED_UNAUTHORIZED, "session_ended")


@ON_SQLITE
async def test_an_open_socket_of_a_role_is_closed_with_it(served: Served) -> None:
    """It must refresh, and come again with a token that says what is so now."""
    ada = await served.host.signed_in()
    user_id = await user_of(ada)
    await served.host.auth.users.grant_role(user_id, "admin")
    await ada.post("/auth/refresh")
    async with served.socket("/admins", ada.cookies["access_token"]) as socket:
        await served.host.auth.users.withdraw_role(user_id, "admin")
        assert await closed(socket) == (CLOSED_UNAUTHORIZED, "claims_changed")


@ON_SQLITE
async def test_an_open_socket_outlives_its_token_as_long_as_the_session_is_refreshed(served: Served) -> None:
    """The database is asked once in each token's life; a session that ended by itself takes its sockets along."""
    ada, bob = await served.host.signed_in("ada@example.com"), await served.host.signed_in("bob@example.com")
    sockets, clock = served.host.auth.parts.sockets, served.host.clock
    async with (
        served.socket("/echo", ada.cookies["access_token"]) as kept,
        served.socket("/echo", bob.cookies["access_token"]) as left,
    ):
        assert await kept.recv()
        for minutes in (30, 29):
            clock.advance(minutes=minutes)
            assert (await ada.post("/auth/refresh")).status_code == 200
            await sockets.recheck()
        await kept.send("after an hour")
        assert await kept.recv() == "after an hour"
        clock.advance(minutes=2)
        await sockets.recheck()
        clock.advance(minutes=15)
        await sockets.recheck()
        assert await closed(left) == (CLOSED_UNAUTHORIZED, "session_ended")
        await kept.send("still here")
        assert await kept.recv() == "still here"


@ON_SQLITE
async def test_an_open_socket_is_closed_when_the_worker_cant_know(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody stays in on stale knowledge: it says *try again later*."""
    ada = await served.host.signed_in()
    async with served.socket("/echo", ada.cookies["access_token"]) as socket:
        assert await socket.recv()

        async def away(*_: object, **__: object) -> str:
            raise TimeoutError

        monkeypatch.setattr("latchstring.core.revocations.store.revocations_cursor", away)
        monkeypatch.setattr("latchstring.core.revocations.store.revocations_since", away)
        served.host.clock.suspend(seconds=6)
        with pytest.raises(UnavailableError):
            await served.host.auth.parts.core.feed.poll()
        assert await closed(socket) == (CLOSED_TRY_AGAIN, "revocations_unknown")


@ON_SQLITE
async def test_a_session_that_ends_during_the_handshake(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the judgement and the socket's being watched its user is read, which takes a while."""
    ada = await served.host.signed_in()
    read = served.host.auth.guard.user

    async def slowly(caller: Caller) -> User:
        user = await read(caller)
        await ada.post("/auth/logout")
        return user

    monkeypatch.setattr(served.host.auth.guard, "user", slowly)
    token = ada.cookies["access_token"]
    with contextlib.suppress(websockets.InvalidStatus):
        socket = await served.socket("/ticks", token)
        assert await closed(socket) == (CLOSED_UNAUTHORIZED, "session_ended")


@ON_SQLITE
async def test_a_route_that_waits_only_a_while_loses_no_message(host: Host) -> None:
    """A message that comes as the time is over is there for the next who waits."""
    ada = await host.signed_in()
    heard: list[str] = []

    @host.app.websocket("/impatient")
    async def impatient(socket: WebSocket, _caller: CallerDep) -> None:
        await socket.accept()
        while len(heard) < 5:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0):
                    heard.append(await socket.receive_text())
            await asyncio.sleep(0)

    line = Line(host.app, "/impatient", ada.cookies["access_token"])
    assert (await line.heard())["type"] == "websocket.accept"
    for number in range(5):
        line.say(type="websocket.receive", text=str(number))
        await asyncio.sleep(0)
    async with asyncio.timeout(HANG_SECONDS):
        await line.task
    assert heard == ["0", "1", "2", "3", "4"]


@ON_SQLITE
async def test_a_client_and_a_server_that_ignore_the_end(host: Host) -> None:
    """Not every server stops a socket that was closed here before its client agrees: the route is over at once."""
    ada = await host.signed_in()
    line = Line(host.app, "/echo", ada.cookies["access_token"])
    assert (await line.heard())["type"] == "websocket.accept"
    assert (await line.heard())["text"] == str(await user_of(ada))
    ticks = Line(host.app, "/ticks", ada.cookies["access_token"])
    assert (await ticks.heard())["type"] == "websocket.accept"
    await ada.post("/auth/logout")
    closing = {"type": "websocket.close", "code": CLOSED_UNAUTHORIZED, "reason": "session_ended"}
    assert await line.heard() == closing
    line.say(type="websocket.receive", text="still here?")
    async with asyncio.timeout(HANG_SECONDS):
        await line.task
        # The one that only sends is told by its own send, as by a client that is gone.
        with pytest.raises(WebSocketDisconnect):
            await ticks.task
    assert line.is_silent


@ON_SQLITE
async def test_a_session_that_ends_by_itself_takes_its_sockets_along(settings: Settings, clock: ManualClock) -> None:
    """Not an access token's life later: the database is asked when it would end."""
    host = Host(Settings.model_validate(settings.model_dump() | {"refresh_token_expire_minutes": 16}), clock)
    add_routes(host.app)
    async with host.auth.running():
        ada = await host.signed_in()
        line = Line(host.app, "/echo", ada.cookies["access_token"])
        for _ in range(2):
            await line.heard()
        clock.advance(minutes=15.5)
        await host.auth.parts.sockets.recheck()
        assert line.is_silent
        clock.advance(minutes=1)
        await host.auth.parts.sockets.recheck()
        assert (await line.heard())["code"] == CLOSED_UNAUTHORIZED
        await line.task


@ON_SQLITE
async def test_a_running_worker_asks_about_its_sockets_by_itself(
    settings: Settings, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T38: nobody has to ask for it; one whose session ended by itself is closed by the next housekeeping."""
    monkeypatch.setattr("latchstring.foundation.housekeeping.INTERVAL_SECONDS", 0.02)
    host = Host(settings, clock)
    add_routes(host.app)
    async with host.auth.running():
        ada = await host.signed_in()
        line = Line(host.app, "/echo", ada.cookies["access_token"])
        for _ in range(2):
            await line.heard()
        clock.advance(minutes=61)
        async with asyncio.timeout(HANG_SECONDS):
            await line.task
        assert (await line.heard())["code"] == CLOSED_UNAUTHORIZED


async def test_however_many_sockets_are_due_each_is_asked_about(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """T38: those beyond a first page of them, too."""
    monkeypatch.setattr("latchstring.core.guard.sockets._PAGE_SIZE", 2)
    ada = await host.signed_in()
    lines = [Line(host.app, "/echo", ada.cookies["access_token"]) for _ in range(5)]
    for line in lines:
        for _ in range(2):
            await line.heard()
    host.clock.advance(minutes=61)
    await host.auth.parts.sockets.recheck()
    assert [(await line.heard())["code"] for line in lines] == [CLOSED_UNAUTHORIZED] * 5
    await asyncio.gather(*(line.task for line in lines))


@ON_SQLITE
async def test_a_route_that_is_over_waits_for_no_message(host: Host) -> None:
    """T38: it gave up waiting for one, and nothing of ours goes on waiting in its place."""
    ada = await host.signed_in()

    @host.app.websocket("/brief")
    async def brief(socket: WebSocket, _caller: CallerDep) -> None:
        await socket.accept()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0):
                await socket.receive_text()

    line = Line(host.app, "/brief", ada.cookies["access_token"])
    assert (await line.heard())["type"] == "websocket.accept"
    await line.task
    line.say(type="websocket.receive", text="for whoever comes next")
    for _ in range(10):
        await asyncio.sleep(0)
    assert not line._there.empty(), "somebody has taken it"


@ON_SQLITE
async def test_closed_sockets_are_forgotten(served: Served) -> None:
    """Nobody has to say when one is over, and nothing is kept of it."""
    ada = await served.host.signed_in()
    for _ in range(5):
        async with served.socket("/echo", ada.cookies["access_token"]) as socket:
            assert await socket.recv()
    await until(lambda: not served.host.auth.parts.sockets._connected)


def test_what_a_type_checker_sees() -> None:
    """The aliases are static: they can be used in a module that was imported before there was any Auth."""
    assert CallerDep.__metadata__[0].dependency is current_caller  # type: ignore[attr-defined]  # of the alias
    assert User in OptionalUser.__args__[0].__args__
