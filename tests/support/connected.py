"""A server of `apps.shutdown` in the test's own process, and clients that write and read bytes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from latchstring.apps.connections import BoundedProtocol
from latchstring.apps.shutdown import DrainingServer
from tests.support.hang import HANG_SECONDS, until

_LOOK_SECONDS = 0.01


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Responds by path: `/read` reads the body, `/begin` reads it within its response, `/large` sends 20 MB."""
    path, size = scope["path"], 0
    start = {"type": "http.response.start", "status": 200, "headers": []}
    if path == "/begin":
        await send(start)
    while path in {"/read", "/begin"}:
        message = await receive()
        size += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    if path != "/begin":
        await send(start)
    body = (b"x" * 20_000_000 if path == "/large" else b"") + f"<{path} {size}>".encode()
    await send({"type": "http.response.body", "body": body})


@dataclass
class Client:
    """One connection, written to and read as bytes."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def response(self) -> bytes:
        """Returns one response, which the body of `app` ends."""
        async with asyncio.timeout(HANG_SECONDS):
            return await self.reader.readuntil(b">\r\n0\r\n\r\n")

    async def rest(self, *, drip: bytes = b"") -> bytes:
        """Returns everything until the server ends the connection; meanwhile sends `drip` again and again."""
        reading = asyncio.create_task(self.reader.read())
        async with asyncio.timeout(HANG_SECONDS):
            while not reading.done():
                with contextlib.suppress(ConnectionError):
                    await self.send(drip)
                await asyncio.wait([reading], timeout=_LOOK_SECONDS)
            with contextlib.suppress(ConnectionError):
                return await reading
        return b""


@dataclass
class Serving:
    """A server in this process."""

    server: DrainingServer
    port: int
    running: asyncio.Task[None]

    @contextlib.asynccontextmanager
    async def client(self, *, keep_alive: float = HANG_SECONDS) -> AsyncIterator[Client]:
        """Connects; the server keeps this connection for so long without a request."""
        # Whole seconds, says uvicorn; a test has no time.
        self.server.config.timeout_keep_alive = keep_alive  # type: ignore[assignment]
        known = set(self.server.server_state.connections)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            # The server reads the time when it accepts.
            await until(lambda: set(self.server.server_state.connections) - known)
            yield Client(reader, writer)
        finally:
            writer.close()

    async def has_no_connection(self) -> None:
        """Waits until the server has closed all, whatever their clients do."""
        await until(lambda: not self.server.server_state.connections)


@contextlib.asynccontextmanager
async def serving(
    application: ASGIApp = app, *, drain_seconds: float = 0, closes_port: bool = True
) -> AsyncIterator[Serving]:
    """Serves an application on a free port."""
    config = uvicorn.Config(application, port=0, http=BoundedProtocol, ws="none", log_config=None, lifespan="off")
    listener = config.bind_socket()
    server = DrainingServer(config, drain_seconds=drain_seconds, closes_port=closes_port)
    running = asyncio.create_task(server.serve([listener]))
    port: int = listener.getsockname()[1]
    try:
        await until(lambda: server.started)
        yield Serving(server, port, running)
    finally:
        server.stop()
        server.force_exit = True
        await running
        listener.close()
