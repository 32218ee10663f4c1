"""The guard for mounted applications and static files, which have no dependencies. Pure ASGI.

    app.mount("/files", auth.protect(StaticFiles(directory="files")))

It refuses what a guarded route refuses. The guarded application finds the caller in `request.state.caller`.
"""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from latchstring.core.guard.decide import Guard
from latchstring.core.guard.socket_layer import SocketLayer
from latchstring.foundation.web.problem import ProblemError, problem_response

_DENIAL = "websocket.http.response"


class GuardMiddleware:
    """Passes the requests of callers to another application, and refuses all others.

    Responses without `Cache-Control` get `private, no-cache` (RFC 9111): shared caches must not store them, and a
    browser revalidates its copy before it shows it.
    """

    def __init__(self, app: ASGIApp, *, guard: Guard, role: str | None = None) -> None:
        """Guard `app`.

        Args:
            app: the ASGI application to guard.
            guard: `auth.guard`.
            role: the role that callers must have; None requires no role.
        """
        self.app = app
        self.role = role
        self._guard = guard
        # A guard of a route inside `app` needs this layer, as it does in an application that `auth` is attached to.
        self._sockets = SocketLayer(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on the request of a caller; refuse any other with problem+json."""
        if scope["type"] not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        try:
            if self.role is None:
                caller = await self._guard.caller(scope)
            else:
                caller = await self._guard.caller_with_role(scope, role=self.role)
        except ProblemError as problem:
            await _refuse(scope, receive, send, problem)
            return
        # A copy: some servers pass one state to all requests, and each would see the caller of another one.
        scope["state"] = {**scope.get("state", {}), "caller": caller}
        if scope["type"] == "websocket":
            with self._guard.watching(caller, receive, send) as socket:
                await self._sockets(scope, socket.receive, socket.send)
            return

        async def send_privately(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message.setdefault("headers", [])
                # A cache that stores a file for one visitor would serve it to others, or after the sign-out.
                if not any(name.lower() == b"cache-control" for name, _ in headers):
                    message["headers"] = [*headers, (b"cache-control", b"private, no-cache")]
            await send(message)

        await self.app(scope, receive, send_privately)


async def _refuse(scope: Scope, receive: Receive, send: Send, problem: ProblemError) -> None:
    if scope["type"] == "websocket" and _DENIAL not in scope.get("extensions", {}):
        # Without ASGI's denial response extension: a close before the accept becomes 403. 1008 is RFC 6455's code.
        await send({"type": "websocket.close", "code": 1008, "reason": problem.code.value})
        return
    await problem_response(scope, problem.code, headers=problem.headers)(scope, receive, send)
