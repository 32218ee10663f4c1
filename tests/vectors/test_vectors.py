"""What the RFCs print, held against our keys, our signatures and our front-end.

Each file beside this one is named after its RFC. A slip of the pen in one can't pass: every signature, thumbprint and
encryption in it is computed here a second time, from the primitives. RFC 7515 and 7520 have nothing of PS256, and RFC
9864 nothing at all.
"""

import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap
from cryptography.hazmat.primitives.padding import PKCS7
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from latchstring.core.keys.key_set import token_key
from latchstring.core.keys.settings import Algorithm
from latchstring.core.tokens.compact import MalformedTokenError, parse
from latchstring.core.tokens.rules import Kind
from latchstring.core.tokens.verification import verified
from latchstring.errors import ConfigurationError
from tests.support.forge import (
    PrivateKey,
    always,
    b64url,
    compact,
    hmac_with,
    private_pem,
    public_pem,
    sign_with,
    thumbprint,
    unb64url,
)

Jwk = Mapping[str, str]
FILES: Mapping[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text()) for path in sorted(Path(__file__).parent.glob("rfc*.json"))
}

_CURVES: Mapping[str, ec.EllipticCurve] = {"P-256": ec.SECP256R1(), "P-521": ec.SECP521R1()}
_HASHES: Mapping[str, HashAlgorithm] = {"256": SHA256(), "384": SHA384(), "512": SHA512()}


@dataclass(frozen=True)
class Signature:
    """A signature as it is printed: of what, by which key, under which name."""

    algorithm: str
    also_called: str | None
    jwk: Jwk
    protected: str
    payload: str
    octets: bytes
    text: str

    @classmethod
    def of(cls, printed: Mapping[str, Any], keys: Mapping[str, Jwk]) -> Self:
        """Takes one out of a file."""
        return cls(
            algorithm=printed["algorithm"],
            also_called=printed.get("also_called"),
            jwk=keys[printed["key"]],
            protected=printed["protected"],
            payload=printed["payload"],
            octets=unb64url(printed["signature"]),
            text=f"{printed['protected']}.{printed['payload']}.{printed['signature']}",
        )

    @property
    def signing_input(self) -> bytes:
        """What was signed (RFC 7515, section 5.1)."""
        return f"{self.protected}.{self.payload}".encode()


SIGNATURES: Mapping[str, Signature] = {
    f"{name} {printed['section']}, {printed['algorithm']}": Signature.of(printed, file["keys"])
    for name, file in FILES.items()
    for printed in file.get("signatures", [])
}
THUMBPRINTS: Mapping[str, dict[str, Any]] = {
    f"{name} {printed['section']}": printed for name, file in FILES.items() for printed in file.get("thumbprints", [])
}

OURS = [
    pytest.param(algorithm, signature, id=f"{name} as {algorithm}")
    for name, signature in SIGNATURES.items()
    for algorithm in Algorithm
    if algorithm in {signature.algorithm, signature.also_called}
]
NOT_OURS = [
    pytest.param(signature, id=name)
    for name, signature in SIGNATURES.items()
    if signature.algorithm not in set(Algorithm)
]


def test_nothing_printed_is_left_out() -> None:
    """Each algorithm of ours that an RFC prints a signature of is among them, and one of each other family."""
    assert {parameter.values[0] for parameter in OURS} == set(Algorithm) - {Algorithm.PS256}
    assert {signature.algorithm for signature in SIGNATURES.values()} == {
        *("RS256", "ES256", "EdDSA"),
        *("HS256", "PS384", "ES512"),
    }
    assert len(SIGNATURES) == 15
    assert len(THUMBPRINTS) == 2


@pytest.mark.parametrize("signature", [pytest.param(each, id=name) for name, each in SIGNATURES.items()])
def test_the_signatures_are_typed_right(signature: Signature) -> None:
    """Computed from the primitives, every printed signature holds: also those that are refused below."""
    assert holds(signature)


@pytest.mark.parametrize(("algorithm", "signature"), OURS)
def test_a_printed_signature_holds_and_no_other_bit_does(algorithm: Algorithm, signature: Signature) -> None:
    """With the public half, and with the private one; with any one bit of the signature turned it does not."""
    private = imported(signature.jwk)
    keys = [token_key(pem(private), algorithm, name="the key") for pem in (public_pem, private_pem)]
    for key in keys:
        assert key.kid == thumbprint(signature.jwk)
        assert key.verifies(signature.signing_input, signature.octets)
    key = keys[0]
    for wrong in turned(signature.octets):
        assert not key.verifies(signature.signing_input, wrong)
    for wrong in turned(signature.signing_input):
        assert not key.verifies(wrong, signature.octets)
    for wrong in (b"", signature.octets[:-1], signature.octets + b"\0", b"\0" + signature.octets):
        assert not key.verifies(signature.signing_input, wrong)


