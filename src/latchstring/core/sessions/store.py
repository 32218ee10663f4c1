"""Named queries of the table of sessions."""

from collections.abc import Collection
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from latchstring.core.revocations.rules import RevocationReason
from latchstring.core.revocations.store import EPOCH
from latchstring.core.sessions.rules import (
    Client,
    EndedSession,
    ListedSession,
    RefreshLimit,
    Rotation,
    Session,
)
from latchstring.core.sessions.tables import sessions
from latchstring.foundation.clock import MAX_CLOCK_SKEW
from latchstring.foundation.database import Connection
from latchstring.foundation.events import Source

# Columns for lists and pruning only.
_NOT_IN_SESSION = {"user_agent", "address", "expires_by"}
_COLUMNS = [column for column in sessions.c if column.name not in _NOT_IN_SESSION]
_FIELDS = [column.name for column in _COLUMNS]


def _session(row: sa.Row[*tuple[Any, ...]]) -> Session:
    fields = {name: getattr(row, name) for name in _FIELDS}
    rotated_by = Client(network=fields.pop("rotated_network"), agent=fields.pop("rotated_agent"))
    return Session(**{**fields, "methods": tuple(fields["methods"]), "rotated_by": rotated_by})


# The statement itself reads the epoch in force, so that a session belongs to one side of an epoch that begins now.
_INSERT = sessions.insert().values(epoch=EPOCH).returning(sessions.c.epoch)


async def insert_session(connection: Connection, session: Session, *, source: Source) -> Session:
    """Insert a new session, and return it with the epoch in force."""
    row = {
        "id": session.id,
        "user_id": session.user_id,
        "created_at": session.created_at,
        "proven_at": session.proven_at,
        "methods": list(session.methods),
        "generation": session.generation,
        "rotated_at": session.rotated_at,
        "expires_at": session.expires_at,
        "ends_at": session.ends_at,
        "generation_access_expires_at": session.generation_access_expires_at,
        "access_expires_at": session.access_expires_at,
        "refreshes": session.refreshes,
        "refreshes_since": session.refreshes_since,
        "rotated_network": session.rotated_by.network,
        "rotated_agent": session.rotated_by.agent,
        "repeats": session.repeats,
        "repeated_elsewhere_at": session.repeated_elsewhere_at,
        "expires_by": session.expires_at.date(),
        "revoked_at": None,
        "revoked_reason": None,
        "user_agent": source.user_agent,
        "address": source.address,
    }
    return replace(session, epoch=(await connection.execute(_INSERT, row)).scalar_one())


def _instant(name: str) -> sa.BindParameter[datetime]:
    return sa.bindparam(name, type_=sessions.c.rotated_at.type)


# A CASE, because the two databases have no function in common: PostgreSQL has `least`, SQLite a `min` of two arguments.
def _earlier(column: sa.Column[datetime], instant: sa.BindParameter[datetime]) -> sa.Case[datetime]:
    return sa.case((column < instant, column), else_=instant)


_NOW = _instant("now")
_NEW_ACCESS_EXPIRY = _earlier(sessions.c.ends_at, _instant("access_expiry"))
_ACTIVE = (sessions.c.revoked_at.is_(None), sessions.c.expires_at > _NOW, sessions.c.epoch >= EPOCH)
_OF_USER = (sessions.c.id == sa.bindparam("session_id"), sessions.c.user_id == sa.bindparam("owner_id"))

# Refreshes are counted by the statement that rotates: no further statement, and no row to prune (decision 10).
_WINDOW_IS_OVER = sessions.c.refreshes_since <= _instant("window_began")
_MAY_REFRESH = _WINDOW_IS_OVER | (sessions.c.refreshes < sa.bindparam("most_refreshes"))
_COUNTED = {
    "refreshes": sa.case((_WINDOW_IS_OVER, 1), else_=sessions.c.refreshes + 1),
    "refreshes_since": sa.case((_WINDOW_IS_OVER, _NOW), else_=sessions.c.refreshes_since),
}
_LAST_DAY = sa.bindparam("last_day", type_=sa.Date())
_NEXT_GENERATION = {
    "generation": sessions.c.generation + 1,
    "rotated_at": _NOW,
    "expires_at": _earlier(sessions.c.ends_at, _instant("refresh_expiry")),
    # Never an earlier day: earlier tokens may be valid until then, even if the lifetimes have been lowered since.
    "expires_by": sa.case((sessions.c.expires_by > _LAST_DAY, sessions.c.expires_by), else_=_LAST_DAY),
    "generation_access_expires_at": _NEW_ACCESS_EXPIRY,
    # The latest one ever issued: a revocation is kept until then, so it must cover every token of the session.
    "access_expires_at": sa.case(
        (sessions.c.access_expires_at > _NEW_ACCESS_EXPIRY, sessions.c.access_expires_at), else_=_NEW_ACCESS_EXPIRY
    ),
    "rotated_network": sa.bindparam("network", type_=sessions.c.rotated_network.type),
    "rotated_agent": sa.bindparam("agent", type_=sessions.c.rotated_agent.type),
}
_PROVEN = {"proven_at": _instant("new_proof_at"), "methods": sa.bindparam("new_methods", type_=sessions.c.methods.type)}
_IS_CURRENT = sessions.c.generation == sa.bindparam("presented")
# An access token has no generation, but `iat` is when that began. If it is older than the current generation, and that
# began within the grace, the request is a repeat, and stays in the current generation as a refresh would.
_IS_NOT_REPEATED = (sessions.c.rotated_at < _instant("next_second")) | (sessions.c.rotated_at < _instant("grace_began"))

