"""Queries and writes of revocations."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from latchstring.core.keys.store import REVISION
from latchstring.core.revocations.rules import EVERYONE, NEVER, Revocation, RevocationKind, RevocationReason
from latchstring.core.revocations.tables import revocations
from latchstring.foundation.database import Connection, is_postgresql, xid8

# The kind is a literal, not a bound parameter: otherwise neither database can use the partial index.
EPOCH = (
    sa.select(sa.func.coalesce(sa.func.max(revocations.c.below_version), 0))
    .where(revocations.c.kind == sa.literal_column(f"'{EVERYONE}'"))
    .scalar_subquery()
)
"""The epoch in force; a subquery for other packages' own statements."""


async def epoch(connection: Connection) -> int:
    """Read the epoch in force."""
    number: int = (await connection.execute(sa.select(EPOCH))).scalar_one()
    return number


async def prune_revocations(connection: Connection, *, before: datetime, most: int) -> int:
    """Delete at most `most` entries that expired before an instant; return how many."""
    old = (
        sa.select(revocations.c.sequence)
        .where(revocations.c.expires_at < before)
        .order_by(revocations.c.expires_at)
        .limit(most)
    )
    return (await connection.execute(revocations.delete().where(revocations.c.sequence.in_(old)))).rowcount


async def insert_revocations(connection: Connection, entries: Sequence[Revocation], *, now: datetime) -> None:
    """Insert revocations; workers see them at their next poll."""
    if not entries:
        return
    rows = [
        {
            "kind": entry.kind.value,
            "session_id": entry.session_id,
            "user_id": entry.user_id,
            "below_version": entry.below_version,
            "reason": entry.reason,
            "created_at": now,
            "expires_at": entry.expires_at,
        }
        for entry in entries
    ]
    insert = revocations.insert()
    if is_postgresql(connection):
        insert = insert.values(transaction_id=sa.func.pg_current_xact_id())
    await connection.execute(insert, rows)


async def begin_epoch(connection: Connection, *, reason: RevocationReason, now: datetime) -> Revocation:
    """Begin the next epoch, which ends every session of an earlier one. The caller holds the lock of epochs."""
    # A number and not a time: with clocks that differ, a token issued by an instance that is ahead would survive a
    # time, and a sign-in at one that is behind would be refused (decision 9). One row, however many sessions end.
    entry = Revocation(
        kind=RevocationKind.EVERYONE,
        session_id=None,
        user_id=None,
        below_version=await epoch(connection) + 1,
        reason=reason,
        expires_at=NEVER,
    )
    await insert_revocations(connection, [entry], now=now)
    return entry


_ENTRY = (
    revocations.c.sequence,
    revocations.c.kind,
    revocations.c.session_id,
    revocations.c.user_id,
    revocations.c.below_version,
    revocations.c.reason,
    revocations.c.expires_at,
)

# The cursor, the revision of the keys and the entries are read in one statement, and so in one snapshot. PostgreSQL's
# cursor is the oldest transaction still open: the next poll re-reads from there, so that an entry that commits late,
# whose transaction id is not below it, is never missed.
_HORIZON = sa.cast(sa.func.pg_snapshot_xmin(sa.func.pg_current_snapshot()), sa.Text()).label("cursor")
_SINCE_XID = revocations.c.transaction_id >= sa.cast(sa.bindparam("cursor", type_=sa.Text()), xid8)
# SQLite's cursor is the last number ever given, in commit order; also after its row was deleted.
_LAST_NUMBER = sa.cast(
    sa.func.coalesce(
        sa.select(sa.column("seq"))
        .select_from(sa.table("sqlite_sequence"))
        .where(sa.column("name") == revocations.name)
        .scalar_subquery(),
        0,
    ),
    sa.Text(),
).label("cursor")
_SINCE_NUMBER = revocations.c.sequence > sa.cast(sa.bindparam("cursor", type_=sa.Text()), sa.Integer())

_KEYS_REVISION = REVISION.label("keys_revision")
# Joined to the entries, so that the cursor is returned even if there are none.
_ONE_ROW = sa.select(sa.literal(1).label("one")).subquery("one")


def _since(cursor: sa.Label[str], condition: sa.ColumnElement[bool]) -> sa.Select[Any]:
    return sa.select(cursor, _KEYS_REVISION, *_ENTRY).select_from(_ONE_ROW.outerjoin(revocations, condition))


_POSTGRESQL_SINCE, _SQLITE_SINCE = _since(_HORIZON, _SINCE_XID), _since(_LAST_NUMBER, _SINCE_NUMBER)
_POSTGRESQL_CURSOR, _SQLITE_CURSOR = sa.select(_HORIZON), sa.select(_LAST_NUMBER)

_PAGE = (
    sa.select(*_ENTRY)
    .where(
        revocations.c.sequence > sa.bindparam("after"),
        revocations.c.expires_at > sa.bindparam("now", type_=revocations.c.expires_at.type),
    )
    .order_by(revocations.c.sequence)
    .limit(sa.bindparam("most"))
)

BEFORE_ALL = -(2**63)
"""A number below that of every entry."""


@dataclass(frozen=True, slots=True)
class PollResult:
    """The result of a poll."""

    entries: list[Revocation]
    cursor: str
    """The cursor for the next poll."""
    keys_revision: int


async def revocations_cursor(connection: Connection) -> str:
    """Read the feed's cursor: a later `revocations_since` returns everything that is not committed yet."""
    statement = _POSTGRESQL_CURSOR if is_postgresql(connection) else _SQLITE_CURSOR
    return str((await connection.execute(statement)).scalar_one())


async def revocations_page(
    connection: Connection, *, after: int, most: int, now: datetime
) -> tuple[list[Revocation], int | None]:
    """Read the next entries that have not expired, and the number of the last; None if there are no more."""
    rows = (await connection.execute(_PAGE, {"after": after, "most": most, "now": now})).all()
    return _entries(rows), rows[-1].sequence if len(rows) == most else None


async def revocations_since(connection: Connection, cursor: str) -> PollResult:
    """Read the entries that the read which returned `cursor` may have missed."""
    statement = _POSTGRESQL_SINCE if is_postgresql(connection) else _SQLITE_SINCE
    rows = (await connection.execute(statement, {"cursor": cursor})).all()
    return PollResult(entries=_entries(rows), cursor=rows[0].cursor, keys_revision=rows[0].keys_revision)


def _entries(rows: Sequence[Any]) -> list[Revocation]:
    return [
        Revocation(
            kind=RevocationKind(row.kind),
            session_id=row.session_id,
            user_id=row.user_id,
            below_version=row.below_version,
            reason=row.reason,
            expires_at=row.expires_at,
        )
        for row in rows
        if row.kind is not None  # the one row of an empty outer join
    ]
