"""The issuer's public keys.

Known keys never wait: when those there are have their age, they are fetched anew beside the requests, and go on being
used meanwhile, and for as long as the issuer is away. A token that names another key may be the first of a new one, so
its request waits for a look at the issuer; once a minute, however many such tokens come.
"""

import asyncio
import logging
from collections.abc import Iterable

from latchstring.core.keys.key_set import KeySetError, key_set_from_jwks
from latchstring.core.tokens.verification import VerifyingKeys
from latchstring.foundation.clock import Clock
from latchstring.verifier.issuer import IssuerClient, IssuerError

MAX_BYTES = 256 * 1024
LOOK_UP_INTERVAL_SECONDS = 60.0
RETRY_SECONDS = 10.0
FIRST_RETRY_SECONDS = 1.0
MAX_AGE_SECONDS = 300.0
"""Where the issuer does not say how long its keys may be kept."""
_SHORTEST_AGE_SECONDS, _LONGEST_AGE_SECONDS = 1.0, 86_400.0

_log = logging.getLogger(__name__)


class IssuerKeys:
    """The keys as last fetched, without those that were retired at once."""

    def __init__(self, url: str, issuer: IssuerClient, clock: Clock) -> None:
        self._url = url
        self._issuer = issuer
        self._clock = clock
        self._fetched: VerifyingKeys = {}
        self._keys: VerifyingKeys = {}
        self._retired: frozenset[str] = frozenset()
        self._fetch_at: float | None = None
        self._looked_up_at: float | None = None
        self._is_failing = False
        self._fetching: asyncio.Task[None] | None = None

    def current(self) -> VerifyingKeys:
        """Return the keys there are; where they have their age, they are fetched beside."""
        if self._fetch_at is None or self._clock.uptime() >= self._fetch_at:
            self._begin_fetch()
        return self._keys

    async def look_up(self) -> VerifyingKeys:
        """Return the keys after a look at the issuer, for a token that names one which is not there.

        There is at most one look a minute, and one for all who ask meanwhile. While there are no keys at all, it is
        one a second.
        """
        if self._fetching is None and self._may_look_up():
            self._begin_fetch()
        if self._fetching is not None:
            # Whoever gives up waiting must not end it for the others.
            await asyncio.shield(self._fetching)
        return self._keys

    def drop(self, retired: Iterable[str]) -> None:
        """Take no token of these keys any more, whatever the issuer's cached answer says."""
        retired = frozenset(retired)
        if retired == self._retired:
            return
        if not retired.isdisjoint(self._keys):
            # Another key signs now: know it before its first token comes.
            self._fetch_at = None
        self._retired = retired
        self._use(self._fetched)

    def is_retired(self, kid: str) -> bool:
        """Tell whether it is one of those dropped: nothing needs to be looked up to refuse its tokens."""
        return kid in self._retired

    async def close(self) -> None:
        """Wait for what is under way."""
        if self._fetching is not None:
            await self._fetching

    def _may_look_up(self) -> bool:
        now = self._clock.uptime()
        if not self._keys:
            return self._fetch_at is None or now >= self._fetch_at
        if self._looked_up_at is not None and now - self._looked_up_at < LOOK_UP_INTERVAL_SECONDS:
            return False
        self._looked_up_at = now
        return True

    def _begin_fetch(self) -> None:
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._fetch(), name="latchstring issuer keys")

    async def _fetch(self) -> None:
        retry = RETRY_SECONDS if self._keys else FIRST_RETRY_SECONDS
        fetch_at = max(self._fetch_at or 0.0, self._clock.uptime() + retry)
        try:
            # Caches on the way would tell of a key that was retired a moment ago, and not of the new one.
            response = await self._issuer.get(self._url, max_bytes=MAX_BYTES, headers={"Cache-Control": "no-cache"})
            self._use(key_set_from_jwks(response.body))
        except (IssuerError, KeySetError) as error:
            self._fail("the issuer's keys can't be fetched, those known go on being used: %s", error)
        except Exception:  # noqa: BLE001 -- whatever it was, the keys that are known are good
            self._fail("the issuer's keys can't be fetched, those known go on being used", exc_info=True)
        else:
            given = MAX_AGE_SECONDS if response.max_age_seconds is None else response.max_age_seconds
            age = min(max(given, _SHORTEST_AGE_SECONDS), _LONGEST_AGE_SECONDS)
            if not self._retired.isdisjoint(self._fetched):
                # An answer of before, however long it may be kept: who gave it does not know yet which key signs now.
                age = FIRST_RETRY_SECONDS
            fetch_at = self._clock.uptime() + age
            if self._is_failing:
                _log.info("the issuer's keys are fetched again")
            self._is_failing = False
        finally:
            self._fetching = None
            self._fetch_at = fetch_at

    def _fail(self, words: str, *arguments: object, exc_info: bool = False) -> None:
        if not self._is_failing:
            _log.warning(words, *arguments, exc_info=exc_info)
        self._is_failing = True

    def _use(self, fetched: VerifyingKeys) -> None:
        self._fetched = fetched
        keys = {kid: key for kid, key in fetched.items() if kid not in self._retired}
        # The very same while nothing changed: what was verified against it stays known. A kid is a thumbprint, so that
        # an algorithm is all that could change behind it.
        if {kid: key.algorithm for kid, key in keys.items()} != {k: key.algorithm for k, key in self._keys.items()}:
            self._keys = keys
