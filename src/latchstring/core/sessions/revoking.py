"""Revocations: inserted in the transaction that ends the sessions, and applied in this worker after the commit."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from latchstring.core.accounts.rules import User
from latchstring.core.revocations.feed import RevocationFeed
from latchstring.core.revocations.rules import REVOCATION_MARGIN, Revocation, RevocationKind, RevocationReason
from latchstring.core.revocations.store import insert_revocations
from latchstring.core.sessions import store
from latchstring.core.sessions.rules import EndedSession
from latchstring.foundation.audit import record
from latchstring.foundation.database import Connection
from latchstring.foundation.events import RefreshTokenReused, SessionEnded, Source


class Revoker:
    """Inserts revocations, which the other workers see at their next poll.

    Methods that take a connection work in the caller's transaction, and return the revocations to pass to `announce`
    after the commit.
    """

    def __init__(self, feed: RevocationFeed, *, access_life: timedelta) -> None:
        self._feed = feed
        self._access_life = access_life

    def announce(self, revoked: Sequence[Revocation]) -> None:
        """Apply the revocations of a committed transaction in this worker, before it responds."""
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
        """Revoke the tokens of sessions that a statement has just ended, and record one event for each."""
        revoked = [
            Revocation(
                kind=RevocationKind.SESSION,
                session_id=session.id,
                user_id=user_id,
                below_version=None,
                reason=reason,
                # Kept until the last access token ever issued for the session has expired by every instance's clock.
                expires_at=session.access_expires_at + REVOCATION_MARGIN,
            )
            for session in ended
        ]
        await insert_revocations(connection, revoked, now=now)
        # In the same transaction: no revocation without its event in the audit trail, and no event without it.
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
        """Revoke every session of `user`, whose row is locked; the caller raises the claims version and records why."""
        ended = await store.end_sessions_of_user(connection, user.id, now=now, reason=reason)
        # One access lifetime from now at least: tokens of sessions that ended earlier get this reason as well.
        latest = max([now + self._access_life, *(session.access_expires_at for session in ended)])
        return await _insert_for_user(connection, user, reason, last_expiry=latest, now=now)

    async def revoke_claims(self, connection: Connection, user: User, *, now: datetime) -> Revocation:
        """Revoke the access tokens that were issued with other roles. The sessions stay, and can be refreshed."""
        latest = await store.latest_access_expiry(connection, user.id)
        # `latest`, because tokens may have been issued while `access_token_expire_minutes` was higher.
        last_expiry = max(now + self._access_life, latest or now)
        return await _insert_for_user(
            connection, user, RevocationReason.CLAIMS_CHANGED, last_expiry=last_expiry, now=now
        )


async def _insert_for_user(
    connection: Connection, user: User, reason: RevocationReason, *, last_expiry: datetime, now: datetime
) -> Revocation:
    revocation = Revocation(
        kind=RevocationKind.USER,
        session_id=None,
        user_id=user.id,
        # Refuses tokens of the current version. The caller writes the next one, whose tokens are accepted.
        below_version=user.claims_version + 1,
        reason=reason,
        expires_at=last_expiry + REVOCATION_MARGIN,
    )
    await insert_revocations(connection, [revocation], now=now)
    return revocation
