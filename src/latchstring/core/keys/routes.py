"""The public keys, for whoever verifies our tokens, and where to find them."""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from latchstring.core.keys.key_set import KeySet
from latchstring.core.keys.ring import KeyRing
from latchstring.core.keys.schemas import ServerMetadata
from latchstring.errors import Code
from latchstring.foundation.web.context import WebContext
from latchstring.foundation.web.problem import refusals

JWKS_PATH = "/.well-known/jwks.json"
METADATA_PATH = "/.well-known/openid-configuration"


class JwksResponse(JSONResponse):
    """A JSON Web Key Set (RFC 7517, section 8.5)."""

    media_type = "application/jwk-set+json"

    def render(self, content: bytes) -> bytes:
        """Return the document as it is: it was made with the set."""
        return content


class _PublishedKeys:
    """The document of a set of keys, made once for each set."""

    def __init__(self) -> None:
        self._of: KeySet | None = None
        self.body = b""
        self.etag = ""

    def of(self, keys: KeySet) -> "_PublishedKeys":
        if keys is not self._of:
            self.body = json.dumps(keys.jwks(), separators=(",", ":")).encode()
            self.etag = f'"{hashlib.sha256(self.body).hexdigest()[:32]}"'
            self._of = keys
        return self


def jwks_router(ring: KeyRing, web: WebContext, *, max_age_seconds: int) -> APIRouter:
    """Return the route that shows the ring's public halves."""
    router = web.router(tags=["keys"])
    published = _PublishedKeys()

    @router.get(
        JWKS_PATH,
        operation_id="get_jwks",
        summary="The public keys that tokens are verified with",
        response_class=JwksResponse,
        response_model=dict[str, Any],
        responses=refusals(Code.BODY_TOO_LARGE, Code.KEYS_UNAVAILABLE) | {304: {"description": "Not changed since"}},
    )
    async def get_jwks(request: Request) -> Response:
        """A JSON Web Key Set (RFC 7517): those that sign, those that will, and those whose tokens have not expired."""
        document = published.of(ring.current)
        headers = {
            "Cache-Control": f"public, max-age={max_age_seconds}",
            "ETag": document.etag,
            "Vary": "Origin",
        }
        if _is_known(document.etag, request.headers.getlist("if-none-match")):
            return Response(status_code=304, headers=headers)
        return JwksResponse(document.body, headers=headers)

    return router


def metadata_router(
    web: WebContext, *, public_url: str, prefix: str, grant_types: Iterable[str], max_age_seconds: int
) -> APIRouter:
    """Return the route by which stock verifiers find the keys.

    Args:
        web: the web around.
        public_url: the issuer, as it is configured: never what a request claims.
        prefix: where the token endpoint is mounted.
        grant_types: what the token endpoint takes.
        max_age_seconds: how long the answer may be cached.
    """
    router = web.router(tags=["keys"])
    grants = sorted(grant_types)

    @router.get(
        METADATA_PATH,
        operation_id="get_server_metadata",
        summary="The issuer, and where its keys are",
        response_model=ServerMetadata,
        responses=refusals(Code.BODY_TOO_LARGE),
    )
    async def get_server_metadata(request: Request) -> Response:
        """What OpenID Connect Discovery and RFC 8414 call metadata, as far as there is any of it here."""
        # Where the application is mounted, which it and its server know, and no visitor says.
        here = public_url + request.scope.get("root_path", "")
        metadata = ServerMetadata(
            issuer=public_url,
            jwks_uri=here + JWKS_PATH,
            token_endpoint=f"{here}{prefix}/token",
            grant_types_supported=grants,
        )
        headers = {"Cache-Control": f"public, max-age={max_age_seconds}", "Vary": "Origin"}
        return Response(metadata.model_dump_json(), media_type="application/json", headers=headers)

    return router


def _is_known(etag: str, if_none_match: Iterable[str]) -> bool:
    # RFC 9110, section 13.1.2: compared weakly, as lists that may come in several lines.
    known = [tag.strip() for line in if_none_match for tag in line.split(",")]
    return known == ["*"] or etag in [tag.removeprefix("W/") for tag in known]
