"""The strict front-end: a token has one spelling, and whatever else somebody's parser once took is refused."""

import base64
import functools
import json
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latchstring.core.keys.key_set import key_set_from_pems
from latchstring.core.keys.ring import EnvironmentRing
from latchstring.core.keys.settings import Algorithm
from latchstring.core.tokens.compact import MAX_LENGTH, MalformedTokenError, parse
from latchstring.core.tokens.rules import Issuer
from latchstring.core.tokens.tokens import Tokens
from tests.support.forge import KIND_FOR, always, as_json, b64url, compact, new_key, private_pem, unb64url
from tests.support.issued import a_caller, bearer_of

KEY_ID = "k" * 43
HEADER = {"alg": "RS256", "typ": "at+jwt", "kid": KEY_ID}
CLAIMS = {"sub": "ada"}
SIGNATURE = always(b"signature")
TOKEN = compact(HEADER, CLAIMS, SIGNATURE)
H, C, S = TOKEN.split(".")

NOW = 1_800_000_000


def header(**members: object) -> str:
    """Returns a token with members of the header added or replaced."""
    return compact(HEADER | members, CLAIMS, SIGNATURE)


def claims(raw: bytes) -> str:
    """Returns a token whose claims are these bytes."""
    return compact(HEADER, raw, SIGNATURE)


def of_length(length: int) -> str:
    """Returns a well-formed token of so many characters, all but the signature being the same."""
    start = f"{H}.{C}."
    return start + "A" * (length - len(start))


def test_a_token_is_taken_apart() -> None:
    """What is well formed comes out as it went in, and none of it is believed or dropped."""
    token = parse(TOKEN)
    assert (token.header, token.claims) == (("RS256", "at+jwt", KEY_ID), CLAIMS)
    assert parse(claims('{"name":"Ada Ωλ 🗝"}'.encode())).claims == {"name": "Ada Ωλ 🗝"}
    assert parse(claims(b'{"amr":["pwd"],"act":{"sub":"x"}}')).claims == {"amr": ["pwd"], "act": {"sub": "x"}}


def test_the_longest_token() -> None:
    """4,096 characters are read, and not one more (CVE-2025-61920)."""
    assert MAX_LENGTH == 4096
    parse(of_length(MAX_LENGTH))
    with pytest.raises(MalformedTokenError, match=r"^too long$"):
        parse(of_length(MAX_LENGTH + 1))


SHAPES = {
    "empty": "",
    "one part": H,
    "two parts": f"{H}.{C}",
    "four parts": f"{TOKEN}.{S}",
    "five parts, as JWE": f"{H}.{C}.{S}.{S}.{S}",
    "many dots": "." * 4000,
    "only dots": "..",
    "empty header": f".{C}.{S}",
    "empty claims": f"{H}..{S}",
    "empty signature": f"{H}.{C}.",
    "leading dot": f".{TOKEN}",
    "trailing dot": f"{TOKEN}.",
    "space before": f" {TOKEN}",
    "space after": f"{TOKEN} ",
    "newline after": f"{TOKEN}\n",
    "newline inside": f"{H}.\n{C}.{S}",
    "tab inside": f"{H}.{C[:4]}\t{C[4:]}.{S}",
    "NUL after": f"{TOKEN}\0",
    "padding on the header": f"{H}{'=' * (-len(H) % 4 or 4)}.{C}.{S}",
    "padding on the signature": f"{TOKEN}=",
    "alphabet of plain base64, +": f"{H}.{C}.+AAA",
    "alphabet of plain base64, /": f"{H}.{C}./AAA",
    "length no base64 has": f"{H}.{C}.AAAAA",
    "bits cut off by the last character": f"{H}.{C}.AB",
    "bits cut off by the last character of three": f"{H}.{C}.AAB",
    "full-width digit": f"{H}.{C}.AAA\uff11",
    "letter beyond ASCII": f"{H}.{C}.AAA\u00e9",
    "homoglyph of the dot": TOKEN.replace(".", "\uff0e"),
    "JSON serialisation": json.dumps({"protected": H, "payload": C, "signature": S}),
    "CVE-2022-39227, both serialisations": f'{{"  {H}.{C}.":"","protected":"{H}","payload":"{C}","signature":"{S}"}}',
}

