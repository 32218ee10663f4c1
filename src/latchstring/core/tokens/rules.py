"""Which claims a token must have, and what they mean. Pure; the time is passed in."""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from latchstring.core.caller import NO_CLAIMS, Caller, Claims, Proven
from latchstring.core.keys.strict_json import read_json
from latchstring.errors import ConfigurationError

CLIENT_ID = "latchstring"
CLOCK_SKEW_SECONDS = 5
_MAX_SAFE_INTEGER = 2**53 - 1
_MAX_TIME = 253_402_300_799  # the last second of the year 9999
_MAX_GENERATION = 2**31 - 1  # what the column holds
# Leaves room for our own claims in a token of 4,096 characters, as much as browsers keep of a cookie (RFC 6265bis).
CUSTOM_CLAIMS_MAX_BYTES = 768
# A URI (RFC 3986): a scheme, a colon, and at least one character. No registered claim has a colon in its name, now or
# later, so that a hook can't set one of ours (CVE-2024-29892).
_CUSTOM_NAME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[\x21-\x7e]+", re.ASCII)
# One spelling: Python's own parser also accepts braces, capitals and missing hyphens.
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)


class Kind(StrEnum):
    """The two kinds of token. A token of one kind is never accepted as the other."""

    ACCESS = "access"
    REFRESH = "refresh"

    @property
    def header_type(self) -> str:
        """The header's `typ` (RFC 9068 for access tokens)."""
        return "at+jwt" if self is Kind.ACCESS else "rt+jwt"


class ClaimsError(ValueError):
    """A claim is missing, of the wrong type, or of another issuer or audience."""


@dataclass(frozen=True, slots=True)
class RefreshClaims:
    """The claims of a refresh token."""

    user_id: UUID
    session_id: UUID
    issued_at_unix: int
    expires_at_unix: int
    generation: int
    proven: Proven | None
    """What its client had proven when the token was issued; None in a token of version 0.1.0."""


@dataclass(frozen=True, slots=True)
class TokenSession:
    """The session that a token belongs to, and its user."""

    session_id: UUID
    user_id: UUID


@dataclass(frozen=True, slots=True)
class Issuer:
    """The issuer and the audience of tokens, both compared exactly."""

    name: str
    """The claim `iss`."""
    audience: str
    """The claim `aud`."""


def access_claims(caller: Caller, *, generation: int, issuer: Issuer) -> dict[str, Any]:
    """Return the JSON claims of an access token."""
    varying = _proven(caller.proven) | {"ver": caller.claims_version}
    if caller.roles:
        varying["roles"] = list(caller.roles)
    claims = {
        **_registered(
            caller, kind=Kind.ACCESS, generation=generation, issuer=issuer, varying={**varying, **caller.claims}
        ),
        **varying,
        "client_id": CLIENT_ID,
    }
    if caller.epoch:
        claims["epoch"] = caller.epoch
    # The application's claims first: ours are written over them, whatever names a hook returned (CVE-2024-29892).
    return {**caller.claims, **claims}


def refresh_claims(bearer: RefreshClaims, *, issuer: Issuer) -> dict[str, Any]:
    """Return the JSON claims of a refresh token."""
    # The proof of this client, not of the session's row: a thief who shares the session must not get the owner's fresh
    # proof (decision 23). Two tokens of one generation may differ in it, so that their `jti` differs as well.
    varying = {} if bearer.proven is None else _proven(bearer.proven)
    claims = _registered(bearer, kind=Kind.REFRESH, generation=bearer.generation, issuer=issuer, varying=varying)
    return {**claims, **varying, "gen": bearer.generation}


def read_access_claims(claims: Mapping[str, Any], *, issuer: Issuer, now: float) -> Caller:
    """Check the claims of an access token whose signature was verified.

    Does not check `exp`: its caller does that at every use, because it is the one check whose result changes with time
    and the result of this function is cached.

    Raises:
        ClaimsError: a claim is missing, of another type or not valid yet, or the issuer or audience is another.
    """
    _check_registered(claims, kind=Kind.ACCESS, issuer=issuer, now=now)
    if _text(claims, "client_id") != CLIENT_ID:
        raise ClaimsError("client_id")
    return Caller(
        user_id=_uuid(claims, "sub"),
        session_id=_uuid(claims, "sid"),
        claims_version=_number(claims, "ver"),
        epoch=_number(claims, "epoch") if "epoch" in claims else 0,
        roles=_texts(claims, "roles") if "roles" in claims else (),
        methods=_texts(claims, "amr"),
        proven_at_unix=_time(claims, "auth_time"),
        issued_at_unix=_time(claims, "iat"),
        expires_at_unix=_time(claims, "exp"),
        claims=_custom(claims),
    )


def read_refresh_claims(claims: Mapping[str, Any], *, issuer: Issuer, now: float) -> RefreshClaims:
    """Check the claims of a refresh token whose signature was verified, except `exp`.

    Raises:
        ClaimsError: a claim is missing, of another type or not valid yet, or the issuer or audience is another.
    """
    _check_registered(claims, kind=Kind.REFRESH, issuer=issuer, now=now)
    return RefreshClaims(
        user_id=_uuid(claims, "sub"),
        session_id=_uuid(claims, "sid"),
        issued_at_unix=_time(claims, "iat"),
        expires_at_unix=_time(claims, "exp"),
        generation=_number(claims, "gen", at_most=_MAX_GENERATION),
        proven=_read_proven(claims) if "auth_time" in claims or "amr" in claims else None,
    )