# The one conditional statement of a refresh: of two at once, one changes the row, and the other finds no such row.
_ROTATE = (
    sessions.update()
    .where(*_OF_USER, _IS_CURRENT, *_ACTIVE, _MAY_REFRESH)
    .values(_NEXT_GENERATION | _COUNTED)
    .returning(*_COLUMNS)
)
_ROTATE_PROVEN = (
    sessions.update().where(*_OF_USER, _IS_CURRENT, *_ACTIVE).values(_NEXT_GENERATION | _PROVEN).returning(*_COLUMNS)
)
_ROTATE_UNSEEN = (
    sessions.update()
    .where(*_OF_USER, _IS_NOT_REPEATED, *_ACTIVE)
    .values(_NEXT_GENERATION | _PROVEN)
    .returning(*_COLUMNS)
)
_PROVE = sessions.update().where(*_OF_USER, *_ACTIVE).values(_PROVEN).returning(*_COLUMNS)
_REPEATED = {
    "repeats": sessions.c.repeats + 1,
    "repeated_elsewhere_at": sa.func.coalesce(_instant("elsewhere_at"), sessions.c.repeated_elsewhere_at),
}
_COUNT_REPEAT = sessions.update().where(*_OF_USER, *_ACTIVE).values(_REPEATED).returning(sessions.c.repeats)
_COUNT_LIMITED_REPEAT = (
    sessions.update()
    .where(*_OF_USER, *_ACTIVE, _MAY_REFRESH)
    .values(_COUNTED | _REPEATED)
    .returning(sessions.c.repeats)
)


def _parameters(rotation: Rotation) -> dict[str, Any]:
    return {
        "session_id": rotation.session_id,
        "owner_id": rotation.user_id,
        "now": rotation.now,
        "access_expiry": rotation.access_expiry,
        "refresh_expiry": rotation.refresh_expiry,
        "last_day": rotation.refresh_expiry.date(),
        "network": rotation.client.network,
        "agent": rotation.client.agent,
    }


async def rotate(
    connection: Connection, rotation: Rotation, *, presented: int, limit: RefreshLimit | None
) -> Session | None:
    """Begin an active session's next generation. None if `presented` is not current or the limit is reached."""
    parameters = _parameters(rotation) | {"presented": presented} | _limiting(limit, now=rotation.now)
    row = (await connection.execute(_ROTATE, parameters)).one_or_none()
    return _session(row) if row else None


async def rotate_proven(
    connection: Connection, rotation: Rotation, *, presented: int, methods: Collection[str], proven_at: datetime
) -> Session | None:
    """Begin the next generation with a fresh proof, without the limit on refreshes."""
    parameters = _parameters(rotation) | {
        "presented": presented,
        "new_methods": list(methods),
        "new_proof_at": proven_at,
    }
    row = (await connection.execute(_ROTATE_PROVEN, parameters)).one_or_none()
    return _session(row) if row else None


async def rotate_unseen(
    connection: Connection,
    rotation: Rotation,
    *,
    access_issued_at: datetime,
    grace: timedelta,
    methods: Collection[str],
    proven_at: datetime,
) -> Session | None:
    """Begin the next generation with a fresh proof, for a client that sent an access token alone.

    Returns None if the session has ended, or was rotated within the grace after the token was issued.

    Args:
        connection: the open transaction.
        rotation: the next generation.
        access_issued_at: the access token's `iat`, in whole seconds.
        grace: how long a replaced generation stays in the one that replaced it.
        methods: all methods that the client has proven.
        proven_at: when the user proved who they are.
    """
    parameters = _parameters(rotation) | {
        "next_second": access_issued_at + timedelta(seconds=1),
        "grace_began": rotation.now - grace,
        "new_methods": list(methods),
        "new_proof_at": proven_at,
    }
    row = (await connection.execute(_ROTATE_UNSEEN, parameters)).one_or_none()
    return _session(row) if row else None


