"""Create, check, list and revoke feed tokens."""

import hashlib
import secrets

from latchstring.features.revocation_feed import store
from latchstring.features.revocation_feed.store import FeedToken
from latchstring.foundation.audit import record
from latchstring.foundation.clock import Clock, new_id
from latchstring.foundation.database import Database
from latchstring.foundation.events import FeedTokenCreated, FeedTokenRevoked, Source

PREFIX = "lsf_"
"""The prefix of every feed token, so that secret scanners recognize one that was committed or logged."""


class FeedTokens:
    """The tokens with which services read the revocation feed. Only their hashes are stored."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def create(self, name: str, *, source: Source) -> str | None:
        """Return a new token, which can't be read again later; None if the name is taken."""
        # 256 random bits from `secrets`: enough that a fast hash protects it (see `tables`).
        token = PREFIX + secrets.token_urlsafe(32)
        now = self._clock.now()
        async with self._database.transaction() as connection:
            if not await store.insert_feed_token(connection, new_id(now), name, token_hash=_hash(token), now=now):
                return None
            # In the same transaction: no token without a record of it. The event contains neither token nor hash.
            await record(connection, FeedTokenCreated(at=now, source=source))
        return token

    async def admits(self, token: str) -> bool:
        """Return whether the token is valid now."""
        # Read at each request, not cached: a revoked token is refused from the next request on.
        async with self._database.reading() as connection:
            return await store.has_feed_token(connection, _hash(token))

    async def tokens(self) -> list[FeedToken]:
        """Return all tokens by name and date, the oldest first."""
        async with self._database.reading() as connection:
            return await store.all_feed_tokens(connection)

    async def revoke(self, name: str, *, source: Source) -> bool:
        """Revoke a token; return False if there is none of that name."""
        async with self._database.transaction() as connection:
            if not await store.delete_feed_token(connection, name):
                return False
            await record(connection, FeedTokenRevoked(at=self._clock.now(), source=source))
        return True


def _hash(token: str) -> bytes:
    # The database compares hashes, so the time of a lookup reveals nothing about a token.
    return hashlib.sha256(token.encode()).digest()
