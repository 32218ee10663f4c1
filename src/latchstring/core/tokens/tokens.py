"""Issue tokens, and verify them against the keys in force."""

import json
from dataclasses import dataclass, field
from typing import Any

from joserfc import jws
from joserfc.errors import JoseError, UnsupportedAlgorithmError

from latchstring.core.caller import Caller
from latchstring.core.tokens.compact import CompactToken, MalformedTokenError, parse
from latchstring.core.tokens.keys import KeySet
from latchstring.core.tokens.ring import KeyRing
from latchstring.core.tokens.rules import (
    ClaimsError,
    Kind,
    Party,
    RefreshClaims,
    access_claims,
    read_access_claims,
    read_refresh_claims,
    refresh_claims,
)
from latchstring.core.tokens.settings import Algorithm

_MAX_SEEN = 4096


class _OneAlgorithm(jws.JWSRegistry):
    """joserfc's registry, allowing one algorithm; it does not warn at each use that EdDSA has a newer name."""

    def __init__(self, algorithm: Algorithm) -> None:
        super().__init__(algorithms=[algorithm.value])

    def get_alg(self, name: str) -> Any:  # noqa: ANN401 -- joserfc does not export the type
        if self.allowed is None or name not in self.allowed:
            raise UnsupportedAlgorithmError(f"{name} is not allowed")
        return self.algorithms[name]


_ALGORITHM_REGISTRIES = {algorithm: _OneAlgorithm(algorithm) for algorithm in Algorithm}


@dataclass(frozen=True, slots=True)
class TokenPair:
    """Both tokens of one generation of a session, and when each expires, in seconds since 1970."""

    access: str = field(repr=False)
    access_expires_at_unix: int
    refresh: str = field(repr=False)
    refresh_expires_at_unix: int


class Tokens:
    """Issues and verifies; knows nothing of sessions that have ended."""

    def __init__(self, ring: KeyRing, party: Party) -> None:
        self._ring = ring
        self._party = party
        # What was verified against one set of keys, and goes with it.
        self._seen_with: KeySet | None = None
        self._seen: dict[str, Caller] = {}

    def issue(self, caller: Caller, bearer: RefreshClaims) -> TokenPair:
        """Sign an access token that says `caller`, and the refresh token of the same generation.

        Raises:
            KeysUnavailableError: the keys have not been read yet.
        """
        keys = self._ring.current
        access = access_claims(caller, generation=bearer.generation, party=self._party)
        refresh = refresh_claims(bearer, party=self._party)
        return TokenPair(
            access=_signed(keys, Kind.ACCESS, access),
            access_expires_at_unix=caller.expires_at_unix,
            refresh=_signed(keys, Kind.REFRESH, refresh),
            refresh_expires_at_unix=bearer.expires_at_unix,
        )

    def read_access(self, text: str, *, now: float) -> Caller | None:
        """Return what a genuine access token says, or None for anything else. It may have expired: look at that.

        The signature of a token seen before is not computed again: the answer can't be another one.

        Raises:
            KeysUnavailableError: the keys have not been read yet.
        """
        keys = self._ring.current
        if keys is not self._seen_with:
            self._seen_with, self._seen = keys, {}
        caller = self._seen.get(text)
        if caller is not None:
            return caller
        try:
            token = _verified(text, Kind.ACCESS, keys)
            caller = read_access_claims(token.claims, party=self._party, now=now)
        except (MalformedTokenError, ClaimsError):
            return None
        if len(self._seen) >= _MAX_SEEN:
            for oldest in list(self._seen)[: _MAX_SEEN // 2]:
                del self._seen[oldest]
        self._seen[text] = caller
        return caller

    def read_refresh(self, text: str, *, now: float) -> RefreshClaims | None:
        """Return what a genuine refresh token says, or None for anything else. It may have expired: look at that.

        Raises:
            KeysUnavailableError: the keys have not been read yet.
        """
        try:
            token = _verified(text, Kind.REFRESH, self._ring.current)
            return read_refresh_claims(token.claims, party=self._party, now=now)
        except (MalformedTokenError, ClaimsError):
            return None


def _signed(keys: KeySet, kind: Kind, claims: dict[str, object]) -> str:
    header = {"alg": keys.signing.algorithm.value, "typ": kind.header_type, "kid": keys.signing.kid}
    payload = json.dumps(claims, separators=(",", ":"), ensure_ascii=False)
    return jws.serialize_compact(
        header, payload, keys.signing.key, registry=_ALGORITHM_REGISTRIES[keys.signing.algorithm]
    )


def _verified(text: str, kind: Kind, keys: KeySet) -> CompactToken:
    token = parse(text)
    if token.type != kind.header_type:
        raise MalformedTokenError("another kind of token")
    key = keys.verifying.get(token.key_id)
    # The algorithm is the key's. What the token says must agree, and is never asked (CVE-2016-10555 and its heirs).
    if key is None or token.algorithm != key.algorithm:
        raise MalformedTokenError("signed with no key of ours")
    try:
        jws.deserialize_compact(text, key.key, registry=_ALGORITHM_REGISTRIES[key.algorithm])
    except (JoseError, ValueError):
        raise MalformedTokenError("a signature that does not hold") from None
    return token
