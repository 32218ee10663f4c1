"""PyJWT as the second opinion: whatever we accept it accepts, and what we issue it verifies, to the last claim."""

import functools
import json
from typing import Any

import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jwt.algorithms import OKPAlgorithm

from latchstring.core.keys.key_set import KeySet, key_set_from_pems
from latchstring.core.keys.settings import Algorithm
from latchstring.core.tokens import verification
from latchstring.core.tokens.rules import Issuer, Kind, access_claims, refresh_claims
from latchstring.core.tokens.tokens import signed
from latchstring.core.tokens.verification import TokenReader, UnknownKeyError
from tests.support.forge import KIND_FOR, PrivateKey, compact, new_key, private_pem, sign_with
from tests.support.issued import a_caller, bearer_of

NOW = 1_800_000_000
ISSUER = Issuer(name="https://id.example.com", audience="https://api.example.com")

# PyJWT knows the signature by its older name only (RFC 9864), and is told that they are one.
second = jwt.PyJWT()
second._jws.register_algorithm("Ed25519", OKPAlgorithm())


@functools.cache
def keys_for(algorithm: Algorithm) -> KeySet:
    pem = private_pem(key_for(algorithm)).decode()
    return key_set_from_pems(algorithm=algorithm, private=pem, public=None, extra_public=None)


def key_for(algorithm: Algorithm) -> PrivateKey:
    return new_key(KIND_FOR[algorithm])


def second_reading(text: str, algorithm: Algorithm) -> dict[str, Any]:
    """Returns the claims as PyJWT reads them, which knows the key, the algorithm, and who the parties are."""
    return second.decode(
        text,
        key_for(algorithm).public_key(),
        [algorithm.value],
        audience=ISSUER.audience,
        issuer=ISSUER.name,
        # Both are told the time; PyJWT has no argument for it.
        options={"verify_exp": False, "verify_iat": False, "verify_nbf": False},
    )


@functools.cache
def claims() -> tuple[dict[str, Any], dict[str, Any]]:
    caller = a_caller(now=NOW, claims_version=3, epoch=2, roles=("admin", "Ω 🗝"), proven_at_unix=NOW - 60)
    bearer = bearer_of(caller)
    return access_claims(caller, generation=1, issuer=ISSUER), refresh_claims(bearer, issuer=ISSUER)


@pytest.mark.parametrize("algorithm", Algorithm)
def test_what_we_issue_it_verifies(algorithm: Algorithm) -> None:
    """Both kinds, under every algorithm, and it reads the very claims that we wrote."""
    for kind, written in zip((Kind.ACCESS, Kind.REFRESH), claims(), strict=True):
        text = signed(keys_for(algorithm), kind, written)
        assert second_reading(text, algorithm) == written
        assert jwt.get_unverified_header(text) == {
            "alg": algorithm.value,
            "typ": kind.header_type,
            "kid": keys_for(algorithm).signing.kid,
        }


def test_what_was_verified_is_remembered_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """T38: whoever refreshes all day has ever new tokens, and does not fill the memory with them."""
    monkeypatch.setattr(verification, "_MAX_SEEN", 4)
    reader, keys = TokenReader(ISSUER), keys_for(Algorithm.ES256)
    for generation in range(1, 20):
        said = access_claims(a_caller(now=NOW), generation=generation, issuer=ISSUER)
        assert reader.access(signed(keys, Kind.ACCESS, said), keys.verifying, now=NOW) is not None
        assert len(reader._seen) <= 4


def agree(text: str, algorithm: Algorithm) -> bool:
    """Tells whether we accept a text; if we do, the second opinion does, and says the same of who it is."""
    try:
        caller = TokenReader(ISSUER).access(text, keys_for(algorithm).verifying, now=NOW)
    except UnknownKeyError:
        return False
    if caller is None:
        return False
    read = second_reading(text, algorithm)
    assert (read["sub"], read["sid"], read["exp"]) == (
        str(caller.user_id),
        str(caller.session_id),
        caller.expires_at_unix,
    )
    return True


odd: st.SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.just([])
    | st.just({})
)
changes = st.dictionaries(st.sampled_from([*claims()[0], "crit", "roles", "gen", "new"]), odd, max_size=2)


@pytest.mark.parametrize("algorithm", Algorithm)
@settings(deadline=None, max_examples=60)
@given(header=st.dictionaries(st.sampled_from(["alg", "typ", "kid", "crit", "b64"]), odd, max_size=1), claimed=changes)
def test_whatever_we_accept_it_accepts(algorithm: Algorithm, header: dict[str, Any], claimed: dict[str, Any]) -> None:
    """Of tokens honestly signed that say something odd, in the header or in the claims."""
    genuine = {"alg": algorithm.value, "typ": "at+jwt", "kid": keys_for(algorithm).signing.kid}
    sign = sign_with(key_for(algorithm), "ES256" if algorithm is Algorithm.ES256 else algorithm.value)
    accepted = agree(compact(genuine | header, claims()[0] | claimed, sign), algorithm)
    if not header and not claimed:
        assert accepted


@pytest.mark.parametrize("algorithm", Algorithm)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_the_same_of_texts_that_were_changed(algorithm: Algorithm, data: st.DataObject) -> None:
    """Cut anywhere and put together with another genuine token: what we take is what was issued."""
    genuine = [
        signed(keys_for(algorithm), kind, written | {"jti": jti})
        for kind, written in zip((Kind.ACCESS, Kind.REFRESH), claims(), strict=True)
        for jti in ("one", "two")
    ]
    one, two = data.draw(st.sampled_from(genuine)), data.draw(st.sampled_from(genuine))
    cut, join = data.draw(st.integers(0, len(one))), data.draw(st.integers(0, len(two)))
    text = one[:cut] + two[join:]
    if agree(text, algorithm):
        payload = json.loads(jwt.utils.base64url_decode(text.split(".")[1]))
        assert payload in [claims()[0] | {"jti": jti} for jti in ("one", "two")]