async def prove(
    connection: Connection,
    session_id: UUID,
    *,
    user_id: UUID,
    methods: Collection[str],
    proven_at: datetime,
    now: datetime,
) -> Session | None:
    """Write a fresh proof into the current generation. Returns None if the session has ended."""
    parameters = {
        "session_id": session_id,
        "owner_id": user_id,
        "now": now,
        "new_methods": list(methods),
        "new_proof_at": proven_at,
    }
    row = (await connection.execute(_PROVE, parameters)).one_or_none()
    return _session(row) if row else None


async def count_repeat(
    connection: Connection,
    session_id: UUID,
    *,
    user_id: UUID,
    now: datetime,
    limit: RefreshLimit | None,
    is_elsewhere: bool,
) -> bool:
    """Count a repeated response. Returns False if the limit is reached or the session has ended.

    Without a `limit` the repeat does not count as a refresh.
    """
    # A confirmation is not a refresh: a thief who repeats refreshes must not be able to prevent the owner's.
    elsewhere_at = now if is_elsewhere else None
    parameters = {"session_id": session_id, "owner_id": user_id, "now": now, "elsewhere_at": elsewhere_at}
    if limit is None:
        counted = await connection.execute(_COUNT_REPEAT, parameters)
    else:
        counted = await connection.execute(_COUNT_LIMITED_REPEAT, parameters | _limiting(limit, now=now))
    return counted.one_or_none() is not None


def _limiting(limit: RefreshLimit | None, *, now: datetime) -> dict[str, Any]:
    if limit is None:
        return {"window_began": now, "most_refreshes": _NO_LIMIT}
    return {"window_began": now - limit.window, "most_refreshes": limit.times}


_NO_LIMIT = 2**31 - 1
_BY_ID = sa.select(*_COLUMNS, EPOCH.label("epoch_now")).where(*_OF_USER)


async def session_of_user(connection: Connection, session_id: UUID, *, user_id: UUID) -> tuple[Session, int] | None:
    """Read one session of one user, and the epoch in force."""
    row = (await connection.execute(_BY_ID, {"session_id": session_id, "owner_id": user_id})).one_or_none()
    return (_session(row), row.epoch_now) if row else None


async def active_session(connection: Connection, session_id: UUID, *, user_id: UUID, now: datetime) -> Session | None:
    """Read one active session of one user; None if there is none, or it has ended."""
    found = await session_of_user(connection, session_id, user_id=user_id)
    if found is None:
        return None
    session, epoch = found
    has_ended = session.revoked_at is not None or session.epoch < epoch or session.expires_at <= now
    return None if has_ended else session


async def owner_of(connection: Connection, session_id: UUID) -> UUID | None:
    """Read the id of a session's user; None if there is no such session."""
    owner: UUID | None = await connection.scalar(sa.select(sessions.c.user_id).where(sessions.c.id == session_id))
    return owner


_TODAY = sa.bindparam("today", type_=sa.Date())
# `expires_by` is in the index: thousands of expired sessions of a user do not slow these queries down.
_ACTIVE_OF_USER = (sessions.c.user_id == sa.bindparam("owner_id"), sessions.c.expires_by >= _TODAY, *_ACTIVE)
_LIST = (
    sa.select(*_COLUMNS, sessions.c.user_agent, sessions.c.address)
    .where(*_ACTIVE_OF_USER)
    .order_by(sessions.c.rotated_at.desc(), sessions.c.id.desc())
)


async def list_sessions(connection: Connection, user_id: UUID, *, now: datetime) -> list[ListedSession]:
    """Read the active sessions of a user, the last refreshed first."""
    rows = await connection.execute(_LIST, {"owner_id": user_id, "now": now, "today": now.date()})
    return [ListedSession(session=_session(row), user_agent=row.user_agent, address=row.address) for row in rows]


_LATEST_ACCESS = sa.select(sa.func.max(sessions.c.access_expires_at)).where(
    sessions.c.user_id == sa.bindparam("owner_id"), sessions.c.revoked_at.is_(None)
)


