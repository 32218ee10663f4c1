"""Opening a session. Only `core.sign_in` may import this module: there is one door."""

from datetime import UTC, datetime

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
    """Create a session for `user`, whose row the caller holds locked, and record the event."""
    ends_at = lifetimes.session_end(now)
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
    """Create a session in the place of one that ends, with its absolute end; the caller records why.

    Nobody has signed in, so there is no `SessionCreated`: an application's subscriber to that takes part in the
    transaction, and could undo what ended the others.
    """
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
        epoch=0,  # the insert knows the one in force
        created_at=now,
        proven_at=datetime.fromtimestamp(proven.at_unix, UTC),
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
