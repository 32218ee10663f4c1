"""Security headers and the request id, on every answer of the server: one pure ASGI middleware."""

import secrets

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_REQUEST_ID = "latchstring.request_id"

_SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-site"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"x-frame-options", b"DENY"),
)
_STRICT_TRANSPORT = ((b"strict-transport-security", b"max-age=31536000"),)


def request_id(scope: Scope) -> str:
    """Return the id of this request, giving it one first where it has none. A visitor's own is never taken over."""
    known: str | None = scope.get(_REQUEST_ID)
    if known is None:
        known = scope[_REQUEST_ID] = secrets.token_hex(8)
    return known


class HeadersMiddleware:
    """Adds `X-Request-ID` and the security headers to whatever the application answers."""

    def __init__(self, app: ASGIApp, *, https: bool) -> None:
        self.app = app
        self._fixed = _SECURITY_HEADERS + (_STRICT_TRANSPORT if https else ())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; extend the head of the answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", ()),
                    *self._fixed,
                    (b"x-request-id", request_id(scope).encode()),
                ]
            await send(message)

        await self.app(scope, receive, send_with_headers)
