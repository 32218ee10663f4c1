"""What a token says: claims made and read without a key, a clock or a database."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latchstring.core.caller import Caller, Proven
from latchstring.core.tokens.rules import (
    CLOCK_SKEW_SECONDS,
    ClaimsError,
    Issuer,
    Kind,
    RefreshClaims,
    TokenSession,
    access_claims,
    read_access_claims,
    read_refresh_claims,
    read_token_session,
    refresh_claims,
    token_id,
)

NOW = 1_800_000_000
ISSUER = Issuer(name="https://id.example.com", audience="https://api.example.com")
CALLER = Caller(
    user_id=UUID("0195b3c4-0000-7000-8000-000000000001"),
    session_id=UUID("0195b3c4-0000-7000-8000-000000000002"),
    claims_version=1,
    epoch=0,
    roles=(),
    methods=("pwd",),
    proven_at_unix=NOW - 60,
    issued_at_unix=NOW,
    expires_at_unix=NOW + 900,
)
BEARER = RefreshClaims(
    user_id=CALLER.user_id,
    session_id=CALLER.session_id,
    issued_at_unix=NOW,
    expires_at_unix=NOW + 3600,
    generation=3,
    proven=CALLER.proven,
)

seconds = st.integers(0, 253_402_300_799)  # to the end of the year 9999
versions = st.integers(0, 2**53 - 1)
texts = st.lists(st.text(max_size=8), max_size=3).map(tuple)
callers = st.builds(
    Caller,
    user_id=st.uuids(),
    session_id=st.uuids(),
    claims_version=versions,
    epoch=versions,
    roles=texts,
    methods=texts,
    proven_at_unix=seconds,
    issued_at_unix=seconds,
    expires_at_unix=seconds,
)
bearers = st.builds(
    RefreshClaims,
    user_id=st.uuids(),
    session_id=st.uuids(),
    issued_at_unix=seconds,
    expires_at_unix=seconds,
    generation=st.integers(0, 2**31 - 1),
    proven=st.none() | st.builds(Proven, at_unix=seconds, methods=texts),
)


@settings(deadline=None)
@given(callers, versions)
def test_an_access_token_says_its_caller(caller: Caller, generation: int) -> None:
    """What goes into an access token comes out of it, all of it, and roles are absent where there are none."""
    claims = access_claims(caller, generation=generation, issuer=ISSUER)
    assert read_access_claims(claims, issuer=ISSUER, now=caller.issued_at_unix) == caller
    assert ("roles" in claims) == bool(caller.roles)


@settings(deadline=None)
@given(bearers)
def test_a_refresh_token_says_its_generation(bearer: RefreshClaims) -> None:
    """What goes into a refresh token comes out of it."""
    claims = refresh_claims(bearer, issuer=ISSUER)
    assert read_refresh_claims(claims, issuer=ISSUER, now=bearer.issued_at_unix) == bearer


Read = Callable[[dict[str, Any], float], object]


def read_access(claims: dict[str, Any], now: float = NOW) -> object:
    """Reads claims as those of an access token."""
    return read_access_claims(claims, issuer=ISSUER, now=now)


def read_refresh(claims: dict[str, Any], now: float = NOW) -> object:
    """Reads claims as those of a refresh token."""
    return read_refresh_claims(claims, issuer=ISSUER, now=now)


KINDS: list[tuple[Read, dict[str, Any]]] = [
    (read_access, access_claims(replace(CALLER, roles=("admin",)), generation=3, issuer=ISSUER)),
    (read_refresh, refresh_claims(BEARER, issuer=ISSUER)),
]
REQUIRED = [
    pytest.param(read, claims, name, id=f"{claims['type']}: {name}")
    for read, claims in KINDS
    for name in claims
    if name != "roles"
]
ODD: list[object] = [None, True, False, 1.0, -1, 2**53, "", [], {}, [None], [1], ["pwd", 1], float("nan"), b"pwd"]


@pytest.mark.parametrize(("read", "claims", "name"), REQUIRED)
def test_every_claim_is_required(read: Read, claims: dict[str, Any], name: str) -> None:
    """A token in which one claim is missing says nothing at all."""
    read(claims, NOW)
    with pytest.raises(ClaimsError):
        read({other: claims[other] for other in claims.keys() - {name}}, NOW)


@pytest.mark.parametrize(("read", "claims", "name"), [*REQUIRED, pytest.param(*KINDS[0], "roles", id="access: roles")])
@pytest.mark.parametrize("value", ODD, ids=repr)
def test_every_claim_has_one_type(read: Read, claims: dict[str, Any], name: str, value: object) -> None:
    """Numbers are whole and never a bool or a text, lists hold texts: what nearly fits is refused."""
    if type(value) is list and not value and name in {"amr", "roles"}:
        read(claims | {name: value}, NOW)
        return
    with pytest.raises(ClaimsError):
        read(claims | {name: value}, NOW)


@settings(deadline=None)
@given(st.uuids())
def test_an_id_has_one_spelling(user_id: UUID) -> None:
    """Ids are read in the one form they are written in: two texts never name one user (CVE-2019-19844's cousin)."""
    claims = KINDS[0][1]
    for text in (user_id.hex, f"{{{user_id}}}", user_id.urn, f" {user_id}", f"{user_id}\n"):
        with pytest.raises(ClaimsError):
            read_access(claims | {"sub": text})
    if str(user_id) != str(user_id).upper():
        with pytest.raises(ClaimsError):
            read_access(claims | {"sid": str(user_id).upper()})


@pytest.mark.parametrize(("read", "claims"), KINDS)
@pytest.mark.parametrize("name", ["iat", "nbf"])
def test_the_leeway_is_five_seconds(read: Read, claims: dict[str, Any], name: str) -> None:
    """Five seconds ahead pass, the smallest fraction more does not; expiry is judged elsewhere, without leeway."""
    assert CLOCK_SKEW_SECONDS == 5
    ahead = claims | {name: NOW + 5}
    read(ahead, NOW)
    with pytest.raises(ClaimsError):
        read(ahead, NOW - 0.001)
    read(claims | {"exp": 0}, NOW)


def test_a_token_id_is_derived() -> None:
    """`jti` is the same for one session, generation and kind, and another where any of them differs."""
    session, other = CALLER.session_id, CALLER.user_id
    ids = {
        token_id(one, generation, kind, varying={})
        for one in (session, other)
        for generation in (1, 11)
        for kind in Kind
    }
    assert len(ids) == 8
    assert token_id(session, 1, Kind.ACCESS, varying={}) in ids
    assert str(session) not in "".join(ids)


def test_tokens_of_one_generation_that_say_different_things_have_different_ids() -> None:
    """T1: two clients of one session may have proven different things; their tokens are never taken for one another."""
    callers = [
        replace(CALLER, **change)
        for change in (
            {},
            {"proven_at_unix": NOW},
            {"methods": ("pwd", "otp")},
            {"roles": ("admin",)},
            {"claims_version": 2},
            {"claims": {"shop:tenant": 1}},
        )
    ]
    ids = {access_claims(caller, generation=3, issuer=ISSUER)["jti"] for caller in callers}
    bearers = [replace(BEARER, proven=caller.proven) for caller in callers[:3]]
    ids |= {refresh_claims(bearer, issuer=ISSUER)["jti"] for bearer in bearers}
    assert len(ids) == len(callers) + len(bearers)


def test_a_refresh_token_of_version_0_1_0_says_nothing_of_proofs() -> None:
    """T1: it goes on working. One that says half of it was issued by nobody."""
    claims = refresh_claims(BEARER, issuer=ISSUER)
    old = {name: value for name, value in claims.items() if name not in {"auth_time", "amr"}}
    assert read_refresh_claims(old, issuer=ISSUER, now=NOW) == replace(BEARER, proven=None)
    assert refresh_claims(replace(BEARER, proven=None), issuer=ISSUER) | {"jti": claims["jti"]} == old


@pytest.mark.parametrize(("read", "claims"), KINDS)
@pytest.mark.parametrize("change", [{"iat": NOW + 600}, {"nbf": NOW + 600}, {"exp": 0}, {"iat": None, "exp": "never"}])
def test_a_sign_out_looks_at_no_time(read: Read, claims: dict[str, Any], change: dict[str, object]) -> None:
    """T5: kind, issuer and audience decide whose session a genuine token names, and no clock does."""
    kind = Kind(claims["type"])
    named = read_token_session(claims | change, kind=kind, issuer=ISSUER)
    assert named == TokenSession(session_id=CALLER.session_id, user_id=CALLER.user_id)


@pytest.mark.parametrize(("read", "claims"), KINDS)
@pytest.mark.parametrize("name", ["type", "iss", "aud", "sub", "sid"])
def test_a_sign_out_looks_at_whose_a_token_is(read: Read, claims: dict[str, Any], name: str) -> None:
    """T5: another service's token, or one of another kind, ends nothing here."""
    for wrong in (None, "", "somebody else", ["a", "b"]):
        with pytest.raises(ClaimsError):
            read_token_session(claims | {name: wrong}, kind=Kind(claims["type"]), issuer=ISSUER)


START = datetime(2026, 1, 1, tzinfo=UTC)
