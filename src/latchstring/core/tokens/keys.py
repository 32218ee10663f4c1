"""Keys: made, parsed once, checked for strength, and shown as JWKS."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from joserfc.jwk import ECKey, OKPKey, RSAKey

from latchstring.core.tokens.settings import Algorithm
from latchstring.errors import ConfigurationError

RSA_MIN_BITS = 2048
RSA_BITS = 3072

Key = RSAKey | ECKey | OKPKey


@dataclass(frozen=True, slots=True)
class TokenKey:
    """A key, the one algorithm it is used with, and its name: the RFC 7638 thumbprint."""

    kid: str
    algorithm: Algorithm
    key: Key


@dataclass(frozen=True, slots=True, eq=False)
class KeySet:
    """The keys in force, never changed: a change is another set."""

    signing: TokenKey
    verifying: Mapping[str, TokenKey]

    def jwks(self) -> dict[str, Any]:
        """Return the JSON Web Key Set (RFC 7517): the public halves."""
        return {
            "keys": [
                {**token_key.key.as_dict(private=False), "kid": kid, "use": "sig", "alg": token_key.algorithm.value}
                for kid, token_key in sorted(self.verifying.items())
            ]
        }


def make_private_pem(algorithm: Algorithm) -> bytes:
    """Make a key pair for `algorithm` (RSA with 3,072 bits) and return it as a PKCS #8 PEM."""
    private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
    match algorithm:
        case Algorithm.RS256 | Algorithm.PS256:
            private = rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)
        case Algorithm.ES256:
            private = ec.generate_private_key(ec.SECP256R1())
        case Algorithm.EDDSA:
            private = ed25519.Ed25519PrivateKey.generate()
    return private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def public_pem(private: TokenKey) -> str:
    """Return the public half as a PEM."""
    return private.key.as_pem(private=False).decode()


def token_key(pem: bytes, algorithm: Algorithm, *, name: str, is_our_own: bool = False) -> TokenKey:
    """Parse a private or public PEM for use with `algorithm`.

    Args:
        pem: the PEM.
        algorithm: the only algorithm this key will be used with.
        name: what the key is called in an error, e.g. the setting it came from.
        is_our_own: made by us and unsealed a moment ago, so that its numbers need no proof. The proof takes a tenth
            of a second, in which the event loop would stand still.

    Raises:
        ConfigurationError: no PEM, a key of another kind, or an RSA key of less than 2,048 bits.
    """
    raw = _parsed(pem, is_our_own=is_our_own)
    key: Key
    match algorithm, raw:
        case ((Algorithm.RS256 | Algorithm.PS256), (rsa.RSAPrivateKey() | rsa.RSAPublicKey())):
            if raw.key_size < RSA_MIN_BITS:
                raise ConfigurationError(f"{name} must have at least {RSA_MIN_BITS} bits")
            key = RSAKey.import_key(raw)
        case Algorithm.ES256, (ec.EllipticCurvePrivateKey() | ec.EllipticCurvePublicKey()):
            if raw.curve.name != "secp256r1":
                raise ConfigurationError(f"{name} must be a P-256 key for ES256")
            key = ECKey.import_key(raw)
        case Algorithm.EDDSA, (ed25519.Ed25519PrivateKey() | ed25519.Ed25519PublicKey()):
            key = OKPKey.import_key(raw)
        case _:
            raise ConfigurationError(f"{name} must be a PEM of a key for {algorithm}")
    return TokenKey(kid=key.thumbprint(), algorithm=algorithm, key=key)


def _parsed(pem: bytes, *, is_our_own: bool) -> object:
    load_private = partial(serialization.load_pem_private_key, password=None, unsafe_skip_rsa_key_validation=is_our_own)
    for load in (load_private, serialization.load_pem_public_key):
        try:
            return load(pem)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            continue
    return None


def key_set_from_pems(*, algorithm: Algorithm, private: str, public: str | None, extra_public: str | None) -> KeySet:
    """Return the set that the environment's base64 PEMs make.

    Raises:
        ConfigurationError: a value is no PEM, too weak, of another algorithm, or the pair does not match.
    """
    signing = token_key(_pem(private, "JWT_PRIVATE_KEY"), algorithm, name="JWT_PRIVATE_KEY")
    if not signing.key.is_private:
        raise ConfigurationError("JWT_PRIVATE_KEY holds a public key: it must be the private one")
    if public is not None:
        pair = token_key(_pem(public, "JWT_PUBLIC_KEY"), algorithm, name="JWT_PUBLIC_KEY")
        if pair.key.is_private:
            raise ConfigurationError("JWT_PUBLIC_KEY holds a private key: it must be the public one")
        if pair.kid != signing.kid:
            raise ConfigurationError("JWT_PUBLIC_KEY and JWT_PRIVATE_KEY must be of the same pair")
    verifying = {signing.kid: signing}
    for part in (extra_public or "").split(","):
        if part.strip():
            extra = _extra_key(_pem(part, "JWT_EXTRA_PUBLIC_KEYS"), algorithm)
            verifying.setdefault(extra.kid, extra)
    return KeySet(signing=signing, verifying=verifying)


def _extra_key(pem: bytes, algorithm: Algorithm) -> TokenKey:
    # The previous key may be of another algorithm: the PEM's own kind decides, RSA keys going with the one in force.
    rsa_algorithm = algorithm if algorithm is Algorithm.PS256 else Algorithm.RS256
    for candidate in (rsa_algorithm, Algorithm.ES256, Algorithm.EDDSA):
        try:
            extra = token_key(pem, candidate, name="JWT_EXTRA_PUBLIC_KEYS")
        except ConfigurationError:
            continue
        if extra.key.is_private:
            raise ConfigurationError("JWT_EXTRA_PUBLIC_KEYS holds a private key: it takes public ones")
        return extra
    raise ConfigurationError(
        f"JWT_EXTRA_PUBLIC_KEYS must be base64 of PEMs, RSA with at least {RSA_MIN_BITS} bits, P-256 or Ed25519"
    )


def _pem(value: str, name: str) -> bytes:
    text = "".join(value.split()) if "-----" not in value else value
    if "-----BEGIN" in text:
        return text.encode()
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ConfigurationError(f"{name} must be base64 of a PEM") from None
