"""Make and parse keys, check their strength, and write and read JSON Web Key Sets (RFC 7517)."""

import base64
import binascii
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from latchstring.core.keys.settings import Algorithm
from latchstring.core.keys.strict_json import unique_names
from latchstring.errors import ConfigurationError

JWKS_PATH = "/.well-known/jwks.json"
# The least for a key from elsewhere (RFC 7518, section 3.3); JOSE libraries take shorter ones (CVE-2025-45768).
RSA_MIN_BITS = 2048
RSA_BITS = 3072
_RSA_MIN_LETTERS = math.ceil(RSA_MIN_BITS / 6)
# A published set is untrusted input: a hundred keys is far more than a rotation needs, and bounds the work.
_MAX_KEYS = 100
_PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})

Key = RSAKey | ECKey | OKPKey
_KINDS: Mapping[str, type[Key]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
_ALGORITHMS: Mapping[str, Algorithm] = {algorithm.value: algorithm for algorithm in Algorithm}


class KeySetError(ValueError):
    """The document is not a set of usable public keys. The message contains nothing from the document."""


@dataclass(frozen=True, slots=True)
class TokenKey:
    """A key, the one algorithm it is used with, and its `kid`: the RFC 7638 thumbprint."""

    kid: str
    algorithm: Algorithm
    key: Key

    def sign(self, octets: bytes) -> bytes:
        """Return the signature of `octets` (RFC 7515, section 5.1, step 5); needs a private key."""
        return JWSRegistry.algorithms[self.algorithm.value].sign(octets, self.key)

    def verifies(self, octets: bytes, signature: bytes) -> bool:
        """Return whether `signature` is a valid signature of `octets` by this key."""
        # The key's algorithm, never the token's: an attacker must not choose how a token is checked (CVE-2016-10555).
        try:
            return JWSRegistry.algorithms[self.algorithm.value].verify(octets, signature, self.key)
        except (JoseError, ValueError):
            return False


@dataclass(frozen=True, slots=True, eq=False)
class KeySet:
    """The keys in force. Immutable: a change makes another set."""

    signing: TokenKey
    verifying: Mapping[str, TokenKey]

    def rsa_sizes(self) -> dict[str, int]:
        """Return the size in bits of each RSA key, by `kid`."""
        sizes = {kid: token_key.key for kid, token_key in self.verifying.items()}
        return {kid: key.public_key.key_size for kid, key in sizes.items() if isinstance(key, RSAKey)}

    def jwks(self) -> dict[str, Any]:
        """Return the JSON Web Key Set (RFC 7517) of the public halves."""
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
        case Algorithm.EDDSA | Algorithm.ED25519:
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
        name: how an error names the key, e.g. the setting it came from.
        is_our_own: skip the validation of the RSA numbers, for a key that we made and have just unsealed. It takes
            a tenth of a second, for which the event loop would be blocked.

    Raises:
        ConfigurationError: not a PEM, a key of another type, or an RSA key of less than 2,048 bits.
    """
    return _for_use(_parsed(pem, is_our_own=is_our_own), algorithm, name=name)


def _for_use(raw: object, algorithm: Algorithm, *, name: str) -> TokenKey:
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
        case ((Algorithm.EDDSA | Algorithm.ED25519), (ed25519.Ed25519PrivateKey() | ed25519.Ed25519PublicKey())):
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
    """Return the key set of the environment's base64 PEMs.

    Raises:
        ConfigurationError: a value is not a PEM, too weak or for another algorithm, or the pair does not match.
    """
    signing = token_key(_pem(private, "JWT_PRIVATE_KEY"), algorithm, name="JWT_PRIVATE_KEY")
    if not signing.key.is_private:
        raise ConfigurationError("JWT_PRIVATE_KEY holds a public key: it must hold the private one")
    if public is not None:
        pair = token_key(_pem(public, "JWT_PUBLIC_KEY"), algorithm, name="JWT_PUBLIC_KEY")
        # A private key in a variable called "public" will be copied to services that must not sign.
        if pair.key.is_private:
            raise ConfigurationError("JWT_PUBLIC_KEY holds a private key: it must hold the public one")
        if pair.kid != signing.kid:
            raise ConfigurationError("JWT_PUBLIC_KEY and JWT_PRIVATE_KEY must be of the same pair")
    verifying = {signing.kid: signing}
    for part in (extra_public or "").split(","):
        if part.strip():
            extra = _extra_key(part, algorithm)
            verifying.setdefault(extra.kid, extra)
    return KeySet(signing=signing, verifying=verifying)


def key_set_from_jwks(document: bytes) -> dict[str, TokenKey]:
    """Return the usable keys of a JSON Web Key Set (RFC 7517), by `kid`.

    A key of an unknown type, use or algorithm is ignored, as RFC 7517, section 5, asks.

    Raises:
        KeySetError: not a key set; a private or symmetric key, a duplicate `kid`, a weak key, or a `kid` that is not
            the key's thumbprint (RFC 7638); or no usable key.
    """
    try:
        members = json.loads(document.decode("utf-8"), object_pairs_hook=unique_names)
    except (ValueError, RecursionError):
        raise KeySetError("not JSON, or JSON with duplicate names") from None
    published = members.get("keys") if isinstance(members, dict) else None
    if not isinstance(published, list) or len(published) > _MAX_KEYS:
        raise KeySetError("not a key set, or one of too many keys")
    keys: dict[str, TokenKey] = {}
    for jwk in published:
        key = _published_key(jwk)
        if key is None:
            continue
        # Which of two keys verifies would depend on the reader: the whole set is refused (Wycheproof's JWK sets).
        if key.kid in keys:
            raise KeySetError("two keys with the same kid")
        keys[key.kid] = key
    if not keys:
        raise KeySetError("no usable key")
    return keys


def _published_key(jwk: object) -> TokenKey | None:
    if not isinstance(jwk, dict):
        raise KeySetError("a key that is not an object")
    # With a published private key anyone can sign, and a symmetric one means HMAC (CVE-2016-10555).
    if not _PRIVATE_MEMBERS.isdisjoint(jwk):
        raise KeySetError("a private key, which must never be published")
    kind, algorithm = _KINDS.get(str(jwk.get("kty"))), _ALGORITHMS.get(str(jwk.get("alg")))
    if jwk.get("use", "sig") != "sig" or kind is None or algorithm is None:
        return None
    # Checked before the import: the library accepts a weak key, with a warning (CVE-2025-45768).
    if kind is RSAKey and len(str(jwk.get("n"))) < _RSA_MIN_LETTERS:
        raise KeySetError("a weak key")
    # Only the members of the key itself: `x5u` and `x5c` in a JWK name things to fetch or to trust (PYSEC-2026-175).
    required: dict[str, Any] = {name: jwk[name] for name in ("kty", "n", "e", "crv", "x", "y") if name in jwk}
    try:
        key = _for_use(kind.import_key(required).raw_value, algorithm, name="a published key")
    except (ConfigurationError, JoseError, ValueError, TypeError, KeyError):
        raise KeySetError("a key that can't be used") from None
    # With a thumbprint as its name a key can't take the place of another one; caches may compare sets by `kid`.
    if jwk.get("kid") != key.kid:
        raise KeySetError("a kid that is not the key's thumbprint")
    return key


def _extra_key(text: str, algorithm: Algorithm) -> TokenKey:
    # The PEM's type gives the algorithm, but RSA and Ed25519 have two each: for these it is the configured one unless
    # the entry names another. Without that, a change from RS256 to PS256 would be impossible.
    name, colon, value = text.strip().partition(":")
    if not colon:
        candidates, value = _candidates(algorithm), name
    elif name in set(Algorithm):
        candidates = (Algorithm(name),)
    else:
        raise ConfigurationError(f"an algorithm in JWT_EXTRA_PUBLIC_KEYS must be one of {', '.join(Algorithm)}")
    pem = _pem(value, "JWT_EXTRA_PUBLIC_KEYS")
    for candidate in candidates:
        try:
            extra = token_key(pem, candidate, name="JWT_EXTRA_PUBLIC_KEYS")
        except ConfigurationError:
            continue
        if extra.key.is_private:
            raise ConfigurationError("JWT_EXTRA_PUBLIC_KEYS holds a private key: it must hold only public ones")
        return extra
    raise ConfigurationError(
        f"JWT_EXTRA_PUBLIC_KEYS must be base64 of PEMs: RSA with at least {RSA_MIN_BITS} bits, P-256 or Ed25519"
    )


def _candidates(algorithm: Algorithm) -> tuple[Algorithm, ...]:
    return (
        algorithm if algorithm is Algorithm.PS256 else Algorithm.RS256,
        Algorithm.ES256,
        algorithm if algorithm is Algorithm.ED25519 else Algorithm.EDDSA,
    )


def _pem(value: str, name: str) -> bytes:
    text = "".join(value.split()) if "-----" not in value else value
    if "-----BEGIN" in text:
        return text.encode()
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ConfigurationError(f"{name} must be base64 of a PEM") from None
