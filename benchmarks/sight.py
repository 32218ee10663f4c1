"""What a token costs at first sight, and when it was seen before, beside the library's own verification.

No server takes part: both are called in this process, many times in turn, and their processor time is compared.
"""

import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from joserfc import jws

from latchstring.core.keys.key_set import KeySet, make_private_pem, public_pem, token_key
from latchstring.core.keys.settings import Algorithm
from latchstring.core.tokens.compact import parse
from latchstring.core.tokens.rules import Issuer, Kind, access_claims
from latchstring.core.tokens.tokens import signed
from latchstring.core.tokens.verification import TokenReader
from latchstring.foundation.clock import SystemClock
from tests.support.issued import a_caller

ROUNDS, TOKENS = 15, 300
ISSUER = Issuer(name="https://id.example.com", audience="https://api.example.com")


class Sight:
    """Tokens of one algorithm, never seen before, and three ways to look at them."""

    def __init__(self, algorithm: Algorithm) -> None:
        private = token_key(make_private_pem(algorithm), algorithm, name="a key", is_our_own=True)
        self._key = token_key(public_pem(private).encode(), algorithm, name="its public half")
        self._keys = {private.kid: self._key}
        self._now = int(SystemClock().now().timestamp())
        pair = KeySet(signing=private, verifying=self._keys)
        self.tokens = [
            signed(pair, Kind.ACCESS, access_claims(a_caller(now=self._now), generation=1, issuer=ISSUER))
            for _ in range(TOKENS)
        ]

    def by_the_library(self) -> float:
        """Return the microseconds of joserfc's verification, which takes the text apart and checks the signature."""
        algorithms = [self._key.algorithm.value]
        with warnings.catch_warnings():
            # At each use of EdDSA, that it has a newer name.
            warnings.simplefilter("ignore")
            return _microseconds(lambda text: jws.deserialize_compact(text, self._key.key, algorithms), self.tokens)

    def by_the_key(self) -> float:
        """Return those of the signature alone."""
        taken_apart = [parse(text) for text in self.tokens]

        def hold(number: int) -> object:
            token = taken_apart[number]
            return self._key.verifies(token.signing_input, token.signature)

        return _microseconds(hold, range(len(taken_apart)))

    def by_us(self) -> float:
        """Return ours at first sight: the strict front-end, the signature, every claim, the caller."""
        reader = TokenReader(ISSUER)
        return _microseconds(lambda text: reader.access(text, self._keys, now=self._now), self.tokens)

    def by_us_again(self) -> float:
        """Return ours for a token that was seen before."""
        reader = TokenReader(ISSUER)
        for text in self.tokens:
            reader.access(text, self._keys, now=self._now)
        return _microseconds(lambda text: reader.access(text, self._keys, now=self._now), self.tokens)


def _microseconds(look: Callable[[Any], object], items: Sequence[Any]) -> float:
    began = time.process_time()
    for item in items:
        assert look(item)
    return (time.process_time() - began) / len(items) * 1e6
