"""Verify a token: the strict parser, the key that `kid` names, the signature, the claims.

No I/O: the caller passes the keys, as a mapping that never changes.
"""

from collections.abc import Mapping

from latchstring.core.caller import Caller
from latchstring.core.keys.key_set import TokenKey
from latchstring.core.tokens.compact import CompactToken, MalformedTokenError, parse
from latchstring.core.tokens.rules import (
    ClaimsError,
    Issuer,
    Kind,
    RefreshClaims,
    TokenSession,
    read_access_claims,
    read_refresh_claims,
    read_token_session,
)

VerifyingKeys = Mapping[str, TokenKey]
"""Keys by `kid`. Never changed in place: a change makes another mapping."""

# Bounds the memory of a worker; half of the entries are dropped at once, so that a full cache costs no work per token.
_MAX_SEEN = 4096


class UnknownKeyError(MalformedTokenError):
    """The token names a key that is not in the set: a new key that has not been read yet, or a made-up one."""

    def __init__(self, key_id: str) -> None:
        super().__init__("signed with an unknown key")
        self.key_id = key_id


def verified(text: str, kind: Kind, keys: VerifyingKeys) -> CompactToken:
    """Parse a token of one kind and verify its signature.

    Raises:
        MalformedTokenError: anything but a token of that kind, signed with the key it names.
    """
    token = parse(text)
    header = token.header
    # Explicit typing (RFC 8725, section 3.11): a refresh token must never be accepted as an access token.
    if header.type != kind.header_type:
        raise MalformedTokenError("another kind of token")
    key = keys.get(header.key_id)
    if key is None:
        raise UnknownKeyError(header.key_id)
    # The algorithm is the key's; the token's `alg` only has to agree (RFC 8725, section 3.1). Libraries that followed
    # the token verified HMACs with the public key (CVE-2016-10555, CVE-2022-29217).
    if header.algorithm != key.algorithm:
        raise MalformedTokenError("another algorithm than the key's")
    if not key.verifies(token.signing_input, token.signature):
        raise MalformedTokenError("an invalid signature")
    return token


class TokenReader:
    """Reads tokens of one issuer for one audience."""

    def __init__(self, issuer: Issuer) -> None:
        self._issuer = issuer
        # Tokens verified with one set of keys; dropped with the set, so that a retired key ends its tokens here too.
        self._seen_with: VerifyingKeys | None = None
        self._seen: dict[str, Caller] = {}

    def access(self, text: str, keys: VerifyingKeys, *, now: float) -> Caller | None:
        """Return the caller of a genuine access token, or None. The token may have expired: check that.

        The signature of a token that was verified before with the same keys is not computed again.

        Raises:
            UnknownKeyError: the token names a key that is not in the set.
        """
        if keys is not self._seen_with:
            self._seen_with, self._seen = keys, {}
        # By the whole text, and only genuine tokens: a key of less would let tokens share an entry (CVE-2026-33496).
        caller = self._seen.get(text)
        if caller is not None:
            return caller
        try:
            token = verified(text, Kind.ACCESS, keys)
            caller = read_access_claims(token.claims, issuer=self._issuer, now=now)
        except UnknownKeyError:
            raise
        except (MalformedTokenError, ClaimsError):
            return None
        if len(self._seen) >= _MAX_SEEN:
            for oldest in list(self._seen)[: _MAX_SEEN // 2]:
                del self._seen[oldest]
        self._seen[text] = caller
        return caller

    def refresh(self, text: str, keys: VerifyingKeys, *, now: float) -> RefreshClaims | None:
        """Return the claims of a genuine refresh token, or None. The token may have expired: check that.

        Raises:
            UnknownKeyError: the token names a key that is not in the set.
        """
        try:
            return read_refresh_claims(verified(text, Kind.REFRESH, keys).claims, issuer=self._issuer, now=now)
        except UnknownKeyError:
            raise
        except (MalformedTokenError, ClaimsError):
            return None

    def session(self, text: str, keys: VerifyingKeys) -> TokenSession | None:
        """Return the session of a genuine token of either kind, even an expired one; None for anything else."""
        verified_caller = self._seen.get(text) if keys is self._seen_with else None
        if verified_caller is not None:
            return TokenSession(session_id=verified_caller.session_id, user_id=verified_caller.user_id)
        for kind in Kind:
            try:
                return read_token_session(verified(text, kind, keys).claims, kind=kind, issuer=self._issuer)
            except (MalformedTokenError, ClaimsError):
                continue
        return None