HEADERS = {
    "no alg": compact({"typ": "at+jwt", "kid": KEY_ID}, CLAIMS, SIGNATURE),
    "no typ": compact({"alg": "RS256", "kid": KEY_ID}, CLAIMS, SIGNATURE),
    "no kid": compact({"alg": "RS256", "typ": "at+jwt"}, CLAIMS, SIGNATURE),
    "empty object": compact({}, CLAIMS, SIGNATURE),
    "a list": compact(b'["alg","typ","kid"]', CLAIMS, SIGNATURE),
    "a string": compact(b'"alg"', CLAIMS, SIGNATURE),
    "a name in capitals": compact({"ALG": "RS256", "typ": "at+jwt", "kid": KEY_ID}, CLAIMS, SIGNATURE),
    "crit": header(crit=["exp"]),
    "crit, empty": header(crit=[]),
    "jwk": header(jwk={"kty": "RSA", "e": "AQAB", "n": "AQAB"}),
    "jku": header(jku="https://evil.example/jwks.json"),
    "x5u": header(x5u="https://evil.example/x5u.pem"),
    "x5c": header(x5c=["MIIB"]),
    "zip": header(zip="DEF"),
    "b64": header(b64=False),
    "cty": header(cty="JWT"),
    "p2c": header(p2c=2**31 - 1),
    "enc": header(enc="A256GCM"),
    "alg: null": header(alg=None),
    "alg: list": header(alg=["RS256"]),
    "alg: bool": header(alg=True),
    "typ: number": header(typ=1),
    "typ: null": header(typ=None),
    "kid: number": header(kid=1),
    "kid: null": header(kid=None),
    "kid: object": header(kid={"$ne": ""}),
    "kid: empty": header(kid=""),
    "kid: too short for a thumbprint": header(kid=KEY_ID[:-1]),
    "kid: too long for a thumbprint": header(kid=KEY_ID + "k"),
    "kid: a path": header(kid="../" + KEY_ID[3:]),
    "kid: newline after": header(kid=KEY_ID + "\n"),
    "alg twice": compact(
        b'{"alg":"none","typ":"at+jwt","kid":"%s","alg":"RS256"}' % KEY_ID.encode(), CLAIMS, SIGNATURE
    ),
    "alg twice, once escaped": compact(
        rb'{"\u0061lg":"none","typ":"at+jwt","kid":"%s","alg":"RS256"}' % KEY_ID.encode(), CLAIMS, SIGNATURE
    ),
    "header in UTF-16": compact(json.dumps(HEADER).encode("utf-16"), CLAIMS, SIGNATURE),
    "header after a BOM": compact(b"\xef\xbb\xbf" + as_json(HEADER), CLAIMS, SIGNATURE),
    "header and more": compact(as_json(HEADER) + b"{}", CLAIMS, SIGNATURE),
    "deep header": compact(b"[" * 1500, CLAIMS, SIGNATURE),
}

PAYLOADS = {
    "nothing but white space": b" ",
    "no JSON": b"ada",
    "a list": b"[]",
    "a string": b'"sub"',
    "a number": b"1",
    "null": b"null",
    "another token": TOKEN.encode(),
    "single quotes": b"{'sub':'ada'}",
    "trailing comma": b'{"sub":"ada",}',
    "two objects": b'{"sub":"ada"}{"sub":"bob"}',
    "NUL after": b'{"sub":"ada"}\0',
    "raw control character": b'{"sub":"a\nda"}',
    "UTF-16": '{"sub":"ada"}'.encode("utf-16"),
    "UTF-16 without BOM": '{"sub":"ada"}'.encode("utf-16-le"),
    "UTF-32": '{"sub":"ada"}'.encode("utf-32"),
    "Latin-1": '{"sub":"ad\u00e1"}'.encode("latin-1"),
    "BOM": b'\xef\xbb\xbf{"sub":"ada"}',
    "overlong UTF-8": b'{"sub":"\xc1\xa1da"}',
    "surrogate in UTF-8": b'{"sub":"\xed\xa0\x80"}',
    "lone surrogate": rb'{"sub":"\ud800"}',
    "lone surrogate in a name": rb'{"\udc00":1}',
    "surrogates in the wrong order": rb'{"sub":"\udc00\ud800"}',
    "lone surrogate deep inside": rb'{"a":[{"b":["\ud800"]}]}',
    "a name twice": b'{"sub":"ada","sub":"bob"}',
    "a name twice, equal values": b'{"sub":"ada","sub":"ada"}',
    "a name twice, once escaped": rb'{"sub":"ada","\u0073ub":"bob"}',
    "a name twice, nested": b'{"sub":"ada","act":{"sub":"x","sub":"y"}}',
    "a name twice, in a list": b'{"act":[{"sub":"x","sub":"y"}]}',
    "NaN": b'{"exp":NaN}',
    "Infinity": b'{"exp":Infinity}',
    "-Infinity": b'{"exp":-Infinity}',
    "1e3": b'{"exp":1e3}',
    "1E400": b'{"exp":1E400}',
    "1.0": b'{"exp":1.0}',
    "a fraction, nested": b'{"a":[{"b":0.5}]}',
    "leading zero": b'{"exp":01}',
    "hexadecimal": b'{"exp":0x10}',
    "deep lists": b"[" * 1500 + b"]" * 1500,
    "deep lists inside": b'{"a":' + b"[" * 1400 + b"]" * 1400 + b"}",
    "deep objects, unfinished": b'{"a":' * 600,
}


