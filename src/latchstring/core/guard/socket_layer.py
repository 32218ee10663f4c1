"""The layer below which a guard can watch a WebSocket: a pure ASGI application around another one's router.

A guard is a dependency. When it runs, the route's WebSocket already holds a `receive` and a `send`, and neither FastAPI
nor Starlette has a public way to replace them. This layer hands on a pair that looks up, at each call, whom to call:

    server ── layer ── router ── route         before a guard has run
    server ── ConnectedSocket ── layer ── router ── route       afterwards

It stands around the router and not among the middleware. There it is inside all of the application's own middleware,
whenever that is added, so that each sees the close of a socket; and it needs no middleware stack that is not built yet.
"""

import contextlib
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager

from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from latchstring.core.guard.sockets import ConnectedSocket
from latchstring.errors import ConfigurationError

_SCOPE_KEY = "latchstring.socket"


class WatchableSocket:
    """The `receive` and `send` of one WebSocket, between which and the server a guard can stand."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._watches = contextlib.ExitStack()

    def receive(self) -> Awaitable[Message]:
        """Return the client's next message."""
        return self._receive()

    def send(self, message: Message) -> Awaitable[None]:
        """Send a message to the client."""
        return self._send(message)

    def watch(self, watching: Callable[[Receive, Send], AbstractContextManager[ConnectedSocket]]) -> None:
        """Watch until the application returns; two guards of one route watch one inside the other."""
        socket = self._watches.enter_context(watching(self._receive, self._send))
        self._receive, self._send = socket.receive, socket.send

    def close(self) -> None:
        """End every watch."""
        self._watches.close()


class SocketLayer:
    """Passes everything on; a WebSocket with its `WatchableSocket` in the scope."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Return the application's own awaitable, so that an HTTP request pays for one comparison and no coroutine."""
        if scope["type"] != "websocket":
            return self.app(scope, receive, send)
        return self._with_socket(scope, receive, send)

    async def _with_socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Mounted applications each have a layer of their own: by the outer one's, a close would go past the
        # middleware that stands between them.
        socket = scope[_SCOPE_KEY] = WatchableSocket(receive, send)
        try:
            await self.app(scope, socket.receive, socket.send)
        finally:
            socket.close()


def add_socket_layer(app: Starlette) -> None:
    """Let guards watch the WebSockets of an application, whether it has begun to serve or not."""
    router = app.router
    router.middleware_stack = SocketLayer(router.middleware_stack)  # type: ignore[assignment]  # it is awaited, no more


def watchable_socket(connection: HTTPConnection) -> WatchableSocket:
    """Return what a guard of this WebSocket watches it by.

    Raises:
        ConfigurationError: no layer is around the application, and a guard that can't watch lets nobody in.
    """
    socket = connection.scope.get(_SCOPE_KEY)
    if not isinstance(socket, WatchableSocket):
        raise ConfigurationError(
            "a guarded WebSocket can't be watched here: call auth.install(app), or auth.attach(app) where it is mounted"
        )
    return socket
