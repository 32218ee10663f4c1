"""The guard for what is no route of FastAPI's: a mounted application, static files. Pure ASGI.

    app.mount("/files", auth.protect(StaticFiles(directory="files")))

Below it nobody is let in whom a guarded route would refuse. The caller is there as `request.state.caller`.
"""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from latchstring.core.guard.decide import Guard
from latchstring.core.guard.socket_layer import SocketLayer
from latchstring.foundation.web.problem import ProblemError, problem_response

_DENIAL = "websocket.http.response"


class GuardMiddleware:
    """Lets callers through to another application, and answers everybody else itself.

    Answers that say nothing of caches are marked `private, no-cache`: no cache on the way may keep them for somebody
    else, and a browser asks again before it shows its copy.
    """

    def __init__(self, app: ASGIApp, *, guard: Guard, role: str | None = None) -> None:
        """Guard `app`.

        Args:
            app: what is to be guarded.
            guard: `auth.guard`.
            role: which role its callers must have; None: any, or none.
        """
        self.app = app
        self.role = role
        self._guard = guard
        # A guard inside `app` watches from there, as it does in an application that `auth` was attached to.
        self._sockets = SocketLayer(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a caller's request on; refuse all others with problem+json."""
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
        # A state of its own: a server that hands one to all requests would show each the other's caller.
        scope["state"] = {**scope.get("state", {}), "caller": caller}
        if scope["type"] == "websocket":
            with self._guard.watching(caller, receive, send) as socket:
                await self._sockets(scope, socket.receive, socket.send)
            return

        async def send_privately(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message.setdefault("headers", [])
                if not any(name.lower() == b"cache-control" for name, _ in headers):
                    message["headers"] = [*headers, (b"cache-control", b"private, no-cache")]
            await send(message)

        await self.app(scope, receive, send_privately)


async def _refuse(scope: Scope, receive: Receive, send: Send, problem: ProblemError) -> None:
    if scope["type"] == "websocket" and _DENIAL not in scope.get("extensions", {}):
        # A server that can't answer a handshake makes 403 of this.
        await send({"type": "websocket.close", "code": 1008, "reason": problem.code.value})
        return
    await problem_response(scope, problem.code, headers=problem.headers)(scope, receive, send)
