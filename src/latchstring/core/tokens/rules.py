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
CUSTOM_CLAIMS_MAX_BYTES = 768
# A URI (RFC 3986): a scheme, a colon, and something. No registered claim has a colon in its name.
_CUSTOM_NAME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[\x21-\x7e]+", re.ASCII)
# One spelling: Python's own parser takes braces, capitals and no hyphens as well.
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)


class Kind(StrEnum):
    """The two kinds; a token of one kind is never taken for the other."""

    ACCESS = "access"
    REFRESH = "refresh"

    @property
    def header_type(self) -> str:
        """The header's `typ` (RFC 9068 for access tokens)."""
        return "at+jwt" if self is Kind.ACCESS else "rt+jwt"


class ClaimsError(ValueError):
    """A claim is missing, of the wrong type, or not ours."""


@dataclass(frozen=True, slots=True)
class RefreshClaims:
    """What a refresh token says."""

    user_id: UUID
    session_id: UUID
    issued_at_unix: int
    expires_at_unix: int
    generation: int
    proven: Proven | None
    """What the client that was given it had proven; None in a token of version 0.1.0."""


@dataclass(frozen=True, slots=True)
class TokenSession:
    """Which session a token belongs to, and whose."""

    session_id: UUID
    user_id: UUID


@dataclass(frozen=True, slots=True)
class Issuer:
    """Who issues tokens, and for whom; compared exactly."""

    name: str
    """The claim `iss`."""
    audience: str
    """The claim `aud`."""


def access_claims(caller: Caller, *, generation: int, issuer: Issuer) -> dict[str, Any]:
    """Return the JSON claims of an access token."""
    says = _proven(caller.proven) | {"ver": caller.claims_version}
    if caller.roles:
        says["roles"] = list(caller.roles)
    claims = {
        **_registered(caller, kind=Kind.ACCESS, generation=generation, issuer=issuer, says={**says, **caller.claims}),
        **says,
        "client_id": CLIENT_ID,
    }
    if caller.epoch:
        claims["epoch"] = caller.epoch
    # First those of the application, so that none of ours could be one of theirs, whatever they are called.
    return {**caller.claims, **claims}


def refresh_claims(bearer: RefreshClaims, *, issuer: Issuer) -> dict[str, Any]:
    """Return the JSON claims of a refresh token."""
    # Two clients may hold tokens of one generation that differ in what was proven: their `jti` differs as well.
    says = {} if bearer.proven is None else _proven(bearer.proven)
    claims = _registered(bearer, kind=Kind.REFRESH, generation=bearer.generation, issuer=issuer, says=says)
    return {**claims, **says, "gen": bearer.generation}


def read_access_claims(claims: Mapping[str, Any], *, issuer: Issuer, now: float) -> Caller:
    """Check the claims of an access token whose signature held.

    Expiry is not looked at: the caller does, at every use, because it is the one check that changes with time.

    Raises:
        ClaimsError: something is missing, of another type, from or for somebody else, or not valid yet.
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
    """Check the claims of a refresh token whose signature held; expiry is the caller's, as above.

    Raises:
        ClaimsError: something is missing, of another type, from or for somebody else, or not valid yet.
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
    """Return which session a token belongs to whose signature held, whatever it says of times.

    For a sign-out alone: a clock that differs must not let a session survive it (SECURITY.md, "Sign-out signs out").

    Raises:
        ClaimsError: something is missing, of another type, or from or for somebody else.
    """
    _check_issuer(claims, kind=kind, issuer=issuer)
    return TokenSession(session_id=_uuid(claims, "sid"), user_id=_uuid(claims, "sub"))


def token_id(session_id: UUID, generation: int, kind: Kind, *, says: Mapping[str, Any]) -> str:
    """Return the `jti`: the same for the same session, generation and kind, so that a repeated response is the same.

    Args:
        session_id: the session.
        generation: which of its generations.
        kind: of the token.
        says: the claims that may differ within a generation: what was proven and when, the roles, the application's
            own claims.
    """
    said = "/" + json.dumps(says, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(f"{session_id}/{generation}/{kind}{said}".encode()).digest()
    return base64.urlsafe_b64encode(digest[:16]).rstrip(b"=").decode()


def custom_claims(claims: Mapping[str, Any]) -> dict[str, Any]:
    """Return an application's own claims, checked.

    Raises:
        ConfigurationError: a name that is no URI (`shop:tenant`, `https://example.com/tenant`), and so might be one of
            a registered claim now or one day (RFC 7519, section 4.2); a value that is not JSON of whole numbers; or
            more than a token has room for.
    """
    for name in claims:
        if _CUSTOM_NAME.fullmatch(name) is None:
            raise ConfigurationError(f"a claim of your own is named by a URI, such as shop:tenant, and not {name!r}")
    try:
        text = json.dumps(dict(claims), separators=(",", ":"), ensure_ascii=False)
        checked: dict[str, Any] = read_json(text)
        size = len(text.encode("utf-8"))
    except (TypeError, ValueError, RecursionError):
        raise ConfigurationError("claims are JSON: texts, whole numbers, lists and objects of them") from None
    if size > CUSTOM_CLAIMS_MAX_BYTES:
        raise ConfigurationError(f"claims have at most {CUSTOM_CLAIMS_MAX_BYTES} bytes of JSON together, not {size}")
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
    bearer: Caller | RefreshClaims, *, kind: Kind, generation: int, issuer: Issuer, says: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "iss": issuer.name,
        "aud": issuer.audience,
        "sub": str(bearer.user_id),
        "sid": str(bearer.session_id),
        "iat": bearer.issued_at_unix,
        "nbf": bearer.issued_at_unix,
        "exp": bearer.expires_at_unix,
        "jti": token_id(bearer.session_id, generation, kind, says=says),
        "type": kind.value,
    }


def _check_issuer(claims: Mapping[str, Any], *, kind: Kind, issuer: Issuer) -> None:
    if _text(claims, "type") != kind:
        raise ClaimsError("type")
    if _text(claims, "iss") != issuer.name:
        raise ClaimsError("iss")
    if _text(claims, "aud") != issuer.audience:
        raise ClaimsError("aud")


def _check_registered(claims: Mapping[str, Any], *, kind: Kind, issuer: Issuer, now: float) -> None:
    _check_issuer(claims, kind=kind, issuer=issuer)
    _text(claims, "jti")
    # Instances' clocks differ a little; a token from further ahead is not honest.
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
    # bool is an int to Python; a claim of `true` is no number to us.
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
