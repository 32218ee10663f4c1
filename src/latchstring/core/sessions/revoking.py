"""Revocations of sessions and users: written in the transaction that ends them, applied here once it has committed."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from latchstring.core.accounts.rules import User
from latchstring.core.revocations.feed import RevocationFeed
from latchstring.core.revocations.rules import REVOCATION_MARGIN, Revocation, RevocationKind, RevocationReason
from latchstring.core.revocations.store import insert_revocations
from latchstring.core.sessions import store
from latchstring.core.sessions.store import EndedSession
from latchstring.foundation.audit import record
from latchstring.foundation.database import Connection
from latchstring.foundation.events import RefreshTokenReused, SessionEnded, Source


class Revoker:
    """Tells every worker what has ended.

    Methods that take a connection work in the caller's transaction, and return what `announce` needs once that has
    committed.
    """

    def __init__(self, feed: RevocationFeed, *, access_life: timedelta) -> None:
        self._feed = feed
        self._access_life = access_life

    def announce(self, revoked: Sequence[Revocation]) -> None:
        """Let this worker know what a committed transaction ended, before anybody is answered."""
        self._feed.apply(revoked)

    async def revoke_sessions(
        self,
        connection: Connection,
        ended: Sequence[EndedSession],
        user_id: UUID,
        reason: RevocationReason,
        *,
        now: datetime,
        source: Source,
    ) -> list[Revocation]:
        revoked = [
            Revocation(
                kind=RevocationKind.SESSION,
                session_id=session.id,
                user_id=user_id,
                below_version=None,
                reason=reason,
                expires_at=session.access_expires_at + REVOCATION_MARGIN,
            )
            for session in ended
        ]
        await insert_revocations(connection, revoked, now=now)
        for session in ended:
            if reason is RevocationReason.REFRESH_REUSED:
                reused = RefreshTokenReused(at=now, source=source, user_id=user_id, session_id=session.id)
                await record(connection, reused)
            else:
                event = SessionEnded(at=now, source=source, user_id=user_id, session_id=session.id, reason=reason)
                await record(connection, event)
        return revoked

    async def revoke_user(
        self, connection: Connection, user: User, reason: RevocationReason, *, now: datetime
    ) -> Revocation:
        ended = await store.end_sessions_of_user(connection, user.id, now=now, reason=reason)
        # Sessions ended before may have tokens left that were refused for another reason: they get this one, too.
        latest = max([now + self._access_life, *(session.access_expires_at for session in ended)])
        revocation = Revocation(
            kind=RevocationKind.USER,
            session_id=None,
            user_id=user.id,
            below_version=user.claims_version + 1,
            reason=reason,
            expires_at=latest + REVOCATION_MARGIN,
        )
        await insert_revocations(connection, [revocation], now=now)
        return revocation

    async def revoke_claims(self, connection: Connection, user: User, *, now: datetime) -> Revocation:
        """Refuse the tokens that were issued with other roles than the user has now; the sessions live on."""
        latest = await store.latest_access_expiry(connection, user.id)
        revocation = Revocation(
            kind=RevocationKind.USER,
            session_id=None,
            user_id=user.id,
            below_version=user.claims_version + 1,
            reason=RevocationReason.CLAIMS_CHANGED,
            expires_at=max(now + self._access_life, latest or now) + REVOCATION_MARGIN,
        )
        await insert_revocations(connection, [revocation], now=now)
        return revocation
