"""The public keys, for whoever verifies our tokens."""

from typing import Any

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from latchstring.core.tokens.ring import KeyRing
from latchstring.errors import Code
from latchstring.foundation.web.edge import Edge
from latchstring.foundation.web.problem import refusals

JWKS_MAX_AGE_SECONDS = 300


class JwksResponse(JSONResponse):
    """A JSON Web Key Set (RFC 7517, section 8.5)."""

    media_type = "application/jwk-set+json"


def jwks_router(ring: KeyRing, edge: Edge) -> APIRouter:
    """Return the route that shows the ring's public halves."""
    router = edge.router(tags=["keys"])

    @router.get(
        "/.well-known/jwks.json",
        operation_id="get_jwks",
        summary="The public keys that tokens are verified with",
        response_class=JwksResponse,
        response_model=dict[str, Any],
        responses=refusals(Code.BODY_TOO_LARGE, Code.KEYS_UNAVAILABLE),
    )
    async def get_jwks() -> Response:
        caching = {"Cache-Control": f"public, max-age={JWKS_MAX_AGE_SECONDS}", "Vary": "Origin"}
        return JwksResponse(ring.current.jwks(), headers=caching)

    return router
