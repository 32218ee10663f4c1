"""CORS for the one front end on another origin (Fetch standard); nobody else may read what we answer."""

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send


class FrontEndCors(CORSMiddleware):
    """Starlette's, left out where no `Origin` was sent: it would say nothing then, at a tenth of a request's cost.

    What may be cached for everybody says itself that it varies by `Origin`.
    """

    def __init__(self, app: ASGIApp, *, origin: str) -> None:
        super().__init__(
            app,
            allow_origins=[origin],
            allow_credentials=True,
            allow_methods=["GET", "POST", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type"],
            expose_headers=["Retry-After", "WWW-Authenticate", "X-Request-ID"],
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer preflights, and mark answers to the front end as readable."""
        if scope["type"] == "http":
            for name, _ in scope["headers"]:
                if name == b"origin":
                    await super().__call__(scope, receive, send)
                    return
        await self.app(scope, receive, send)
