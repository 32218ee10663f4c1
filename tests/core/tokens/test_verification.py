"""Forged tokens at the two doors that take one, under the names of those who once let them in.

Each attack is a row: the advisories, and a function that makes forgeries of a genuine token by name. Every forgery is
shown as a cookie and, where its letters allow, as a bearer token, to the dashboard and to the refresh. None gets in,
each gets the same refusal, and the session it imitates lives on. The numbers are the rows of the table in SECURITY.md.
"""

import asyncio
import json
import re
import shutil
import string
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from httpx2 import AsyncClient, Response

from latchstring import Settings
from latchstring.apps.server import prepare
from latchstring.testing import ManualClock
from tests.support.forge import (
    Genuine,
    always,
    as_json,
    b64url,
    compact,
    hmac_with,
    new_key,
    public_pem,
    sign_with,
    thumbprint,
    unb64url,
)
from tests.support.service import Service, cheap_settings, quiet_service, running_service

Forgeries = Mapping[str, str]
Attack = Callable[[Genuine], Forgeries]

_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_ED25519_ORDER = 2**252 + 27742317777372353535851937790883648493
_BASE64URL = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
_ONE_BEARER_TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
_ELSEWHERE = "http://127.0.0.1:9/keys.json"


@pytest.fixture(scope="module")
def sqlite_template(sqlite_rsa_template: Path) -> Path:
    """A key of the kind that another algorithm could be confused about: RS256's public half as the secret of HS256."""
    return sqlite_rsa_template


@dataclass(frozen=True)
class Door:
    """A route that takes a token of one kind."""

    kind: str
    method: str
    path: str


DOORS = (Door("access", "GET", "/api/dashboard"), Door("refresh", "POST", "/api/auth/refresh"))


def none(genuine: Genuine) -> Forgeries:
    """No signature, under every spelling of `none`."""
    spellings = ("none", "None", "NONE", "nOnE", "", "null", " none")
    unsigned = {f"{alg!r}, nothing": genuine.with_header(alg=alg, sign=always(b"")) for alg in spellings}
    signed = {f"{alg!r}, signed": genuine.with_header(alg=alg) for alg in spellings}
    junk = {f"{alg!r}, one byte": genuine.with_header(alg=alg, sign=always(b"\0")) for alg in spellings}
    stripped = genuine.text.rpartition(".")[0]
    return {**unsigned, **signed, **junk, "stripped": f"{stripped}.", "stripped, no dot": stripped}


