"""CORS for the one front end on another origin (Fetch standard); no other site may read our responses."""

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send


class FrontEndCors(CORSMiddleware):
    """Starlette's CORS middleware, skipped for requests without an `Origin` header.

    Without it the middleware adds nothing, and costs a tenth of a request. Responses that caches may share set
    `Vary: Origin` themselves.
    """

    def __init__(self, app: ASGIApp, *, origin: str) -> None:
        super().__init__(
            app,
            # Exactly one origin: with `*` or a pattern, any site could read with credentials (CVE-2024-25124).
            allow_origins=[origin],
            allow_credentials=True,
            allow_methods=["GET", "POST", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type"],
            # Scripts on another origin see no other response header than these.
            expose_headers=["Retry-After", "WWW-Authenticate", "X-Request-ID"],
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to preflights, and let the front end read its responses."""
        if scope["type"] == "http":
            for name, _ in scope["headers"]:
                if name == b"origin":
                    await super().__call__(scope, receive, send)
                    return
        await self.app(scope, receive, send)
