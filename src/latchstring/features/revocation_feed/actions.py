"""What can be done with feed tokens: make, check, list, revoke."""

import hashlib
import secrets

from latchstring.features.revocation_feed import store
from latchstring.features.revocation_feed.store import FeedToken
from latchstring.foundation.audit import record
from latchstring.foundation.clock import Clock, new_id
from latchstring.foundation.database import Connection, Database
from latchstring.foundation.events import FeedTokenCreated, FeedTokenRevoked, Source

PREFIX = "lsf_"
"""What every feed token begins with, so that a scanner for secrets knows one where it should not be."""


class FeedTokens:
    """The tokens by which services follow the revocation feed; only their hashes are kept."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def create(self, name: str, *, source: Source) -> str | None:
        """Return a new token, which nobody can read again; None where there is one of that name."""
        token = PREFIX + secrets.token_urlsafe(32)
        now = self._clock.now()
        async with self._database.transaction() as connection:
            if not await store.insert_feed_token(connection, new_id(now), name, token_hash=_hash(token), now=now):
                return None
            await record(connection, FeedTokenCreated(at=now, source=source))
        return token

    async def admits(self, token: str) -> bool:
        """Tell whether it is one of ours, now."""
        async with self._database.reading() as connection:
            return await store.is_known(connection, _hash(token))

    async def tokens(self) -> list[FeedToken]:
        """Return the names, the oldest first."""
        async with self._database.reading() as connection:
            return await store.all_feed_tokens(connection)

    async def revoke(self, name: str, *, source: Source) -> bool:
        """Admit a token no longer; False where there is none of that name."""
        async with self._database.transaction() as connection:
            return await self._revoke(connection, name, source=source)

    async def _revoke(self, connection: Connection, name: str, *, source: Source) -> bool:
        if not await store.delete_feed_token(connection, name):
            return False
        await record(connection, FeedTokenRevoked(at=self._clock.now(), source=source))
        return True


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
