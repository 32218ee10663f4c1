"""The headers of every response of the server, a 500 included: one pure ASGI middleware around the application."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from latchstring.errors import Code
from latchstring.foundation.web.problem import problem_response
from latchstring.foundation.web.request_id import request_id

_SECURITY_HEADERS = (
    # A browser must not guess a type, and run a response with a visitor's input as a script.
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    # `same-site`, because the front end may be on a sibling subdomain.
    (b"cross-origin-resource-policy", b"same-site"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    # Clickjacking, in browsers that do not read `frame-ancestors`.
    (b"x-frame-options", b"DENY"),
)
_STRICT_TRANSPORT = ((b"strict-transport-security", b"max-age=31536000"),)


class HeadersMiddleware:
    """Adds `X-Request-ID`, the security headers and, if there is no `Cache-Control`, `no-store`.

    Responds to an unhandled exception with 500, and raises it again for the server's log.
    """

    def __init__(self, app: ASGIApp, *, https: bool) -> None:
        self.app = app
        self._transport = _STRICT_TRANSPORT if https else ()
        self._fixed = _SECURITY_HEADERS + self._transport

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application, and add the headers to its response."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        has_begun = False

        async def send_with_headers(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                headers: list[tuple[bytes, bytes]] = message["headers"]
                has_cache_control = is_page = False
                for name, _ in headers:
                    has_cache_control |= name == b"cache-control"
                    is_page |= name == b"content-security-policy"
                # Responses with tokens or account data must not be stored by a cache (RFC 6749, section 5.1).
                if not has_cache_control:
                    headers.append((b"cache-control", b"no-store"))
                # A page has its own policy, which allows its scripts.
                headers += self._transport if is_page else self._fixed
                headers.append((b"x-request-id", request_id(scope).encode()))
            await send(message)

        try:
            await self.app(scope, receive, send_with_headers)
        except Exception:
            if not has_begun:
                await problem_response(scope, Code.INTERNAL_ERROR)(scope, receive, send_with_headers)
            raise