def read_token_session(claims: Mapping[str, Any], *, kind: Kind, issuer: Issuer) -> TokenSession:
    """Return the session of a token whose signature was verified, and check none of its times.

    For a sign-out alone: a clock that differs must not let a session survive it (SECURITY.md, "Sign-out signs out").

    Raises:
        ClaimsError: a claim is missing or of another type, or the issuer or audience is another.
    """
    # An instance whose clock was 12 s behind responded 200 to a sign-out and ended nothing: `nbf` was in its future.
    _check_issuer(claims, kind=kind, issuer=issuer)
    return TokenSession(session_id=_uuid(claims, "sid"), user_id=_uuid(claims, "sub"))


def token_id(session_id: UUID, generation: int, kind: Kind, *, varying: Mapping[str, Any]) -> str:
    """Return the `jti` of a token. It follows from the arguments, so that a repeated response has the same token.

    Args:
        session_id: the session.
        generation: the session's generation.
        kind: the kind of token.
        varying: the claims that may differ within a generation: what was proven and when, the roles, the application's
            own claims.
    """
    # Not random: a client whose first response was lost must get the same tokens at its second attempt.
    text = json.dumps(varying, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(f"{session_id}/{generation}/{kind}/{text}".encode()).digest()
    return base64.urlsafe_b64encode(digest[:16]).rstrip(b"=").decode()


def custom_claims(claims: Mapping[str, Any]) -> dict[str, Any]:
    """Return a checked copy of an application's own claims.

    Raises:
        ConfigurationError: a name that is not a URI (`shop:tenant`, `https://example.com/tenant`) and so could become
            a registered claim (RFC 7519, section 4.2); a value that is not JSON, or has a number that is not whole;
            or more than 768 bytes of JSON.
    """
    for name in claims:
        if _CUSTOM_NAME.fullmatch(name) is None:
            raise ConfigurationError(f"the name of a custom claim must be a URI, such as shop:tenant, and not {name!r}")
    try:
        text = json.dumps(dict(claims), separators=(",", ":"), ensure_ascii=False)
        # Parsed as in a token: claims that our own reader refuses would make every token of the user invalid.
        checked: dict[str, Any] = read_json(text)
        size = len(text.encode("utf-8"))
    except (TypeError, ValueError, RecursionError):
        raise ConfigurationError(
            "custom claims must be JSON: strings, whole numbers, booleans, null, lists and objects of them"
        ) from None
    if size > CUSTOM_CLAIMS_MAX_BYTES:
        raise ConfigurationError(
            f"custom claims must have at most {CUSTOM_CLAIMS_MAX_BYTES} bytes of JSON together, not {size}"
        )
    return checked


def _custom(claims: Mapping[str, Any]) -> Mapping[str, Any]:
    own = {name: _frozen(value) for name, value in claims.items() if ":" in name}
    return Claims(own) if own else NO_CLAIMS


def _frozen(value: Any) -> Any:  # noqa: ANN401 -- any JSON
    if isinstance(value, dict):
        return Claims({name: _frozen(member) for name, member in value.items()})
    return tuple(_frozen(member) for member in value) if isinstance(value, list) else value


def _proven(proven: Proven) -> dict[str, Any]:
    return {"auth_time": proven.at_unix, "amr": list(proven.methods)}


def _read_proven(claims: Mapping[str, Any]) -> Proven:
    return Proven(_time(claims, "auth_time"), _texts(claims, "amr"))


def _registered(
    bearer: Caller | RefreshClaims, *, kind: Kind, generation: int, issuer: Issuer, varying: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "iss": issuer.name,
        "aud": issuer.audience,
        "sub": str(bearer.user_id),
        "sid": str(bearer.session_id),
        "iat": bearer.issued_at_unix,
        "nbf": bearer.issued_at_unix,
        "exp": bearer.expires_at_unix,
        "jti": token_id(bearer.session_id, generation, kind, varying=varying),
        "type": kind.value,
    }


def _check_issuer(claims: Mapping[str, Any], *, kind: Kind, issuer: Issuer) -> None:
    # The kind again, among the claims: the rules for each kind must exclude the other (RFC 8725, section 3.12).
    if _text(claims, "type") != kind:
        raise ClaimsError("type")
    # Whole strings: PyJWT accepted an issuer that was a part of the expected one (GHSA-75c5-xw7c-p5pm), and jwt-go an
    # `aud` list that it did not check (CVE-2020-26160).
    if _text(claims, "iss") != issuer.name:
        raise ClaimsError("iss")
    if _text(claims, "aud") != issuer.audience:
        raise ClaimsError("aud")


def _check_registered(claims: Mapping[str, Any], *, kind: Kind, issuer: Issuer, now: float) -> None:
    _check_issuer(claims, kind=kind, issuer=issuer)
    _text(claims, "jti")
    # Clocks of instances differ a little; a token from further in the future was not issued by one of them.
    if max(_time(claims, "iat"), _time(claims, "nbf")) > now + CLOCK_SKEW_SECONDS:
        raise ClaimsError("nbf")


def _text(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name)
    if type(value) is not str or not value:
        raise ClaimsError(name)
    return value


def _texts(claims: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = claims.get(name)
    if type(value) is not list or not all(type(item) is str for item in value):
        raise ClaimsError(name)
    return tuple(value)


def _number(claims: Mapping[str, Any], name: str, *, at_most: int = _MAX_SAFE_INTEGER) -> int:
    value = claims.get(name)
    # In Python bool is a subclass of int, and `true` would count as 1.
    if type(value) is not int or not 0 <= value <= at_most:
        raise ClaimsError(name)
    return value


def _time(claims: Mapping[str, Any], name: str) -> int:
    return _number(claims, name, at_most=_MAX_TIME)


def _uuid(claims: Mapping[str, Any], name: str) -> UUID:
    text = _text(claims, name)
    if _UUID.fullmatch(text) is None:
        raise ClaimsError(name)
    return UUID(text)
