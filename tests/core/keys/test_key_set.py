"""A key set as another service fetches it: public keys, each with its thumbprint for a name, or refused whole."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from latchstring.core.keys.key_set import KeySetError, key_set_from_jwks
from tests.support.forge import b64url, new_key, thumbprint


def published(key: RSAKey | ECKey | OKPKey, alg: str, **changes: object) -> dict[str, Any]:
    """Returns a key as an issuer shows it, with changes."""
    jwk: dict[str, Any] = dict(key.as_dict(private=False))
    return {**jwk, "kid": key.thumbprint(), "use": "sig", "alg": alg} | changes


RSA = RSAKey.import_key(new_key("RSA-2048").public_key())  # type: ignore[arg-type]
EC = ECKey.import_key(new_key("P-256").public_key())  # type: ignore[arg-type]
OKP = OKPKey.import_key(new_key("Ed25519").public_key())  # type: ignore[arg-type]
GOOD = [published(RSA, "RS256"), published(EC, "ES256"), published(OKP, "EdDSA")]


def read(*keys: object, **members: object) -> Mapping[str, Any]:
    return key_set_from_jwks(json.dumps({"keys": list(keys), **members}).encode())


def test_good_keys_are_taken() -> None:
    """Each with its algorithm, under its thumbprint; members that nobody here knows change nothing."""
    keys = read(*GOOD, extra="ignored")
    assert {kid: key.algorithm for kid, key in keys.items()} == {thumbprint(jwk): jwk["alg"] for jwk in GOOD}
    assert read({**GOOD[1], "key_ops": ["verify"], "x5t": "…"}).keys() == {EC.thumbprint()}
    assert all(not key.key.is_private for key in keys.values())


@pytest.mark.parametrize(
    "other",
    [
        {"kty": "unknown", "alg": "RS256"},
        published(RSA, "RS512"),
        published(RSA, "RSA-OAEP", use="enc"),
        published(EC, "ES256", use="enc"),
        {name: value for name, value in published(EC, "ES256").items() if name != "alg"},
        published(ECKey.generate_key("P-384"), "ES384"),
        published(EC, "ES256", kty=["EC"]),
        {**published(EC, "ES256"), "alg": ["ES256"]},
        {**published(EC, "ES256"), "alg": {"ES256": 1}},
    ],
    ids=["kty", "alg", "encryption", "use", "no alg", "curve", "kty, a list", "alg, a list", "alg, an object"],
)
def test_keys_of_other_kinds_are_left_out(other: dict[str, Any]) -> None:
    """RFC 7517, section 5: a key that is not understood is ignored, and the others are not."""
    assert read(other, GOOD[0]).keys() == {RSA.thumbprint()}
    with pytest.raises(KeySetError, match="no usable key"):
        read(other)


def weak() -> dict[str, Any]:
    """Returns an RSA key of 1,024 bits."""
    numbers = rsa.generate_private_key(public_exponent=65537, key_size=1024).public_key().public_numbers()  # noqa: S505 -- to be refused
    jwk = {"kty": "RSA", "n": b64url(numbers.n.to_bytes(128)), "e": "AQAB"}
    return {**jwk, "alg": "RS256", "kid": thumbprint(jwk)}


def okp(crv: str, key: ed448.Ed448PublicKey | x25519.X25519PublicKey) -> dict[str, Any]:
    """Returns a key of another curve."""
    jwk = {"kty": "OKP", "crv": crv, "x": b64url(key.public_bytes(Encoding.Raw, PublicFormat.Raw))}
    return {**jwk, "alg": "EdDSA", "kid": thumbprint(jwk)}


REFUSED: dict[str, object] = {
    "Wycheproof, duplicate kid": [GOOD[0], GOOD[1], GOOD[0]],
    "Wycheproof, private key": [GOOD[0], {**GOOD[1], "d": b64url(b"d" * 32)}],
    "private key of a kind nobody knows": [GOOD[0], {"kty": "unknown", "d": "AQAB"}],
    "RSA private key by its primes": [{**GOOD[0], "p": "AQAB", "q": "AQAB"}],
    "CVE-2016-10555, symmetric key": [GOOD[0], {**OctKey.generate_key(256).as_dict(), "alg": "HS256"}],
    "symmetric key that says RS256": [{"kty": "oct", "k": b64url(b"k" * 32), "alg": "RS256", "kid": "x"}],
    "CVE-2025-45768, RSA of 1,024 bits": [GOOD[1], weak()],
    "kid that is not the thumbprint": [{**GOOD[0], "kid": EC.thumbprint()}],
    "no kid": [{name: value for name, value in GOOD[0].items() if name != "kid"}],
    "kid that is a number": [{**GOOD[0], "kid": 1}],
    "algorithm of another kind of key": [published(RSA, "ES256")],
    "P-384 that says ES256": [published(ECKey.generate_key("P-384"), "ES256")],
    "secp256k1 that says ES256": [
        published(ECKey.import_key(ec.generate_private_key(ec.SECP256K1()).public_key()), "ES256")
    ],
    "Ed448": [okp("Ed448", ed448.Ed448PrivateKey.generate().public_key())],
    "X25519": [okp("X25519", x25519.X25519PrivateKey.generate().public_key())],
    "point that is not on the curve": [{**GOOD[1], "x": b64url(b"\1" * 32)}],
    "number that is no base64": [{**GOOD[0], "n": "!!!"}],
    "number that is a list": [{**GOOD[0], "n": ["AQAB"]}],
    "exponent of one": [{**GOOD[0], "e": "AQ"}],
    "nothing but a kind": [{"kty": "EC", "alg": "ES256"}],
    "key that is text": [GOOD[0], "key"],
    "key that is null": [None],
    "empty set": [],
    "set that is an object": {"a": GOOD[0]},
    "set that is null": None,
    "too many": [{"kty": "unknown"}] * 101,
}


@pytest.mark.parametrize("keys", REFUSED.values(), ids=REFUSED.keys())
def test_a_set_that_is_wrong_is_refused_whole(keys: object) -> None:
    """Who shows a private key, or two of one name, is not believed about the others either."""
    with pytest.raises(KeySetError) as refused:
        key_set_from_jwks(json.dumps({"keys": keys}).encode())
    assert refused.value.__cause__ is None


DOCUMENTS = {
    "nothing": b"",
    "HTML": b"<html><body>Sign in to the hotel's network</body></html>",
    "a list": json.dumps(GOOD).encode(),
    "text": b'"keys"',
    "UTF-16": json.dumps({"keys": GOOD}).encode("utf-16-le"),
    "cut short": json.dumps({"keys": GOOD}).encode()[:-10],
    "deep": b'{"keys":' + b"[" * 100_000,
    "keys twice": b'{"keys":[],"keys":' + json.dumps(GOOD).encode() + b"}",
    "alg twice": json.dumps({"keys": GOOD[:1]}).replace('"alg"', '"alg": "none", "alg"').encode(),
    "bytes": bytes(range(256)),
}


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS.keys())
def test_what_is_no_key_set_is_refused(document: bytes) -> None:
    """Whatever stands at the address: it is a set of keys that says everything once, or nothing is learnt from it."""
    with pytest.raises(KeySetError):
        key_set_from_jwks(document)
