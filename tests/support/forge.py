"""Tokens as an attacker makes them, from bytes and primitives.

    genuine = Genuine.of(token, service)        a token the service issued, taken apart, and the service's own key
    genuine.with_claims(exp=True)               the same with other claims, honestly signed
    genuine.with_header(alg="none", sign=…)     the same with another header, signed as told
    compact(b'{"alg": …', b"…", sign)           anything at all

No JOSE library is asked: each refuses to sign some of what has to be tried.
"""

import base64
import functools
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tests.support.service import Service

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
Sign = Callable[[bytes], bytes]
Json = Mapping[str, object] | bytes

_HASHES: dict[str, HashAlgorithm] = {"256": SHA256(), "384": SHA384(), "512": SHA512()}

EPOCH_AHEAD = 2**40
"""What a thief writes into tokens that are to outlive everyone's sign-out: epochs follow the clock."""


def b64url(octets: bytes) -> str:
    """Returns base64url without padding."""
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def unb64url(part: str) -> bytes:
    """Returns what a part of a token holds."""
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def as_json(value: Json) -> bytes:
    """Returns compact JSON; bytes are taken as they are, however wrong."""
    return value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode()


def compact(header: Json, claims: Json, sign: Sign) -> str:
    """Returns three parts, the third being what `sign` makes of the first two."""
    signing_input = f"{b64url(as_json(header))}.{b64url(as_json(claims))}"
    return f"{signing_input}.{b64url(sign(signing_input.encode()))}"


def always(signature: bytes) -> Sign:
    """Signs everything with the same bytes."""
    return lambda _signing_input: signature


def hmac_with(secret: bytes, algorithm: str = "HS256") -> Sign:
    """Signs symmetrically."""
    return lambda signing_input: hmac.digest(secret, signing_input, f"sha{algorithm[2:]}")


def sign_with(key: PrivateKey, algorithm: str) -> Sign:
    """Signs as `algorithm` asks, of those a key of this kind can do."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign
    chosen = _HASHES[algorithm[2:]]
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return lambda signing_input: raw_ecdsa(key.sign(signing_input, ec.ECDSA(chosen)))
    if algorithm.startswith("PS"):
        pss = padding.PSS(padding.MGF1(chosen), salt_length=chosen.digest_size)
        return lambda signing_input: key.sign(signing_input, pss, chosen)
    return lambda signing_input: key.sign(signing_input, padding.PKCS1v15(), chosen)


def raw_ecdsa(der: bytes) -> bytes:
    """Returns a P-256 signature as JWS wants it: both numbers, 32 bytes each."""
    return b"".join(number.to_bytes(32) for number in decode_dss_signature(der))


@functools.cache
def new_key(kind: str, which: int = 0) -> PrivateKey:
    """Makes a key, once in a run: `RSA-2048`, `P-256`, `Ed25519`, …; `which` tells keys of one kind apart."""
    if kind.startswith("RSA-"):
        return rsa.generate_private_key(public_exponent=65537, key_size=int(kind.removeprefix("RSA-")))
    if kind == "Ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key({"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1()}[kind])


KIND_FOR = {"RS256": "RSA-2048", "PS256": "RSA-2048", "ES256": "P-256", "EdDSA": "Ed25519", "Ed25519": "Ed25519"}
"""The kind of key each of our algorithms takes."""


def private_pem(key: PrivateKey) -> bytes:
    """Returns PKCS #8."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def public_pem(key: PrivateKey) -> bytes:
    """Returns SubjectPublicKeyInfo."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def thumbprint(jwk: Mapping[str, str]) -> str:
    """Returns RFC 7638's name for a key: the hash of its required members, in order, without white space."""
    required = {"RSA": ("e", "kty", "n"), "EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x")}[jwk["kty"]]
    return b64url(hashlib.sha256(as_json({name: jwk[name] for name in required})).digest())


@dataclass(frozen=True)
class Genuine:
    """A token that the service issued, and what it was signed with."""

    text: str
    header: dict[str, Any]
    claims: dict[str, Any]
    key: PrivateKey

    @classmethod
    def of(cls, text: str, service: Service) -> Self:
        """Takes a token apart, and the service's key out of its ring."""
        header, claims, _signature = (unb64url(part) for part in text.split("."))
        key = service.auth.parts.ring.current.signing.key.raw_value
        assert isinstance(key, PrivateKey)
        return cls(text=text, header=json.loads(header), claims=json.loads(claims), key=key)

    @property
    def sign(self) -> Sign:
        """Signs as the service does."""
        return sign_with(self.key, self.header["alg"])

    def with_header(self, *, sign: Sign | None = None, **members: object) -> str:
        """Returns the token with members of the header added or replaced."""
        return compact(self.header | members, self.claims, sign or self.sign)

    def with_claims(self, **claims: object) -> str:
        """Returns the token with claims added or replaced, honestly signed."""
        return compact(self.header, self.claims | claims, self.sign)

    def without(self, *claims: str) -> str:
        """Returns the token without some claims, honestly signed."""
        return compact(self.header, {name: self.claims[name] for name in self.claims.keys() - set(claims)}, self.sign)