async def latest_access_expiry(connection: Connection, user_id: UUID) -> datetime | None:
    """Read when the last access token ever issued for a user's sessions expires."""
    latest: datetime | None = await connection.scalar(_LATEST_ACCESS, {"owner_id": user_id})
    return latest


_ACTIVE_AMONG = sa.select(sessions.c.id, sessions.c.expires_at).where(
    sessions.c.id.in_(sa.bindparam("ids", expanding=True)), *_ACTIVE
)


async def active_among(connection: Connection, session_ids: Collection[UUID], *, now: datetime) -> dict[UUID, datetime]:
    """Return the active ones of these sessions, each with when it expires unless it is refreshed."""
    rows = await connection.execute(_ACTIVE_AMONG, {"ids": list(session_ids), "now": now})
    return {row.id: row.expires_at for row in rows}


_ENDED = {"revoked_at": _NOW, "revoked_reason": sa.bindparam("reason"), "expires_by": _TODAY}
_END = (
    sessions.update()
    .where(*_OF_USER, sessions.c.revoked_at.is_(None))
    .values(_ENDED)
    .returning(sessions.c.id, sessions.c.access_expires_at)
)
# Without the expired sessions: they may be thousands, none of their tokens is valid, and they stay evidence as they
# are. Expired for `MAX_CLOCK_SKEW`: an instance whose clock is ahead must end what another one would still refresh.
_LONG_AGO = _instant("long_ago")
_END_ALL = (
    sessions.update()
    .where(
        sessions.c.user_id == sa.bindparam("owner_id"),
        sessions.c.revoked_at.is_(None),
        sessions.c.expires_by >= sa.bindparam("day_long_ago", type_=sa.Date()),
        (sessions.c.expires_at > _LONG_AGO) | (sessions.c.access_expires_at > _LONG_AGO),
    )
    .values(_ENDED)
    .returning(sessions.c.id, sessions.c.access_expires_at)
)
_END_OTHERS = _END_ALL.where(sessions.c.id != sa.bindparam("kept_id"))
# Ids begin with the time of creation (UUIDv7), so the highest ids are the newest sessions.
_BEYOND = sa.select(sessions.c.id).where(*_ACTIVE_OF_USER).order_by(sessions.c.id.desc()).offset(sa.bindparam("most"))
_END_OLDEST = _END_ALL.where(sessions.c.id.in_(_BEYOND))


async def end_session(
    connection: Connection, session_id: UUID, *, user_id: UUID, now: datetime, reason: RevocationReason
) -> list[EndedSession]:
    """End one session of one user. Returns an empty list if it has ended already."""
    return await _end(connection, _END, session_id=session_id, owner_id=user_id, now=now, reason=reason)


async def end_sessions_of_user(
    connection: Connection, user_id: UUID, *, now: datetime, reason: RevocationReason
) -> list[EndedSession]:
    """End every session of a user of which a token may be valid."""
    return await _end(connection, _END_ALL, owner_id=user_id, now=now, reason=reason)


async def end_other_sessions(
    connection: Connection, user_id: UUID, *, kept_id: UUID, now: datetime, reason: RevocationReason
) -> list[EndedSession]:
    """End every session of a user of which a token may be valid, except one."""
    return await _end(connection, _END_OTHERS, owner_id=user_id, kept_id=kept_id, now=now, reason=reason)


async def end_oldest_sessions(
    connection: Connection, user_id: UUID, *, most: int, now: datetime, reason: RevocationReason
) -> list[EndedSession]:
    """End a user's active sessions except the `most` newest ones."""
    return await _end(connection, _END_OLDEST, owner_id=user_id, most=most, now=now, reason=reason)


async def _end(
    connection: Connection, statement: sa.Executable, *, now: datetime, reason: RevocationReason, **which: object
) -> list[EndedSession]:
    long_ago = now - MAX_CLOCK_SKEW
    parameters = {
        "now": now,
        "today": now.date(),
        "long_ago": long_ago,
        "day_long_ago": long_ago.date(),
        "reason": reason.value,
        **which,
    }
    rows = await connection.execute(statement, parameters)
    return [EndedSession(id=row.id, access_expires_at=row.access_expires_at) for row in rows]


async def prune_sessions(connection: Connection, *, before: date, most: int) -> int:
    """Delete at most `most` sessions that ended before a day, and return how many were deleted."""
    ended = sa.select(sessions.c.id).where(sessions.c.expires_by < before).order_by(sessions.c.expires_by).limit(most)
    return (await connection.execute(sessions.delete().where(sessions.c.id.in_(ended)))).rowcount
