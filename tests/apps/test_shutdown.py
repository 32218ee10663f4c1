"""T14: SIGTERM loses no request. `/readyz` and responses say it first, then the port closes, idle connections last."""

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import AsyncIterator

import pytest
from starlette.types import Receive, Scope, Send

from latchstring.apps import shutdown
from latchstring.apps.shutdown import refuse_connections
from tests.support.connected import Client, Serving, serving
from tests.support.hang import HANG_SECONDS, until

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST_HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n"


class Application:
    """Says whether the server drains; a request waits while `may_respond` is not set."""

    def __init__(self) -> None:
        self.may_respond = asyncio.Event()
        self.may_respond.set()
        self.asked = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked += 1
        await self.may_respond.wait()
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        state = "draining" if scope["state"].get("draining") else "serving"
        await send({"type": "http.response.body", "body": f"<{state}>".encode()})


@pytest.fixture
def app() -> Application:
    return Application()


@contextlib.asynccontextmanager
async def draining(app: Application, *, closes_port: bool = True) -> AsyncIterator[Serving]:
    """A server whose pause is as long as a hang: a test ends it."""
    async with serving(app, drain_seconds=HANG_SECONDS, closes_port=closes_port) as served:
        yield served


async def drain(served: Serving) -> None:
    """Sends SIGTERM, and waits until it was noticed."""
    served.server.handle_exit(signal.SIGTERM, None)
    await until(lambda: served.server.lifespan.state)


def end_pause(served: Serving) -> None:
    served.server._drains_until = 0.0


async def until_refused(served: Serving) -> None:
    while not await is_refused(served):  # noqa: ASYNC110 -- it tells nobody
        await asyncio.sleep(0.01)


async def is_refused(served: Serving) -> bool:
    with socket.socket() as client:
        client.settimeout(0)
        try:
            async with asyncio.timeout(HANG_SECONDS):
                await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", served.port))
        except ConnectionRefusedError:
            return True
    return False


async def response(client: Client) -> tuple[str, bool]:
    """Returns what the application said, and whether the response says `Connection: close`."""
    received = await client.response()
    return "draining" if b"<draining>" in received else "serving", b"connection: close\r\n" in received


async def test_while_it_drains_everybody_is_served_and_told_to_close(app: Application) -> None:
    """Kept-alive, new and busy connections, with a body that comes late: each gets its response, and it says so."""
    async with draining(app) as served, served.client() as idle, served.client() as busy, served.client() as slow:
        await idle.send(GET)
        assert await response(idle) == ("serving", False)
        app.may_respond.clear()
        await busy.send(GET)
        await slow.send(POST_HEAD)
        await until(lambda: app.asked == 3)
        await drain(served)
        app.may_respond.set()
        assert await response(busy) == ("serving", True)  # asked before
        await slow.send(b"abc")
        assert await response(slow) == ("serving", True)
        await idle.send(GET)
        assert await response(idle) == ("draining", True)
        assert await idle.rest() == b""
        async with served.client() as new:
            await new.send(GET)
            assert await response(new) == ("draining", True)
        assert not served.running.done()


async def test_idle_connections_are_closed_after_the_port(app: Application) -> None:
    """A proxy that has just found the port closed may still use a connection that it has."""
    async with draining(app) as served, served.client() as idle:
        await idle.send(GET)
        await response(idle)
        await drain(served)
        assert len(served.server.server_state.connections) == 1
        end_pause(served)
        assert await idle.rest() == b""
        assert await is_refused(served)
        async with asyncio.timeout(HANG_SECONDS):
            await asyncio.shield(served.running)


async def test_a_connection_accepted_last_may_still_send_its_request(
    app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was accepted before the port was closed: a proxy is about to send a POST, and sends it to nobody else."""
    monkeypatch.setattr(shutdown, "NEW_CONNECTION_SECONDS", HANG_SECONDS)
    async with draining(app) as served, served.client() as new:
        await drain(served)
        await until(lambda: served.server.server_state.connections)
        end_pause(served)
        await until_refused(served)
        await new.send(POST_HEAD + b"abc")
        assert await response(new) == ("draining", True)
        async with asyncio.timeout(HANG_SECONDS):
            await asyncio.shield(served.running)


async def test_nobody_waits_for_a_connection_that_never_asks(app: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    """Browsers open connections in advance."""
    monkeypatch.setattr(shutdown, "NEW_CONNECTION_SECONDS", 0.01)
    async with draining(app) as served, served.client() as silent:
        await drain(served)
        end_pause(served)
        assert await silent.rest() == b""
        async with asyncio.timeout(HANG_SECONDS):
            await asyncio.shield(served.running)


async def test_a_second_sigterm_does_not_end_the_pause_but_sigint_does(app: Application) -> None:
    """A service manager may send SIGTERM to all processes, and the parent tells the workers. Ctrl-C means now."""
    async with draining(app) as served:
        await drain(served)
        before = served.server._drains_until
        served.server.handle_exit(signal.SIGTERM, None)
        assert served.server._drains_until == before
        assert not served.server.should_exit
        served.server.handle_exit(signal.SIGINT, None)
        async with asyncio.timeout(HANG_SECONDS / 2):
            await asyncio.shield(served.running)


async def test_the_second_sigint_does_not_wait_for_requests(app: Application) -> None:
    """As with uvicorn itself."""
    async with draining(app) as served, served.client() as busy:
        app.may_respond.clear()
        await busy.send(GET)
        await until(lambda: app.asked)
        served.server.handle_exit(signal.SIGINT, None)
        served.server.handle_exit(signal.SIGTERM, None)
        assert not served.server.force_exit
        served.server.handle_exit(signal.SIGINT, None)
        async with asyncio.timeout(HANG_SECONDS / 2):
            await asyncio.shield(served.running)
        app.may_respond.set()


async def test_without_a_pause_the_port_closes_at_once(app: Application) -> None:
    """`LATCHSTRING_SHUTDOWN_DRAIN_SECONDS=0`; the request in progress is completed all the same."""
    async with serving(app, drain_seconds=0) as served, served.client() as busy:
        app.may_respond.clear()
        await busy.send(GET)
        await until(lambda: app.asked)
        served.server.handle_exit(signal.SIGTERM, None)
        await until_refused(served)
        app.may_respond.set()
        assert await response(busy) == ("serving", True)
        async with asyncio.timeout(HANG_SECONDS):
            await asyncio.shield(served.running)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has filters on sockets")
def test_a_listening_socket_can_refuse_newcomers_and_keep_its_backlog() -> None:
    """What waits to be accepted is accepted and works; what comes later does not get in."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as late:
        listener.settimeout(0.2)
        with socket.create_connection(listener.getsockname(), timeout=HANG_SECONDS) as early:
            refuse_connections(listener)
            late.settimeout(0)
            late.connect_ex(listener.getsockname())
            accepted, _ = listener.accept()
            with accepted:
                early.sendall(b"abc")
                assert accepted.recv(3) == b"abc"
        with pytest.raises(TimeoutError):
            listener.accept()
        with pytest.raises(OSError, match=r"107|not connected"):
            late.getpeername()


async def test_a_worker_that_stops_alone_leaves_the_port_to_the_others(app: Application) -> None:
    """They share the socket."""
    async with draining(app, closes_port=False) as served:
        (listener,) = served.server.servers[0].sockets
        with socket.fromfd(listener.fileno(), listener.family, listener.type) as shared:
            await drain(served)
            end_pause(served)
            async with asyncio.timeout(HANG_SECONDS):
                await asyncio.shield(served.running)
            assert not await is_refused(served)
            shared.accept()[0].close()