@pytest.mark.parametrize(("algorithm", "signature"), OURS)
def test_what_we_sign_is_what_is_printed(algorithm: Algorithm, signature: Signature) -> None:
    """With the printed private key: to the bit where nothing is left to chance, and true where something is."""
    key = token_key(private_pem(imported(signature.jwk)), algorithm, name="the key")
    made = key.sign(signature.signing_input)
    assert key.verifies(signature.signing_input, made)
    assert (made == signature.octets) is (algorithm is not Algorithm.ES256)


@pytest.mark.parametrize("signature", NOT_OURS)
def test_a_signature_of_another_family_is_none_of_ours(signature: Signature) -> None:
    """HS256, PS384 and ES512 hold with none of our algorithms: where a key can be read for one, it says no."""
    readable = set()
    for algorithm in Algorithm:
        try:
            key = token_key(as_pem(signature.jwk), algorithm, name="the key")
        except ConfigurationError:
            continue
        readable.add(algorithm)
        assert not key.verifies(signature.signing_input, signature.octets)
    # The curve of ES512 is not ES256's, and a secret is no key pair.
    assert readable == ({Algorithm.RS256, Algorithm.PS256} if signature.jwk["kty"] == "RSA" else set())


@pytest.mark.parametrize("printed", [pytest.param(each, id=name) for name, each in THUMBPRINTS.items()])
def test_a_key_is_called_what_is_printed(printed: Mapping[str, Any]) -> None:
    """RFC 7638: the name of a key is the same, whatever it is used with and whatever else its JWK says."""
    assert thumbprint(printed["key"]) == printed["thumbprint"]
    names = {token_key(as_pem(printed["key"]), Algorithm(each), name="the key").kid for each in printed["algorithms"]}
    assert names == {printed["thumbprint"]}


def printed_tokens() -> Iterator[tuple[str, str, str]]:
    """Gives every text that is printed as a token, by name, and in which words it is refused."""
    for name, signature in SIGNATURES.items():
        protected, payload, octets = signature.protected, signature.payload, b64url(signature.octets)
        is_whole = bool(protected) and payload != "$.02"
        members = "a header with other members than alg, typ and kid"
        shape = "not three base64url parts"
        yield name, signature.text, members if is_whole else shape
        yield f"{name}, detached", f"{protected}..{octets}", shape
        flattened = {"protected": protected, "payload": payload, "signature": octets}
        yield f"{name}, flattened JSON", json.dumps(flattened), shape
        both = {"payload": payload, "signatures": [{"protected": protected, "signature": octets}]}
        yield f"{name}, general JSON", json.dumps(both), shape
    for name, file in FILES.items():
        for printed in [*file.get("unsigned", []), *file.get("encrypted", [])]:
            yield f"{name} {printed['section']}", printed["text"], printed["refused"]


TOKENS = list(printed_tokens())


@pytest.mark.parametrize(("text", "reason"), [pytest.param(text, reason, id=name) for name, text, reason in TOKENS])
def test_nothing_printed_is_a_token_of_ours(text: str, reason: str) -> None:
    """The front-end refuses each whole, for what it lacks, and so it never meets the key it was signed with."""
    with pytest.raises(MalformedTokenError, match=f"^{reason}$"):
        parse(text)
    for key in KEYS:
        keys = dict.fromkeys((key.kid, *PRINTED_NAMES), key)
        for kind in Kind:
            with pytest.raises(MalformedTokenError, match=f"^{reason}$"):
                verified(text, kind, keys)


@pytest.mark.parametrize(("algorithm", "signature"), OURS)
def test_a_printed_signature_does_not_hold_under_a_header_of_ours(algorithm: Algorithm, signature: Signature) -> None:
    """Dressed as a token of ours, with the key in the set, it is refused by its signature and nothing else."""
    key = token_key(as_pem(signature.jwk), algorithm, name="the key")
    honest = sign_with(imported(signature.jwk), algorithm)
    for kind in Kind:
        header = {"alg": algorithm.value, "typ": kind.header_type, "kid": key.kid}
        with pytest.raises(MalformedTokenError, match=r"^an invalid signature$"):
            verified(compact(header, {"iss": "joe"}, always(signature.octets)), kind, {key.kid: key})
        assert verified(compact(header, {"iss": "joe"}, honest), kind, {key.kid: key}).claims == {"iss": "joe"}


