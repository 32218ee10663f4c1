"""What the metadata say."""

from collections.abc import Sequence

from pydantic import BaseModel


class ServerMetadata(BaseModel):
    """Authorization server metadata (RFC 8414, section 2)."""

    issuer: str
    jwks_uri: str
    token_endpoint: str
    grant_types_supported: Sequence[str]
    token_endpoint_auth_methods_supported: Sequence[str] = ("none",)
    response_types_supported: Sequence[str] = ()
