"""A genuine token, or none: the front-end, the key that `kid` names, the signature, the claims.

Nothing here reads a database or the network: the keys are handed in, as a set that never changes.
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
"""By their `kid`; a change is another mapping."""

_MAX_SEEN = 4096


class UnknownKeyError(MalformedTokenError):
    """The token names a key that is not in the set: one of a moment ago, or of nobody's."""

    def __init__(self, key_id: str) -> None:
        super().__init__("signed with no key of ours")
        self.key_id = key_id


def verified(text: str, kind: Kind, keys: VerifyingKeys) -> CompactToken:
    """Take a token of one kind apart and check its signature.

    Raises:
        MalformedTokenError: anything but a token of that kind, signed with the key it names.
    """
    token = parse(text)
    header = token.header
    if header.type != kind.header_type:
        raise MalformedTokenError("another kind of token")
    key = keys.get(header.key_id)
    if key is None:
        raise UnknownKeyError(header.key_id)
    # The algorithm is the key's. What the token says must agree, and is never asked (CVE-2016-10555 and its heirs).
    if header.algorithm != key.algorithm:
        raise MalformedTokenError("another algorithm than the key's")
    if not key.verifies(token.signing_input, token.signature):
        raise MalformedTokenError("a signature that does not hold")
    return token


class TokenReader:
    """Reads tokens of one issuer for one audience."""

    def __init__(self, issuer: Issuer) -> None:
        self._issuer = issuer
        # What was verified against one set of keys, and goes with it.
        self._seen_with: VerifyingKeys | None = None
        self._seen: dict[str, Caller] = {}

    def access(self, text: str, keys: VerifyingKeys, *, now: float) -> Caller | None:
        """Return what a genuine access token says, or None for anything else. It may have expired: look at that.

        The signature of a token seen before is not computed again: the answer can't be another one.

        Raises:
            UnknownKeyError: it names a key that is not in the set.
        """
        if keys is not self._seen_with:
            self._seen_with, self._seen = keys, {}
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
        """Return what a genuine refresh token says, or None for anything else. It may have expired: look at that.

        Raises:
            UnknownKeyError: it names a key that is not in the set.
        """
        try:
            return read_refresh_claims(verified(text, Kind.REFRESH, keys).claims, issuer=self._issuer, now=now)
        except UnknownKeyError:
            raise
        except (MalformedTokenError, ClaimsError):
            return None

    def session(self, text: str, keys: VerifyingKeys) -> TokenSession | None:
        """Return which session a genuine token of either kind belongs to, at any time; None for anything else."""
        known = self._seen.get(text) if keys is self._seen_with else None
        if known is not None:
            return TokenSession(session_id=known.session_id, user_id=known.user_id)
        for kind in Kind:
            try:
                return read_token_session(verified(text, kind, keys).claims, kind=kind, issuer=self._issuer)
            except (MalformedTokenError, ClaimsError):
                continue
        return None