def hmac_by_public_key(genuine: Genuine) -> Forgeries:
    """HMAC, with the public key in every form it could lie about in as the secret."""
    public = genuine.key.public_key()
    pem = public_pem(genuine.key)
    secrets = {
        "PEM": pem,
        "PEM, no newline at the end": pem.rstrip(),
        "PEM, CRLF": pem.replace(b"\n", b"\r\n"),
        "PEM, no newlines": pem.replace(b"\n", b""),
        "base64 of the PEM": b64url(pem).encode(),
        "DER": public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        "OpenSSH": public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
        "kid": genuine.header["kid"].encode(),
        "nothing": b"",
    }
    if isinstance(public, rsa.RSAPublicKey):
        secrets["PKCS #1"] = public.public_bytes(Encoding.PEM, PublicFormat.PKCS1)
        secrets["modulus"] = public.public_numbers().n.to_bytes(public.key_size // 8)
    return {
        f"{alg}, {name}": genuine.with_header(alg=alg, sign=hmac_with(secret, alg))
        for name, secret in secrets.items()
        for alg in ("HS256", "HS384", "HS512")
    } | {
        f"says {genuine.header['alg']}, {name}": genuine.with_header(sign=hmac_with(secret))
        for name, secret in secrets.items()
    }


def another_algorithm(genuine: Genuine) -> Forgeries:
    """The right key, used in another way than it is meant for; and the right way, called by another name."""
    others = {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"} - {genuine.header["alg"]}
    truly = {f"{alg}, and says so": genuine.with_header(alg=alg, sign=sign_with(genuine.key, alg)) for alg in others}
    secretly = {f"{alg} in disguise": genuine.with_header(sign=sign_with(genuine.key, alg)) for alg in others}
    names = ("RS384", "PS256", "ES256", "EdDSA", "HS256", "rs256", "RS256 ", "RSA", "dir", "RSA1_5")
    return truly | secretly | {f"called {alg!r}": genuine.with_header(alg=alg) for alg in names}


def public_jwk(key: rsa.RSAPrivateKey) -> dict[str, str]:
    """Returns a public key as an attacker would embed it."""
    numbers = key.public_key().public_numbers()
    return {"kty": "RSA", "e": "AQAB", "n": b64url(numbers.n.to_bytes(key.key_size // 8))}


def embedded_key(genuine: Genuine) -> Forgeries:
    """A key of the attacker's, brought along in the header."""
    evil = new_key("RSA-2048", 666)
    assert isinstance(evil, rsa.RSAPrivateKey)
    sign = sign_with(evil, "RS256")
    jwk = public_jwk(evil)
    its_name = thumbprint(jwk)
    without_kid = {"alg": "RS256", "typ": genuine.header["typ"]}
    return {
        "jwk": genuine.with_header(jwk=jwk, sign=sign),
        "jwk with our kid": genuine.with_header(jwk=jwk | {"kid": genuine.header["kid"]}, sign=sign),
        "jwk with its own kid": genuine.with_header(jwk=jwk, kid=its_name, sign=sign),
        "jwk without kid": compact(without_kid | {"jwk": jwk}, genuine.claims, sign),
        "jwk in place of kid": compact(without_kid | {"kid": jwk}, genuine.claims, sign),
        "jwk, symmetric": genuine.with_header(
            alg="HS256", jwk={"kty": "oct", "k": b64url(b"evil")}, sign=hmac_with(b"evil")
        ),
        "jwks": genuine.with_header(jwks={"keys": [jwk]}, sign=sign),
        "x5c": genuine.with_header(x5c=[b64url(public_pem(evil))], sign=sign),
        "only the signature": genuine.with_header(sign=sign),
        "its own kid": genuine.with_header(kid=its_name, sign=sign),
        "our key, and a jwk beside it": genuine.with_header(jwk=jwk),
    }


def near_names(name: str) -> dict[str, str]:
    """Returns what a key may be called, 43 letters of base64url, and no key of ours is."""
    evil = new_key("RSA-2048", 666)
    assert isinstance(evil, rsa.RSAPrivateKey)
    # The last letter of 43 holds four bits of the hash, and two that mean nothing.
    last = _BASE64URL.index(name[-1])
    return {
        "another key's name": thumbprint(public_jwk(evil)),
        "capitals exchanged": name.swapcase(),
        "backwards": name[::-1],
        "the same hash, spelt otherwise": name[:-1] + _BASE64URL[last + 1],
        "another first letter": ("B" if name[0] == "A" else "A") + name[1:],
        "zeros": "A" * 43,
        "an attribute of Python's": "__class__".ljust(43, "_"),
    }


def somewhere_else(genuine: Genuine) -> Forgeries:
    """Where the key is to be found, if one were so kind to look."""
    sign = sign_with(new_key("RSA-2048", 666), "RS256")
    kids = near_names(genuine.header["kid"]) | {
        "a path": "../../../../../../dev/null",
        "a path of this system": "/proc/sys/kernel/randomize_va_space",
        "a URL": _ELSEWHERE,
        "a file's URL": "file:///dev/null",
        "SQL": "' OR '1'='1",
        "SQL that brings the key": "x' UNION SELECT 'evil' --",
        "a command": "|/usr/bin/true",
        "a template": "${jndi:ldap://127.0.0.1/a}",
        "NUL": f"{genuine.header['kid']}\0",
        "nothing": "",
        "a beginning": genuine.header["kid"][:-1],
        "long": "k" * 2000,
    }
    places: dict[str, dict[str, Any]] = {name: {name: _ELSEWHERE} for name in ("jku", "x5u", "x5t")}
    return (
        {f"kid: {name}": genuine.with_header(kid=kid, sign=sign) for name, kid in kids.items()}
        | {f"kid: {name}, our key": genuine.with_header(kid=kid) for name, kid in kids.items()}
        | {
            f"kid: {name}, empty HMAC": genuine.with_header(alg="HS256", kid=kid, sign=hmac_with(b""))
            for name, kid in kids.items()
        }
        | {name: genuine.with_header(**place, sign=sign) for name, place in places.items()}
        | {f"{name}, our key": genuine.with_header(**place) for name, place in places.items()}
    )


def critical(genuine: Genuine) -> Forgeries:
    """Extensions that must be understood, by somebody who does not."""
    return {
        "unknown": genuine.with_header(crit=["bork"], bork=True),
        "known": genuine.with_header(crit=["exp"], exp=2**40),
        "of the core": genuine.with_header(crit=["alg"]),
        "not there": genuine.with_header(crit=["absent"]),
        "empty": genuine.with_header(crit=[]),
        "null": genuine.with_header(crit=None),
        "text": genuine.with_header(crit="exp"),
    }


def unencoded(genuine: Genuine) -> Forgeries:
    """RFC 7797: a payload that is not base64url, or, to be verified, none at all."""
    claims = as_json(genuine.claims)
    header = genuine.header | {"b64": False, "crit": ["b64"]}
    part = b64url(as_json(header))
    signature = b64url(genuine.sign(part.encode() + b"." + claims))
    return {
        "b64": compact(header, genuine.claims, genuine.sign),
        "b64, not critical": genuine.with_header(b64=False),
        "b64, true": genuine.with_header(b64=True, crit=["b64"]),
        "raw payload": f"{part}.{claims.decode()}.{signature}",
        "detached payload": f"{part}..{signature}",
        "detached payload, plain": re.sub(r"\..*\.", "..", genuine.text),
    }


def encrypted(genuine: Genuine) -> Forgeries:
    """JWE where JWS is due; one asks for two thousand million rounds of PBKDF2 first."""
    forgeries = {}
    for alg, more in (
        ("PBES2-HS256+A128KW", {"p2c": 2**31 - 1, "p2s": b64url(b"salt" * 4)}),
        ("RSA-OAEP", {}),
        ("dir", {}),
        ("A256GCMKW", {"iv": b64url(b"i" * 12), "tag": b64url(b"t" * 16)}),
    ):
        header = genuine.header | {"alg": alg, "enc": "A128CBC-HS256"} | more
        parts = [as_json(header), b"k" * 40, b"i" * 16, as_json(genuine.claims), b"t" * 16]
        forgeries[f"{alg}, five parts"] = ".".join(map(b64url, parts))
        forgeries[f"{alg}, three parts"] = compact(header, genuine.claims, genuine.sign)
    return forgeries


def compressed(genuine: Genuine) -> Forgeries:
    """A payload that unpacks to a thousand times its size."""
    bomb = zlib.compress(b'{"a":"' + b"a" * 1_000_000 + b'"}', 9)[2:-4]
    claims = zlib.compress(as_json(genuine.claims))[2:-4]
    header = genuine.header | {"zip": "DEF"}
    return {
        "bomb": compact(header, bomb, genuine.sign),
        "bomb, unannounced": compact(genuine.header, bomb, genuine.sign),
        "honest claims": compact(header, claims, genuine.sign),
        "not compressed at all": genuine.with_header(zip="DEF"),
    }


def oversized(genuine: Genuine) -> Forgeries:
    """Long parts and many dots."""
    header, claims, signature = genuine.text.split(".")
    return {
        "one character too long": f"{header}.{claims}.{signature.ljust(4097 - len(header) - len(claims) - 2, 'A')}",
        "long claim": genuine.with_claims(name="a" * 4096),
        "long kid": genuine.with_header(kid="k" * 4096),
        "long signature": f"{header}.{claims}.{'A' * 20_000}",
        "many dots": "." * 20_000,
        "many parts": ".".join([header] * 40),
        "twice": f"{genuine.text}.{genuine.text}",
        "as long as may be": compact(
            genuine.header,
            genuine.claims | {"name": "a" * ((4096 - len(genuine.text)) * 3 // 4 - 12)},
            always(unb64url(signature)),
        ),
        "deep claims": compact(genuine.header, b"[" * 2000 + b"]" * 2000, genuine.sign),
        "deep claims that fit": compact(genuine.header, b"[" * 1100 + b"]" * 1100, genuine.sign),
        "many digits": compact(
            genuine.header, as_json(genuine.claims)[:-1] + b',"n":' + b"9" * 1500 + b"}", always(b"x")
        ),
    }


def mixed_forms(genuine: Genuine) -> Forgeries:
    """JSON and compact in one text: the signature is checked on one, the claims are read from the other."""
    header, claims, signature = genuine.text.split(".")
    evil = b64url(as_json(genuine.claims | {"sub": "00000000-0000-7000-8000-000000000000"}))
    flattened = {"protected": header, "payload": claims, "signature": signature}
    return {
        "python-jwt": json.dumps({f"  {header}.{evil}.": "", **flattened}),
        "flattened JSON": json.dumps(flattened),
        "general JSON": json.dumps({"payload": claims, "signatures": [{"protected": header, "signature": signature}]}),
        "claims exchanged": f"{header}.{evil}.{signature}",
        "both claims": f"{header}.{claims}.{evil}.{signature}",
    }


def other_parties(genuine: Genuine) -> Forgeries:
    """Honestly signed, from or for almost us."""
    ours: str = genuine.claims["iss"]
    near = {
        "a beginning": ours[:-1],
        "an end": ours[1:],
        "one letter": ours[0],
        "longer": f"{ours}s",
        "capitals": ours.upper(),
        "slash": f"{ours}/",
        "white space": f" {ours}",
        "NUL": f"{ours}\0",
        "empty": "",
        "null": None,
        "number": 1,
        "true": True,
        "list of it": [ours],
        "list of it and another": [ours, "evil"],
        "list": ["evil"],
        "empty list": [],
        "object of it": {ours: ours},
    }
    return {
        f"{claim}: {name}": genuine.with_claims(**{claim: value})
        for claim in ("iss", "aud")
        for name, value in near.items()
    }


def two_errors(genuine: Genuine) -> Forgeries:
    """Expired and forged: the word about the expiry must not hide that nobody signed it."""
    header, _claims, signature = genuine.text.split(".")
    late = genuine.claims | {"exp": 1}
    evil = sign_with(new_key("RSA-2048", 666), "RS256")
    names = near_names(genuine.header["kid"])
    return {
        "expired, another's signature": f"{header}.{b64url(as_json(late))}.{signature}",
        "expired, no name of a key": compact(genuine.header | {"kid": "x"}, late, genuine.sign),
        "expired, somebody's key": compact(genuine.header, late, evil),
        "expired, unsigned": compact(genuine.header | {"alg": "none"}, late, always(b"\0")),
        "expired, HMAC": compact(genuine.header | {"alg": "HS256"}, late, hmac_with(public_pem(genuine.key))),
        **{f"expired, {what}": compact(genuine.header | {"kid": kid}, late, evil) for what, kid in names.items()},
        **{
            f"expired, {what}, our key": compact(genuine.header | {"kid": kid}, late, genuine.sign)
            for what, kid in names.items()
        },
        "expired, another audience": genuine.with_claims(exp=1, aud="evil"),
        "expired, another kind": compact(genuine.header | {"typ": "JWT"}, late, genuine.sign),
    }


def zero_signatures(genuine: Genuine) -> Forgeries:
    """Signatures no key can have made, that some verifiers find in order; and ones in another form."""
    honest = unb64url(genuine.text.rpartition(".")[2])
    if isinstance(genuine.key, ed25519.Ed25519PrivateKey):
        signatures = _zeros_of_ed25519(honest)
    else:
        assert isinstance(genuine.key, ec.EllipticCurvePrivateKey)
        signatures = _zeros_of_p256(honest)
    signatures |= {
        "honest, cut short": honest[:-1],
        "honest, and more": honest + b"\0",
        "empty zeros": b"\0",
        "P-384's width": bytes(96),
        "of another text": genuine.sign(b"another text"),
    }
    return {name: genuine.with_header(sign=always(signature)) for name, signature in signatures.items()}


def _zeros_of_p256(honest: bytes) -> dict[str, bytes]:
    def pair(r: int, s: int) -> bytes:
        return r.to_bytes(32) + s.to_bytes(32)

    def der(r: int, s: int) -> bytes:
        return encode_dss_signature(r, s)

    r, s = int.from_bytes(honest[:32]), int.from_bytes(honest[32:])
    numbers = {"0": 0, "1": 1, "n": _P256_ORDER, "n-1": _P256_ORDER - 1, "max": 2**256 - 1}
    signatures = {f"r={a}, s={b}": pair(numbers[a], numbers[b]) for a in numbers for b in numbers}
    signatures |= {f"r={a}, s={b}, DER": der(numbers[a], numbers[b]) for a in ("0", "1", "n") for b in ("0", "1", "n")}
    return signatures | {
        "honest r": pair(r, 0),
        "honest s": pair(0, s),
        "exchanged": pair(s, r),
        "honest, DER": der(r, s),
        "honest, DER and more": der(r, s) + b"\0",
        "honest, wider numbers": b"\0" + honest[:32] + b"\0" + honest[32:],
        "honest, plus the order": ((r + _P256_ORDER).to_bytes(33) + s.to_bytes(33)),
    }


def _zeros_of_ed25519(honest: bytes) -> dict[str, bytes]:
    # RFC 8032, section 5.1.7: points of small order, and S beyond the order, by which one signature would be many.
    # A point is spelt by its y; the last bit is the sign of its x.
    p = 2**255 - 19
    points = {"identity": 1, "order 2": p - 1, "order 4": 0, "identity, beyond p": p + 1, "order 4, beyond p": p}
    points |= {f"{name}, negative": y | 2**255 for name, y in points.items()}
    scalars = {"0": 0, "1": 1, "L-1": _ED25519_ORDER - 1, "L": _ED25519_ORDER, "max": 2**256 - 1}
    r, s = honest[:32], int.from_bytes(honest[32:], "little")

    def pair(point: bytes, scalar: int) -> bytes:
        return point + scalar.to_bytes(32, "little")

    signatures = {f"R={a}, S={b}": pair(points[a].to_bytes(32, "little"), scalars[b]) for a in points for b in scalars}
    signatures |= {f"honest R, S={name}": pair(r, scalar) for name, scalar in scalars.items()}
    signatures |= {
        f"honest, S plus {times} L": pair(r, s + times * _ED25519_ORDER) for times in (1, 2, 8) if s < 2**252
    }
    return signatures | {"exchanged": honest[32:] + honest[:32], "honest S": pair(bytes(32), s)}


def other_kinds(genuine: Genuine) -> Forgeries:
    """Honestly signed, but not the kind of token this door takes."""
    swapped = {"access": "refresh", "refresh": "access"}[genuine.claims["type"]]
    types = {"access": "at+jwt", "refresh": "rt+jwt"}
    headers = ("JWT", "jwt", "", "AT+JWT", "application/at+jwt", "logout+jwt", "at+jwt ", types[swapped])
    everything = {"gen": 0, "auth_time": 1, "amr": ["pwd"], "ver": 1, "client_id": "latchstring"} | genuine.claims
    return (
        {f"typ {typ!r}": genuine.with_header(typ=typ) for typ in headers}
        | {f"type {kind!r}": genuine.with_claims(type=kind) for kind in (swapped, "", "ACCESS", None, True, [swapped])}
        | {
            "the other kind's typ, with all claims": compact(
                genuine.header | {"typ": types[swapped]}, everything, genuine.sign
            ),
            "the other kind's type, with all claims": compact(
                genuine.header, everything | {"type": swapped}, genuine.sign
            ),
        }
    )


def odd_claims(genuine: Genuine) -> Forgeries:
    """Honestly signed, with a claim missing or of another type than it has."""
    numbers: dict[str, object] = {
        "true": True,
        "float": 4e9,
        "text": "4000000000",
        "null": None,
        "list": [4_000_000_000],
    }
    numbers |= {"negative": -1, "beyond 2^53": 2**53, "huge": 10**400, "object": {}}
    ids: dict[str, object] = {"true": True, "number": 1, "null": None, "empty": "", "no id": "ada", "list": []}
    ids |= {"hex": "0" * 32, "urn": f"urn:uuid:{genuine.claims['sub']}", "braces": f"{{{genuine.claims['sub']}}}"}
    texts: dict[str, object] = {"true": True, "number": 1, "null": None, "empty": "", "list": ["a"], "object": {}}
    lists: dict[str, object] = {"text": "pwd", "null": None, "numbers": [1], "object": {}, "nested": [["pwd"]]}
    odd = {
        **dict.fromkeys(("exp", "iat", "nbf", "auth_time", "ver", "gen"), numbers),
        **dict.fromkeys(("sub", "sid"), ids),
        **dict.fromkeys(("jti", "type", "iss", "aud", "client_id"), texts),
        "amr": lists,
    }
    assert genuine.claims.keys() <= odd.keys()
    return (
        {f"no {name}": genuine.without(name) for name in genuine.claims}
        | {
            f"{name}: {what}": genuine.with_claims(**{name: value})
            for name in genuine.claims
            for what, value in odd[name].items()
        }
        | (
            {f"roles: {what}": genuine.with_claims(roles=value) for what, value in lists.items()}
            if genuine.claims["type"] == "access"
            else {}
        )
        | {
            "no claims": compact(genuine.header, {}, genuine.sign),
            "a claim twice": compact(
                genuine.header,
                as_json(genuine.claims)[:-1] + b',"sub":"00000000-0000-7000-8000-000000000000"}',
                genuine.sign,
            ),
            "1e10 for exp": compact(
                genuine.header,
                as_json(genuine.claims).replace(b'"exp":%d' % genuine.claims["exp"], b'"exp":1e10'),
                genuine.sign,
            ),
            "NaN for exp": compact(
                genuine.header,
                as_json(genuine.claims).replace(b'"exp":%d' % genuine.claims["exp"], b'"exp":NaN'),
                genuine.sign,
            ),
            "UTF-16": compact(genuine.header, json.dumps(genuine.claims).encode("utf-16"), genuine.sign),
            "BOM": compact(genuine.header, b"\xef\xbb\xbf" + as_json(genuine.claims), genuine.sign),
        }
    )


def from_the_future(genuine: Genuine) -> Forgeries:
    """Honestly signed, and not valid yet: six seconds are more than clocks may differ."""
    now = genuine.claims["iat"]
    return {
        f"{name} in {seconds} s": genuine.with_claims(**{name: now + seconds})
        for name in ("iat", "nbf")
        for seconds in (6, 60, 10**9)
    }


HMAC_ADVISORIES = "CVE-2016-10555, CVE-2017-11424, CVE-2022-29217, CVE-2024-33663, CVE-2024-37568, CVE-2026-48526"
ATTACKS: Mapping[str, Attack] = {
    "1: CVE-2015-9235, alg none": none,
    f"2: {HMAC_ADVISORIES}, HMAC": hmac_by_public_key,
    "3: CVE-2026-33322, CVE-2026-11800, alg from the token": another_algorithm,
    "4: CVE-2018-0114, CVE-2026-27962, jwk": embedded_key,
    "5: PYSEC-2026-175, jku, x5u and kid": somewhere_else,
    "6: CVE-2025-59420, CVE-2026-32597, crit": critical,
    "7: PYSEC-2026-178, b64": unencoded,
    "8: CVE-2023-6681, CVE-2023-49290, CVE-2023-50967, PBES2": encrypted,
    "9: CVE-2024-28180, CVE-2024-33664, CVE-2024-28122, zip": compressed,
    "10: CVE-2025-61920, CVE-2025-30204, CVE-2025-27144, size": oversized,
    "11: CVE-2022-39227, mixed forms": mixed_forms,
    "12: GHSA-75c5-xw7c-p5pm, CVE-2020-26160, iss and aud": other_parties,
    "13: CVE-2024-51744, two errors": two_errors,
    "RFC 8725 3.11, kinds": other_kinds,
    "RFC 8725 3.10, claims": odd_claims,
    "RFC 7519 4.1.5, not yet": from_the_future,
}


@pytest.mark.parametrize("attack", [pytest.param(attack, id=name) for name, attack in ATTACKS.items()])
async def test_no_forgery_gets_in(shared: Service, attack: Attack) -> None:
    """Every forgery gets the one refusal at both doors, and does the session it imitates no harm."""
    await _all_refused(shared, attack)


@pytest.fixture(scope="module", params=["ES256", "EdDSA"])
async def curve_service(
    request: pytest.FixtureRequest, sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Service]:
    path = shutil.copy(sqlite_template, tmp_path_factory.mktemp("curve") / "latchstring.db")
    settings = cheap_settings(f"sqlite:///{path}", jwt_algorithm=request.param)
    await prepare(settings)
    clock = ManualClock()
    clock.advance(minutes=11)  # past the time for which a key is published before it signs
    async with running_service(settings, clock) as running:
        assert running.auth.parts.ring.current.signing.algorithm == request.param
        yield running


@pytest.mark.parametrize(
    "attack",
    [
        pytest.param(zero_signatures, id="14: CVE-2022-21449, CVE-2019-14859, zero signatures"),
        pytest.param(none, id="1: CVE-2015-9235, alg none"),
        pytest.param(hmac_by_public_key, id=f"2: {HMAC_ADVISORIES}, HMAC"),
    ],
)
async def test_no_forgery_gets_in_on_elliptic_curves(curve_service: Service, attack: Attack) -> None:
    """The same with ES256 and EdDSA, whose signatures have forms and zeros of their own."""
    await _all_refused(curve_service, attack)


async def test_unknown_keys_are_not_looked_up(settings: Settings, clock: ManualClock) -> None:
    """PYSEC-2026-177: whoever sends tokens with ever new key ids makes this server ask nobody anything.

    Not even its own database, but once a second for names that a key could have.
    """
    async with quiet_service(settings, clock) as service:
        browser = await service.registered()
        genuine = {door.kind: _genuine(service, browser, door.kind) for door in DOORS}
        asked: list[str] = []
        engine = service.auth.parts.tools.database.engine.sync_engine
        sa.event.listen(engine, "before_cursor_execute", lambda *arguments: asked.append(arguments[2]))
        for number in range(75):
            for door in DOORS:
                key = {"kty": "OKP", "crv": "Ed25519", "x": f"{door.kind} {number}"}
                for kid in (f"kid {number}", thumbprint(key)):
                    # As if signed: nobody knows, and nobody should look.
                    forged = genuine[door.kind].with_header(kid=kid, sign=always(b"s" * 256))
                    assert (await _show(service, door, forged)).status_code == 401
    # The clock that counts the second stands still here: the keys' revision and the keys, once.
    assert len(asked) == 2, asked
    assert sum("private_sealed" in statement for statement in asked) == 1


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.kind)
async def test_a_forgery_signs_nobody_out(shared: Service, door: Door) -> None:
    """CVE-2024-51744: a sign-out ends no session of which only a forged token is shown, expired or not."""
    browser = await shared.somebody()
    genuine = _genuine(shared, browser, door.kind)
    forged = {**none(genuine), **two_errors(genuine), **other_parties(genuine), **embedded_key(genuine)}
    stranger = shared.browser()
    # At once: those that name keys of their own wait up to a second for the next look at the ring, and share it.
    answers = await asyncio.gather(
        *(
            stranger.post("/api/auth/logout", headers=headers)
            for text in forged.values()
            for headers in _ways(shared, door, text)
        )
    )
    assert {answer.status_code for answer in answers} == {200}
    assert (await browser.get("/api/dashboard")).status_code == 200
    assert (await browser.post("/api/auth/refresh")).status_code == 200


@pytest.mark.parametrize("backend", ["sqlite"])
@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.kind)
async def test_expiry_is_exact(service: Service, door: Door) -> None:
    """A token is good until the instant before its `exp`, and at that instant no longer."""
    browser = await service.registered()
    genuine = _genuine(service, browser, door.kind)
    service.clock.advance(seconds=genuine.claims["exp"] - service.clock.now().timestamp() - 0.000_001)
    assert (await _show(service, door, genuine.text)).status_code == 200
    service.clock.advance(seconds=0.000_001)
    answer = await _show(service, door, genuine.text)
    assert service.clock.now().timestamp() == genuine.claims["exp"]
    assert (answer.status_code, answer.json()["detail"]) == (401, "You must refresh")
    assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'


@pytest.mark.parametrize("claim", ["iat", "nbf"])
@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.kind)
async def test_clocks_may_differ_by_five_seconds(shared: Service, door: Door, claim: str) -> None:
    """A token of an instance whose clock is five seconds ahead is taken; `exp` knows no such leeway."""
    genuine = _genuine(shared, await shared.somebody(), door.kind)
    ahead = genuine.with_claims(**{claim: int(shared.clock.now().timestamp()) + 5})
    assert (await _show(shared, door, ahead)).status_code == 200


async def test_a_generation_of_the_far_future(service: Service) -> None:
    """A number that fits the token and no column of the database is a refusal, never a 500."""
    genuine = _genuine(service, await service.registered(), "refresh")
    refusals = {2: "session_ended", 2**31 - 1: "session_ended", 2**31: "invalid_token", 2**53 - 1: "invalid_token"}
    for generation, code in refusals.items():
        answer = await _show(service, DOORS[1], genuine.with_claims(gen=generation))
        assert (answer.status_code, answer.json()["code"]) == (401, code), generation
    assert (await _show(service, DOORS[1], genuine.text)).status_code == 200


async def test_a_session_belongs_to_its_user(service: Service) -> None:
    """CVE-2025-12390: a refresh token that pairs one user's session with another user renews neither."""
    ada = _genuine(service, await service.registered(), "refresh")
    bob = _genuine(service, await service.registered("bob@example.com"), "refresh")
    answer = await _show(service, DOORS[1], ada.with_claims(sub=bob.claims["sub"]))
    assert (answer.status_code, answer.json()["code"]) == (401, "session_ended")
    for genuine in (ada, bob):
        assert (await _show(service, DOORS[1], genuine.text)).status_code == 200


async def _all_refused(service: Service, attack: Attack) -> None:
    browser, stranger = await service.somebody(), service.browser()
    for door in DOORS:
        genuine = _genuine(service, browser, door.kind)
        # What the forger makes without changing anything is good: a refusal below is for what was changed.
        assert (await _show(service, door, genuine.with_claims())).status_code == 200
        let_through = {
            f"{name} ({'cookie' if 'cookie' in headers else 'header'})": (answer.status_code, answer.text)
            for name, text in attack(genuine).items()
            for headers in _ways(service, door, text)
            if not _is_refusal(answer := await stranger.request(door.method, door.path, headers=headers))
        }
        assert let_through == {}, door
    assert (await browser.get("/api/dashboard")).status_code == 200
    assert (await browser.post("/api/auth/refresh")).status_code == 200


def _is_refusal(answer: Response) -> bool:
    return (
        answer.status_code == 401
        and answer.json()["code"] == "invalid_token"
        and answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
        and answer.headers["cache-control"] == "no-store"
        and "set-cookie" not in answer.headers
    )


async def _show(service: Service, door: Door, text: str) -> Response:
    return await service.browser().request(door.method, door.path, headers={"Authorization": f"Bearer {text}"})


def _ways(service: Service, door: Door, text: str) -> Iterator[dict[str, str]]:
    name = (
        service.auth.parts.tools.web.cookies.access_name
        if door.kind == "access"
        else service.auth.parts.tools.web.cookies.refresh_name
    )
    if text:
        yield {"cookie": f"{name}={text}"}
    if _ONE_BEARER_TOKEN.fullmatch(text):
        yield {"authorization": f"Bearer {text}"}


def _genuine(service: Service, browser: AsyncClient, kind: str) -> Genuine:
    return Genuine.of(browser.cookies[f"{kind}_token"], service)
