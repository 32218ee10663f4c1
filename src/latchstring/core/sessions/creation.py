"""Create a session. Only `core.sign_in` may import this module; the import contract `one-door` makes sure."""

from datetime import datetime

from latchstring.core.accounts.rules import User
from latchstring.core.caller import Proven
from latchstring.core.sessions import store
from latchstring.core.sessions.rules import Lifetimes, Session
from latchstring.foundation.audit import record
from latchstring.foundation.clock import new_id
from latchstring.foundation.database import Connection
from latchstring.foundation.events import SessionCreated, Source


async def create_session(
    connection: Connection,
    user: User,
    proven: Proven,
    *,
    lifetimes: Lifetimes,
    now: datetime,
    source: Source,
) -> Session:
    """Create a session for `user`, whose row is locked, and record the event. The id is always a new one."""
    ends_at = lifetimes.session_end(now)
    # Nothing of a session that the browser had is carried over (session fixation, CVE-2024-28197, ZITADEL).
    session = await _inserted(connection, user, proven, lifetimes=lifetimes, ends_at=ends_at, now=now, source=source)
    await record(connection, SessionCreated(at=now, source=source, user_id=user.id, session_id=session.id))
    return session


async def replace_session(
    connection: Connection,
    user: User,
    proven: Proven,
    *,
    replaced: Session,
    lifetimes: Lifetimes,
    now: datetime,
    source: Source,
) -> Session:
    """Create a session in place of one that is revoked in the same transaction, with the same absolute end.

    The user's row is locked. The calling function records the event.
    """
    # No `SessionCreated`, because this is no sign-in: a subscriber to that event runs inside the transaction, and if it
    # failed, the revocation of the other sessions would be rolled back.
    ends_at = replaced.ends_at
    return await _inserted(connection, user, proven, lifetimes=lifetimes, ends_at=ends_at, now=now, source=source)


async def _inserted(
    connection: Connection,
    user: User,
    proven: Proven,
    *,
    lifetimes: Lifetimes,
    ends_at: datetime,
    now: datetime,
    source: Source,
) -> Session:
    access_expires_at = min(lifetimes.access_expiry(now), ends_at)
    session = Session(
        id=new_id(now),
        user_id=user.id,
        # Replaced by the INSERT, which reads the epoch in force: a session created while everyone is signed out is
        # either revoked with the others, or begins in the new epoch.
        epoch=0,
        created_at=now,
        proven_at=proven.at,
        methods=proven.methods,
        generation=1,
        rotated_at=now,
        expires_at=min(lifetimes.refresh_expiry(now), ends_at),
        ends_at=ends_at,
        generation_access_expires_at=access_expires_at,
        access_expires_at=access_expires_at,
        refreshes=0,
        refreshes_since=now,
        revoked_at=None,
        revoked_reason=None,
    )
    return await store.insert_session(connection, session, source=source)
