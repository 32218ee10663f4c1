"""What every answer of the server carries, the one to a bug included: one pure ASGI middleware around the rest."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from latchstring.errors import Code
from latchstring.foundation.web.problem import problem_response
from latchstring.foundation.web.request_id import request_id

_SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-site"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"x-frame-options", b"DENY"),
)
_STRICT_TRANSPORT = ((b"strict-transport-security", b"max-age=31536000"),)


class HeadersMiddleware:
    """Adds `X-Request-ID`, the security headers and, where nothing else is said, `no-store`.

    What nobody caught it answers with 500, and lets it go on to the log.
    """

    def __init__(self, app: ASGIApp, *, https: bool) -> None:
        self.app = app
        self._transport = _STRICT_TRANSPORT if https else ()
        self._fixed = _SECURITY_HEADERS + self._transport

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; extend the head of the answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        answered = False

        async def send_with_headers(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = True
                headers: list[tuple[bytes, bytes]] = message["headers"]
                has_cache_control = is_page = False
                for name, _ in headers:
                    has_cache_control |= name == b"cache-control"
                    is_page |= name == b"content-security-policy"
                if not has_cache_control:
                    headers.append((b"cache-control", b"no-store"))
                # A page has a policy of its own, which is to run its scripts.
                headers += self._transport if is_page else self._fixed
                headers.append((b"x-request-id", request_id(scope).encode()))
            await send(message)

        try:
            await self.app(scope, receive, send_with_headers)
        except Exception:
            if not answered:
                await problem_response(scope, Code.INTERNAL_ERROR)(scope, receive, send_with_headers)
            raise
