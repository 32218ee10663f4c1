"""Named questions about sessions and revocations, and the writes."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from latchstring.core.sessions.rules import EndReason, Session
from latchstring.core.sessions.tables import revocations, sessions
from latchstring.foundation.audit import Source
from latchstring.foundation.database import Connection, is_postgresql, xid8


class RevocationKind(StrEnum):
    """Whom a revocation means."""

    SESSION = "session"
    USER = "user"


@dataclass(frozen=True, slots=True)
class Revocation:
    """One entry of the feed: a session, or a user's tokens below a claims version."""

    kind: RevocationKind
    session_id: UUID | None
    user_id: UUID
    below_version: int | None
    reason: EndReason
    expires_at: datetime
    """When no token it speaks of can be presented any more."""


_COLUMNS = [column for column in sessions.c if column.name not in {"user_agent", "address"}]


def _session(row: Any) -> Session:  # noqa: ANN401 -- a row of `_COLUMNS`
    fields = dict(row._mapping)  # noqa: SLF001 -- SQLAlchemy's public name for a row as a mapping
    return Session(**{**fields, "methods": tuple(fields["methods"])})


_INSERT = sessions.insert()


async def insert_session(connection: Connection, session: Session, *, source: Source) -> None:
    """Write a new session."""
    await connection.execute(
        _INSERT,
        {
            "id": session.id,
            "user_id": session.user_id,
            "created_at": session.created_at,
            "proven_at": session.proven_at,
            "methods": list(session.methods),
            "generation": session.generation,
            "rotated_at": session.rotated_at,
            "expires_at": session.expires_at,
            "ends_at": session.ends_at,
            "access_expires_at": session.access_expires_at,
            "revoked_at": None,
            "revoked_reason": None,
            "user_agent": source.user_agent,
            "address": source.address,
        },
    )


def _earlier(column: sa.Column[datetime], instant: sa.BindParameter[datetime]) -> sa.Case[datetime]:
    return sa.case((column < instant, column), else_=instant)


_NOW = sa.bindparam("now", type_=sessions.c.rotated_at.type)
_REFRESH_EXPIRY = sa.bindparam("refresh_expiry", type_=sessions.c.expires_at.type)
_ACCESS_EXPIRY = sa.bindparam("access_expiry", type_=sessions.c.access_expires_at.type)
_NEW_ACCESS_EXPIRY = _earlier(sessions.c.ends_at, _ACCESS_EXPIRY)

_ROTATE = (
    sessions.update()
    .where(
        sessions.c.id == sa.bindparam("session_id"),
        sessions.c.user_id == sa.bindparam("owner_id"),
        sessions.c.generation == sa.bindparam("presented"),
        sessions.c.revoked_at.is_(None),
        sessions.c.expires_at > _NOW,
    )
    .values(
        generation=sessions.c.generation + 1,
        rotated_at=_NOW,
        expires_at=_earlier(sessions.c.ends_at, _REFRESH_EXPIRY),
        access_expires_at=sa.case(
            (sessions.c.access_expires_at > _NEW_ACCESS_EXPIRY, sessions.c.access_expires_at),
            else_=_NEW_ACCESS_EXPIRY,
        ),
    )
    .returning(*_COLUMNS)
)


async def rotate(
    connection: Connection,
    session_id: UUID,
    *,
    user_id: UUID,
    generation: int,
    now: datetime,
    access_expiry: datetime,
    refresh_expiry: datetime,
) -> Session | None:
    """Move a living session from `generation` to the next: the one conditional statement. None: it was not so."""
    row = (
        await connection.execute(
            _ROTATE,
            {
                "session_id": session_id,
                "owner_id": user_id,
                "presented": generation,
                "now": now,
                "access_expiry": access_expiry,
                "refresh_expiry": refresh_expiry,
            },
        )
    ).one_or_none()
    return _session(row) if row else None


_BY_ID = sa.select(*_COLUMNS).where(
    sessions.c.id == sa.bindparam("session_id"), sessions.c.user_id == sa.bindparam("owner_id")
)


async def session_of_user(connection: Connection, session_id: UUID, *, user_id: UUID) -> Session | None:
    """Read one session of one user."""
    row = (await connection.execute(_BY_ID, {"session_id": session_id, "owner_id": user_id})).one_or_none()
    return _session(row) if row else None


