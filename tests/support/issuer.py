"""An application behind a real socket in the test's own process, so that a verifier can ask it over HTTP.

async with served(service.app) as door:
door.url                 where it is
door.asked               the paths asked for, in order
door.faults[path] = f    what answers there instead, an ASGI application
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send


@dataclass
class Door:
    """The application, and what stands before it."""

    app: ASGIApp
    url: str
    asked: list[str] = field(default_factory=list)
    faults: dict[str, ASGIApp] = field(default_factory=dict)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked.append(scope["path"])
        await self.faults.get(scope["path"], self.app)(scope, receive, send)


@contextlib.asynccontextmanager
async def served(app: ASGIApp) -> AsyncIterator[Door]:
    """Serves an application that is started already, on a free port of this machine."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        door = Door(app, f"http://127.0.0.1:{listener.getsockname()[1]}")
        server = uvicorn.Server(uvicorn.Config(door, lifespan="off", log_config=None, access_log=False, ws="none"))
        # Set up by hand, and not by `serve`, which would take the signals of the test run.
        server.config.load()
        server.lifespan = server.config.lifespan_class(server.config)
        await server.startup(sockets=[listener])
        task = asyncio.create_task(server.main_loop())
        try:
            yield door
        finally:
            server.should_exit = True
            server.force_exit = True
            await task
            await server.shutdown(sockets=[listener])
