"""Which keys sign, where they come from, and how long they are cached."""

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SecretStr


# No HMAC: with one, a public key can be passed off as the shared secret (CVE-2016-10555, CVE-2022-29217).
class Algorithm(StrEnum):
    """The signature algorithms. All are asymmetric, so that a service that verifies tokens can't issue them."""

    RS256 = "RS256"
    PS256 = "PS256"
    ES256 = "ES256"
    EDDSA = "EdDSA"
    ED25519 = "Ed25519"
    """The same signature as EdDSA, under its RFC 9864 name."""


class KeySettings(BaseModel):
    """The keys that sign tokens."""

    model_config = ConfigDict(frozen=True)

    jwt_algorithm: Algorithm = Algorithm.RS256
    jwt_private_key: SecretStr | None = None
    """Base64 of a PEM. If set, the keys come from the environment and the database holds none."""
    jwt_public_key: SecretStr | None = None
    """Base64 of the PEM of the same pair. Optional: it is derived from the private key."""
    jwt_extra_public_keys: SecretStr | None = None
    """Base64 PEMs, comma-separated: the next and the previous public keys, which verify and never sign. Put the
    algorithm before a key whose algorithm does not follow from its type: `RS256:LS0t…`."""
    jwks_max_age_seconds: Annotated[int, Field(ge=1, le=86_400)] = 300
    """How long the public keys may be cached. A new key is published for twice as long, plus ten seconds, before it
    signs."""
    key_max_days: Annotated[float, Field(ge=0, le=3650, allow_inf_nan=False)] = 90
    """The age in days at which the signing key in the database is replaced automatically; 0: never."""
