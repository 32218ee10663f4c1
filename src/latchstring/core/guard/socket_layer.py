"""The ASGI layer through which a guard watches a WebSocket. It wraps the application's router.

A guard is a dependency. When it runs, the route's WebSocket already has its `receive` and `send`, and neither FastAPI
nor Starlette has a public way to replace them. This layer passes on a pair whose target can be replaced later:

    server ── layer ── router ── route         before a guard has run
    server ── ConnectedSocket ── layer ── router ── route       afterwards

It wraps the router, and is not added as middleware. So all of an attached application's own middleware is outside of
it, whenever that was added, and sees the close of a socket; and an application that is already serving can be attached.
In a mounted application that is not attached, the layer of the outer one watches, and closes past the middleware of the
inner one.
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
    """The `receive` and `send` of one WebSocket, which a guard can replace by watched ones."""

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
        """Watch the socket until the application returns. Two guards of one route each watch it, nested."""
        socket = self._watches.enter_context(watching(self._receive, self._send))
        self._receive, self._send = socket.receive, socket.send

    def close(self) -> None:
        """End every watch."""
        self._watches.close()


class SocketLayer:
    """Passes every request on; puts a `WatchableSocket` into the scope of a WebSocket."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Pass a request to the application."""
        # Not `async`: the application's own awaitable is returned, so that HTTP pays for no further coroutine.
        if scope["type"] != "websocket":
            return self.app(scope, receive, send)
        return self._with_socket(scope, receive, send)

    async def _with_socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        # A mounted application's layer replaces the outer one's entry: a close sent through the outer layer would not
        # pass the middleware between the two.
        socket = scope[_SCOPE_KEY] = WatchableSocket(receive, send)
        try:
            await self.app(scope, socket.receive, socket.send)
        finally:
            socket.close()


def add_socket_layer(app: Starlette) -> None:
    """Let guards watch the WebSockets of an application, which may already be serving."""
    # `middleware_stack` is public by its name and not documented. A test fails when it is gone (decision 19).
    router = app.router
    router.middleware_stack = SocketLayer(router.middleware_stack)  # type: ignore[assignment]  # Starlette only awaits it


def watchable_socket(connection: HTTPConnection) -> WatchableSocket:
    """Return the `WatchableSocket` of a connection.

    Raises:
        ConfigurationError: the application's router has no `SocketLayer`.
    """
    # Fail closed: a WebSocket that nothing watches would outlive its session.
    socket = connection.scope.get(_SCOPE_KEY)
    if not isinstance(socket, WatchableSocket):
        raise ConfigurationError(
            "a guarded WebSocket can't be watched here: call auth.install(app), or auth.attach(app) where it is mounted"
        )
    return socket