@pytest.mark.parametrize(
    "text",
    [pytest.param(text, id=f"shape: {name}") for name, text in SHAPES.items()]
    + [pytest.param(text, id=f"header: {name}") for name, text in HEADERS.items()]
    + [pytest.param(claims(payload), id=f"claims: {name}") for name, payload in PAYLOADS.items()],
)
def test_what_is_refused(text: str) -> None:
    """Refused before a key or a library sees it, in words that repeat nothing of it."""
    with pytest.raises(MalformedTokenError) as refusal:
        parse(text)
    assert len(str(refusal.value)) < 60
    assert refusal.value.__cause__ is None


def test_a_number_of_any_size_is_read_or_refused() -> None:
    """A token full of digits costs what it is long: whole numbers are exact, however many digits."""
    assert parse(claims(b'{"exp":' + b"9" * 2500 + b"}")).claims["exp"] == int("9" * 2500)


near_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=2), inner, max_size=3),
    max_leaves=6,
)
near_part = st.one_of(
    st.sampled_from([H, C, S, ""]),
    st.binary(max_size=8).map(b64url),
    st.binary(max_size=8).map(base64.b64encode).map(bytes.decode),
    st.dictionaries(st.sampled_from(["alg", "typ", "kid", "sub"]), near_json).map(lambda value: b64url(as_json(value))),
    st.text(string.ascii_letters + string.digits + "-_+/=. \n", max_size=8),
)


@settings(deadline=None)
@given(st.lists(near_part, min_size=1, max_size=5).map(".".join) | st.text())
def test_any_text_is_a_token_or_malformed(text: str) -> None:
    """There is no third outcome, and what parses is spelt the one way in which its bytes are spelt."""
    try:
        token = parse(text)
    except MalformedTokenError:
        return
    parts = text.split(".")
    assert ".".join(b64url(unb64url(part)) for part in parts) == text
    assert json.loads(unb64url(parts[0])) == dict(zip(("alg", "typ", "kid"), token.header, strict=True))
    assert json.loads(unb64url(parts[1])) == token.claims


@settings(deadline=None)
@given(near_json.map(lambda value: {"claim": value}))
def test_claims_come_out_as_they_went_in(value: dict[str, object]) -> None:
    """Any JSON without fractions survives the way through a token."""
    assert parse(claims(as_json(value))).claims == value


@functools.cache
def issuing(algorithm: Algorithm) -> tuple[Tokens, tuple[str, str]]:
    """Returns an issuer with one key, and a pair of its tokens."""
    private = private_pem(new_key(KIND_FOR[algorithm])).decode()
    ring = EnvironmentRing(key_set_from_pems(algorithm=algorithm, private=private, public=None, extra_public=None))
    tokens = Tokens(ring, Issuer(name="latchstring", audience="latchstring"))
    caller = a_caller(now=NOW)
    pair = tokens.issue(caller, bearer_of(caller))
    return tokens, (pair.access, pair.refresh)


ALPHABET = string.ascii_letters + string.digits + "-_.=+/ \n\u00e9"


@pytest.mark.parametrize("algorithm", Algorithm)
@settings(deadline=None)
@given(data=st.data())
def test_one_mutation_makes_it_worthless(algorithm: Algorithm, data: st.DataObject) -> None:
    """A genuine token with one character changed, added, removed or moved is not genuine any more."""
    tokens, pair = issuing(algorithm)
    text = data.draw(st.sampled_from(pair), label="token")
    at = data.draw(st.integers(0, len(text) - 1), label="position")
    letter = data.draw(st.sampled_from(ALPHABET), label="letter")
    mutated = data.draw(
        st.sampled_from(
            [
                text[:at] + letter + text[at + 1 :],
                text[:at] + letter + text[at:],
                text[:at] + text[at + 1 :],
                text[:at] + text[at + 1 : at + 2] + text[at] + text[at + 2 :],
                text[:at],
                text + letter,
            ]
        ).filter(lambda candidate: candidate != text),
        label="mutated",
    )
    assert tokens.read_access(mutated, now=NOW) is None
    assert tokens.read_refresh(mutated, now=NOW) is None
    assert tokens.read_access(pair[0], now=NOW) is not None
    assert tokens.read_refresh(pair[1], now=NOW) is not None
