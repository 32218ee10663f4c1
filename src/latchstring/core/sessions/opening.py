"""Opening a session. Only `core.sign_in` may import this module: there is one door."""

from datetime import datetime

from latchstring.core.accounts.rules import User
from latchstring.core.sessions import store
from latchstring.core.sessions.rules import Lifetimes, Session
from latchstring.foundation.audit import record
from latchstring.foundation.clock import new_id
from latchstring.foundation.database import Connection
from latchstring.foundation.facts import SessionOpened, Source


async def open_session(
    connection: Connection,
    user: User,
    *,
    methods: tuple[str, ...],
    proven_at: datetime,
    lifetimes: Lifetimes,
    now: datetime,
    source: Source,
) -> Session:
    """Open a session for `user`, whose row the caller holds locked, and record the fact."""
    ends_at = lifetimes.session_end(now)
    access_expires_at = min(lifetimes.access_expiry(now), ends_at)
    session = Session(
        id=new_id(now),
        user_id=user.id,
        epoch=0,  # the insert knows the one in force
        created_at=now,
        proven_at=proven_at,
        methods=methods,
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
    session = await store.insert_session(connection, session, source=source)
    await record(connection, SessionOpened(at=now, source=source, user_id=user.id, session_id=session.id))
    return session