def test_what_is_encrypted_or_unsigned_is_typed_right() -> None:
    """RFC 7516 A.3 opens to what it says, and the headers of RFC 7515 A.5 and E are the printed ones."""
    for printed in FILES["rfc7515"]["unsigned"]:
        assert json.loads(unb64url(printed["text"].split(".")[0])) == printed["header"]
    (printed,) = FILES["rfc7516"]["encrypted"]
    head, *parts = printed["text"].split(".")
    wrapped, initial, ciphertext, tag = map(unb64url, parts)
    content_key = aes_key_unwrap(unb64url(printed["key"]["k"]), wrapped)
    bits = (len(head) * 8).to_bytes(8)
    assert hmac_with(content_key[:16])(head.encode() + initial + ciphertext + bits)[:16] == tag
    opened = Cipher(algorithms.AES(content_key[16:]), modes.CBC(initial)).decryptor()
    padded = opened.update(ciphertext) + opened.finalize()
    unpadder = PKCS7(128).unpadder()
    assert (unpadder.update(padded) + unpadder.finalize()).decode() == printed["plaintext"]


def number(text: str) -> int:
    """Returns a number as a JWK writes it."""
    return int.from_bytes(unb64url(text))


def imported(jwk: Jwk) -> PrivateKey:
    """Returns a private key, made from its numbers; whether they fit one another is checked on the way."""
    return _imported(json.dumps(jwk))


@functools.cache
def _imported(text: str) -> PrivateKey:
    jwk = json.loads(text)
    if jwk["kty"] == "RSA":
        n, e, d = (number(jwk[name]) for name in "ned")
        p, q = rsa.rsa_recover_prime_factors(n, e, d)
        return rsa.RSAPrivateNumbers(
            p=p,
            q=q,
            d=d,
            dmp1=rsa.rsa_crt_dmp1(d, p),
            dmq1=rsa.rsa_crt_dmq1(d, q),
            iqmp=rsa.rsa_crt_iqmp(p, q),
            public_numbers=rsa.RSAPublicNumbers(e, n),
        ).private_key()
    if jwk["kty"] == "EC":
        public = ec.EllipticCurvePublicNumbers(number(jwk["x"]), number(jwk["y"]), _CURVES[jwk["crv"]])
        return ec.EllipticCurvePrivateNumbers(number(jwk["d"]), public).private_key()
    private = ed25519.Ed25519PrivateKey.from_private_bytes(unb64url(jwk["d"]))
    assert private.public_key().public_bytes_raw() == unb64url(jwk["x"])
    return private


def as_pem(jwk: Jwk) -> bytes:
    """Returns the public half as a PEM; a secret as it is."""
    if jwk["kty"] == "oct":
        return unb64url(jwk["k"])
    if "d" in jwk:
        return public_pem(imported(jwk))
    public: rsa.RSAPublicKey | ed25519.Ed25519PublicKey
    if jwk["kty"] == "RSA":
        public = rsa.RSAPublicNumbers(number(jwk["e"]), number(jwk["n"])).public_key()
    else:
        public = ed25519.Ed25519PublicKey.from_public_bytes(unb64url(jwk["x"]))
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def holds(signature: Signature) -> bool:
    """Tells whether a signature does, by the primitives alone."""
    chosen = _HASHES.get(signature.algorithm[2:], SHA256())
    octets, signing_input = signature.octets, signature.signing_input
    if signature.algorithm == "HS256":
        return hmac_with(unb64url(signature.jwk["k"]))(signing_input) == octets
    public = imported(signature.jwk).public_key()
    try:
        if isinstance(public, rsa.RSAPublicKey):
            pss = padding.PSS(padding.MGF1(chosen), salt_length=chosen.digest_size)
            public.verify(octets, signing_input, pss if signature.algorithm == "PS384" else padding.PKCS1v15(), chosen)
        elif isinstance(public, ec.EllipticCurvePublicKey):
            half = len(octets) // 2
            der = encode_dss_signature(int.from_bytes(octets[:half]), int.from_bytes(octets[half:]))
            public.verify(der, signing_input, ec.ECDSA(chosen))
        else:
            public.verify(octets, signing_input)
    except InvalidSignature:
        return False
    return True


def turned(octets: bytes) -> Iterator[bytes]:
    """Gives the octets with one bit turned, each in its turn."""
    for at in range(len(octets) * 8):
        changed = bytearray(octets)
        changed[at // 8] ^= 1 << at % 8
        yield bytes(changed)


PRINTED_NAMES = {jwk["kid"] for file in FILES.values() for jwk in file.get("keys", {}).values() if "kid" in jwk}
KEYS = [
    token_key(as_pem(jwk), algorithm, name="the key")
    for algorithm, jwk in (
        (Algorithm.RS256, FILES["rfc7515"]["keys"]["A.2.1"]),
        (Algorithm.ES256, FILES["rfc7515"]["keys"]["A.3.1"]),
        (Algorithm.PS256, FILES["rfc7520"]["keys"]["3.4"]),
        (Algorithm.EDDSA, FILES["rfc8037"]["keys"]["A.1"]),
    )
]
