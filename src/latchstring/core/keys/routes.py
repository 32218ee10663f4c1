"""The JWKS route, and the metadata route that names it."""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from latchstring.core.keys.key_set import JWKS_PATH, KeySet
from latchstring.core.keys.ring import KeyRing
from latchstring.core.keys.schemas import ServerMetadata
from latchstring.errors import Code
from latchstring.foundation.web.context import WebContext
from latchstring.foundation.web.problem import refusals

METADATA_PATH = "/.well-known/openid-configuration"


class JwksResponse(JSONResponse):
    """A JSON Web Key Set (RFC 7517, section 8.5)."""

    media_type = "application/jwk-set+json"

    def render(self, content: bytes) -> bytes:
        """Return the bytes unchanged: they are already the serialized document."""
        return content


class _PublishedKeys:
    """The JWKS document and ETag of a set of keys, made once for each set."""

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
    """Return the router with the JWKS route, which publishes the ring's public halves."""
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
        """A JSON Web Key Set (RFC 7517) of the active, the pending and the retired keys.

        A pending key will sign; a retired key verifies until its last token has expired.
        """
        document = published.of(ring.current)
        headers = {
            # A rotation waits for caches: a new key signs only after every response without it has expired.
            "Cache-Control": f"public, max-age={max_age_seconds}",
            "ETag": document.etag,
            # CORS headers depend on the Origin: a shared cache must not give one origin's response to another.
            "Vary": "Origin",
        }
        if _matches(document.etag, request.headers.getlist("if-none-match")):
            return Response(status_code=304, headers=headers)
        return JwksResponse(document.body, headers=headers)

    return router


def metadata_router(
    web: WebContext, *, public_url: str, prefix: str, grant_types: Iterable[str], max_age_seconds: int
) -> APIRouter:
    """Return the router with the metadata route, by which standard verifiers find the keys.

    Args:
        web: makes the router.
        public_url: the issuer, as configured; never taken from a request.
        prefix: where the token endpoint is mounted.
        grant_types: the grant types of the token endpoint.
        max_age_seconds: how long the response may be cached.
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
        """The metadata of RFC 8414 and OpenID Connect Discovery that apply to this server."""
        # `root_path` comes from the server and from mounts, never from a header. With a URL made from Host, a visitor
        # could point verifiers at other keys (CVE-2025-64101 was a link made from Host).
        base_url = public_url + request.scope.get("root_path", "")
        metadata = ServerMetadata(
            issuer=public_url,
            jwks_uri=base_url + JWKS_PATH,
            token_endpoint=f"{base_url}{prefix}/token",
            grant_types_supported=grants,
        )
        headers = {"Cache-Control": f"public, max-age={max_age_seconds}", "Vary": "Origin"}
        return Response(metadata.model_dump_json(), media_type="application/json", headers=headers)

    return router


def _matches(etag: str, if_none_match: Iterable[str]) -> bool:
    # RFC 9110, section 13.1.2: a weak comparison, with a list that may be spread over several header lines.
    tags = [tag.strip() for line in if_none_match for tag in line.split(",")]
    return tags == ["*"] or etag in [tag.removeprefix("W/") for tag in tags]
