"""Which keys sign, where they come from, and how long they are cached."""

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class Algorithm(StrEnum):
    """The signature algorithms; all asymmetric, so that who verifies can't issue."""

    RS256 = "RS256"
    PS256 = "PS256"
    ES256 = "ES256"
    EDDSA = "EdDSA"
    ED25519 = "Ed25519"
    """The same signature by its RFC 9864 name."""


class KeySettings(BaseModel):
    """The keys that sign tokens."""

    model_config = ConfigDict(frozen=True)

    jwt_algorithm: Algorithm = Algorithm.RS256
    jwt_private_key: SecretStr | None = None
    """Base64 of a PEM. Set, the keys come from the environment and the database holds none."""
    jwt_public_key: SecretStr | None = None
    """Base64 of the PEM of the same pair; may be left out, as it follows from the private key."""
    jwt_extra_public_keys: SecretStr | None = None
    """Base64 PEMs, comma-separated: keys that verify but don't sign, the next ones and the previous ones. One that goes
    with another algorithm than its kind would tell has that before it: `RS256:LS0t…`."""
    jwks_max_age_seconds: Annotated[int, Field(ge=1, le=86_400)] = 300
    """How long the public keys may be cached. A new key is published for twice as long, and some, before it signs."""
    key_max_days: Annotated[float, Field(ge=0, le=3650, allow_inf_nan=False)] = 90
    """The age at which the signing key in the database is replaced, without anybody's doing; 0: never."""
