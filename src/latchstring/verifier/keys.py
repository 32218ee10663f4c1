"""The issuer's public keys.

Requests never wait for keys that are cached. When the cache is too old, the keys are fetched again beside the requests;
until that succeeds the cached keys stay in use. A token that names an unknown key may be the first of a new key, so its
request waits for one fetch, but at most one a minute, however many such tokens there are.
"""

import asyncio
import logging
from collections.abc import Iterable

from latchstring.core.keys.key_set import KeySetError, key_set_from_jwks
from latchstring.core.tokens.verification import VerifyingKeys
from latchstring.foundation.clock import Clock
from latchstring.verifier.issuer import IssuerClient, IssuerError

MAX_BYTES = 256 * 1024
# Made-up kids must not turn this service into a load generator against the issuer (PYSEC-2026-177).
LOOK_UP_INTERVAL_SECONDS = 60.0
RETRY_SECONDS = 10.0
FIRST_RETRY_SECONDS = 1.0
MAX_AGE_SECONDS = 300.0
"""How long the keys are cached if the issuer does not say."""
# A response with `max-age=0` must not cause a fetch at each request, and one with a year must not keep a retired key.
_SHORTEST_AGE_SECONDS, _LONGEST_AGE_SECONDS = 1.0, 86_400.0

_log = logging.getLogger(__name__)


class IssuerKeys:
    """The keys last fetched, without those that were retired at once."""

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
        """Return the cached keys, and begin to fetch them again if they are too old."""
        if self._fetch_at is None or self._clock.uptime() >= self._fetch_at:
            self._begin_fetch()
        return self._keys

    async def look_up(self) -> VerifyingKeys:
        """Fetch the keys for a token that names an unknown one, and return them.

        There is at most one fetch a minute, shared by all concurrent callers. While there are no keys at all, it is one
        a second.
        """
        if self._fetching is None and self._may_look_up():
            self._begin_fetch()
        if self._fetching is not None:
            # A client that disconnects must not cancel the fetch for the others.
            await asyncio.shield(self._fetching)
        return self._keys

    def drop(self, retired: Iterable[str]) -> None:
        """Refuse the tokens of these keys, even if a cached response of the issuer still holds them."""
        retired = frozenset(retired)
        if retired == self._retired:
            return
        if not retired.isdisjoint(self._keys):
            # Another key signs now: fetch it before its first token is presented.
            self._fetch_at = None
        self._retired = retired
        self._use(self._fetched)

    def is_retired(self, kid: str) -> bool:
        """Return whether the key was retired at once, so that its tokens are refused without a fetch."""
        return kid in self._retired

    async def close(self) -> None:
        """Wait for a fetch that is under way."""
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
            # A cache in between would return a key that was retired a moment ago, and not the new one.
            response = await self._issuer.get(self._url, max_bytes=MAX_BYTES, headers={"Cache-Control": "no-cache"})
            self._use(key_set_from_jwks(response.body))
        except (IssuerError, KeySetError) as error:
            # A whole set or nothing: a bad response never replaces good keys, so an outage signs nobody out.
            self._fail("the issuer's keys can't be fetched, the cached keys stay in use: %s", error)
        except Exception:  # noqa: BLE001 -- whatever failed, the cached keys are still good
            self._fail("the issuer's keys can't be fetched, the cached keys stay in use", exc_info=True)
        else:
            given = MAX_AGE_SECONDS if response.max_age_seconds is None else response.max_age_seconds
            age = min(max(given, _SHORTEST_AGE_SECONDS), _LONGEST_AGE_SECONDS)
            if not self._retired.isdisjoint(self._fetched):
                # The response holds a retired key, so it is older than the retirement and lacks the key that signs now.
                age = FIRST_RETRY_SECONDS
            fetch_at = self._clock.uptime() + age
            if self._is_failing:
                _log.info("the issuer's keys are fetched again")
            self._is_failing = False
        finally:
            self._fetching = None
            self._fetch_at = fetch_at

    def _fail(self, message: str, *arguments: object, exc_info: bool = False) -> None:
        # Once for each outage: an issuer that is down for an hour must not fill the log.
        if not self._is_failing:
            _log.warning(message, *arguments, exc_info=exc_info)
        self._is_failing = True

    def _use(self, fetched: VerifyingKeys) -> None:
        self._fetched = fetched
        keys = {kid: key for kid, key in fetched.items() if kid not in self._retired}
        # Keep the same object if nothing changed, so that verified tokens stay cached. A kid is a thumbprint, so only
        # the algorithm could differ under the same kid.
        if {kid: key.algorithm for kid, key in keys.items()} != {k: key.algorithm for k, key in self._keys.items()}:
            self._keys = keys