async def end_session(
    connection: Connection, session_id: UUID, *, user_id: UUID, now: datetime, reason: EndReason
) -> datetime | None:
    """End one living session; return when its last access token expires, or None where it had ended already."""
    last_access: datetime | None = await connection.scalar(
        sessions.update()
        .where(sessions.c.id == session_id, sessions.c.user_id == user_id, sessions.c.revoked_at.is_(None))
        .values(revoked_at=now, revoked_reason=reason.value)
        .returning(sessions.c.access_expires_at)
    )
    return last_access


async def end_sessions_of_user(
    connection: Connection, user_id: UUID, *, now: datetime, reason: EndReason
) -> datetime | None:
    """End every living session of a user; return when the last access token of any expires, None where none lived."""
    ended = await connection.scalars(
        sessions.update()
        .where(sessions.c.user_id == user_id, sessions.c.revoked_at.is_(None))
        .values(revoked_at=now, revoked_reason=reason.value)
        .returning(sessions.c.access_expires_at)
    )
    return max(ended.all(), default=None)


async def insert_revocation(connection: Connection, revocation: Revocation, *, now: datetime) -> None:
    """Tell every worker."""
    await connection.execute(
        revocations.insert().values(
            transaction_id=sa.func.pg_current_xact_id() if is_postgresql(connection) else None,
            kind=revocation.kind.value,
            session_id=revocation.session_id,
            user_id=revocation.user_id,
            below_version=revocation.below_version,
            reason=revocation.reason.value,
            created_at=now,
            expires_at=revocation.expires_at,
        )
    )


_ENTRY = (
    revocations.c.kind,
    revocations.c.session_id,
    revocations.c.user_id,
    revocations.c.below_version,
    revocations.c.reason,
    revocations.c.expires_at,
)

# PostgreSQL: the oldest transaction still open, and the entries, in one statement and so from one snapshot. A later
# poll reads again from there: what committed late has an id that is not below it, and is never missed.
_HORIZON = sa.cast(sa.func.pg_snapshot_xmin(sa.func.pg_current_snapshot()), sa.Text()).label("cursor")
_ONE = sa.select(sa.literal(1).label("one")).subquery("one")
_UNEXPIRED = revocations.c.expires_at > sa.bindparam("now", type_=revocations.c.expires_at.type)
_SINCE_XID = revocations.c.transaction_id >= sa.cast(sa.bindparam("cursor", type_=sa.Text()), xid8)
_POSTGRESQL_ALL = sa.select(_HORIZON, *_ENTRY).select_from(_ONE.outerjoin(revocations, _UNEXPIRED))
_POSTGRESQL_SINCE = sa.select(_HORIZON, *_ENTRY).select_from(_ONE.outerjoin(revocations, _SINCE_XID))

# SQLite: numbers in the order of commits. The highest is read first, so that nothing can slip in between.
_SQLITE_LAST = sa.select(sa.func.coalesce(sa.func.max(revocations.c.sequence), 0))
_SQLITE_ALL = sa.select(*_ENTRY).where(_UNEXPIRED)
_SQLITE_SINCE = sa.select(revocations.c.sequence, *_ENTRY).where(
    revocations.c.sequence > sa.cast(sa.bindparam("cursor", type_=sa.Text()), sa.Integer())
)


async def all_revocations(connection: Connection, *, now: datetime) -> tuple[list[Revocation], str]:
    """Read every entry that still matters, and the cursor to go on from."""
    if is_postgresql(connection):
        rows = (await connection.execute(_POSTGRESQL_ALL, {"now": now})).all()
        return _entries(rows), rows[0].cursor
    last = await connection.scalar(_SQLITE_LAST)
    rows = (await connection.execute(_SQLITE_ALL, {"now": now})).all()
    return _entries(rows), str(last)


async def revocations_since(connection: Connection, cursor: str) -> tuple[list[Revocation], str]:
    """Read the entries that a read which returned `cursor` may not have seen, and the next cursor."""
    if is_postgresql(connection):
        rows = (await connection.execute(_POSTGRESQL_SINCE, {"cursor": cursor})).all()
        return _entries(rows), rows[0].cursor
    rows = (await connection.execute(_SQLITE_SINCE, {"cursor": cursor})).all()
    return _entries(rows), str(max((row.sequence for row in rows), default=cursor))


def _entries(rows: Sequence[Any]) -> list[Revocation]:
    return [
        Revocation(
            kind=RevocationKind(row.kind),
            session_id=row.session_id,
            user_id=row.user_id,
            below_version=row.below_version,
            reason=EndReason(row.reason),
            expires_at=row.expires_at,
        )
        for row in rows
        if row.kind is not None  # the one row of an empty outer join
    ]
