"""Issue and read tokens with the keys in force."""

import base64
import json
from dataclasses import dataclass, field

from latchstring.core.caller import Caller
from latchstring.core.keys.key_set import KeySet
from latchstring.core.keys.ring import KeyRing
from latchstring.core.tokens.compact import MalformedTokenError, parse
from latchstring.core.tokens.rules import Issuer, Kind, RefreshClaims, TokenSession, access_claims, refresh_claims
from latchstring.core.tokens.verification import TokenReader, UnknownKeyError


@dataclass(frozen=True, slots=True)
class TokenPair:
    """Both tokens of one generation of a session, and when each expires, in seconds since 1970."""

    access: str = field(repr=False)
    access_expires_at_unix: int
    refresh: str = field(repr=False)
    refresh_expires_at_unix: int


class Tokens:
    """Issues and reads tokens. Whether their session is active is checked elsewhere."""

    def __init__(self, ring: KeyRing, issuer: Issuer) -> None:
        self._ring = ring
        self._issuer = issuer
        self._reader = TokenReader(issuer)

    def issue(self, caller: Caller, bearer: RefreshClaims) -> TokenPair:
        """Sign an access token with the claims of `caller`, and the refresh token of the same generation.

        Raises:
            KeysUnavailableError: the keys have not been read yet.
        """
        keys = self._ring.current
        access = access_claims(caller, generation=bearer.generation, issuer=self._issuer)
        refresh = refresh_claims(bearer, issuer=self._issuer)
        return TokenPair(
            access=signed(keys, Kind.ACCESS, access),
            access_expires_at_unix=caller.expires_at_unix,
            refresh=signed(keys, Kind.REFRESH, refresh),
            refresh_expires_at_unix=bearer.expires_at_unix,
        )

    def read_access(self, text: str, *, now: float) -> Caller | None:
        """Return the caller of a genuine access token, or None. The token may have expired: check that.

        Raises:
            KeysUnavailableError: the keys have not been read yet.
        """
        try:
            return self._reader.access(text, self._ring.current.verifying, now=now)
        except UnknownKeyError:
            return None

    def read_refresh(self, text: str, *, now: float) -> RefreshClaims | None:
        """Return the claims of a genuine refresh token, or None. The token may have expired: check that.

        Raises:
            KeysUnavailableError: the keys have not been read yet.
        """
        try:
            return self._reader.refresh(text, self._ring.current.verifying, now=now)
        except UnknownKeyError:
            return None

    def session_of(self, text: str) -> TokenSession | None:
        """Return the session of a genuine token of either kind, even an expired one; None for anything else.

        Raises:
            KeysUnavailableError: the keys have not been read yet.
        """
        return self._reader.session(text, self._ring.current.verifying)

    async def reload_keys(self) -> None:
        """Read the ring again now, before signing for a session whose epoch began after the keys were last read.

        Raises:
            UnavailableError: the keys or the database are unavailable.
        """
        await self._ring.catch_up(is_urgent=True)

    async def reload_keys_for(self, *texts: str, wait: bool = False) -> bool:
        """Read the ring again if a text names an unknown key; return whether one of these keys is now known.

        After a key was retired at once, another worker may sign with a key that this process reads only at its next
        poll, up to a quarter of a second later.

        Args:
            texts: tokens, or anything else.
            wait: if the ring was read within the last second, wait for the next read, for a second at most, instead
                of using the last one.

        Raises:
            UnavailableError: the keys or the database are unavailable.
        """
        # Made-up kids cost one read a second, however many requests bring them (PYSEC-2026-177).
        unknown = {key_id for key_id in map(_key_id, texts) if key_id and key_id not in self._ring.current.verifying}
        if not unknown:
            return False
        await (self._ring.catch_up_anew() if wait else self._ring.catch_up())
        return not unknown.isdisjoint(self._ring.current.verifying)


def signed(keys: KeySet, kind: Kind, claims: dict[str, object]) -> str:
    """Return a signed token with `claims`, in compact serialization (RFC 7515, section 7.1)."""
    header = {"alg": keys.signing.algorithm.value, "typ": kind.header_type, "kid": keys.signing.kid}
    signing_input = b".".join((_part(header), _part(claims)))
    return b".".join((signing_input, _base64url(keys.signing.sign(signing_input)))).decode("ascii")


def _part(members: dict[str, object] | dict[str, str]) -> bytes:
    return _base64url(json.dumps(members, separators=(",", ":"), ensure_ascii=False).encode())


def _base64url(octets: bytes) -> bytes:
    return base64.urlsafe_b64encode(octets).rstrip(b"=")


def _key_id(text: str) -> str | None:
    try:
        return parse(text).header.key_id
    except MalformedTokenError:
        return None
