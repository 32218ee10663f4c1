"""The response schema of the metadata route."""

from collections.abc import Sequence

from pydantic import BaseModel


class ServerMetadata(BaseModel):
    """Authorization server metadata (RFC 8414, section 2)."""

    issuer: str
    jwks_uri: str
    token_endpoint: str
    grant_types_supported: Sequence[str]
    # RFC 8414 reads an absent list as `client_secret_basic`; our clients are public and have no secret.
    token_endpoint_auth_methods_supported: Sequence[str] = ("none",)
    # A required member, empty because there is no authorization endpoint (RFC 8414, section 2).
    response_types_supported: Sequence[str] = ()
