"""Queries and writes of revocations."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from latchstring.core.keys.store import REVISION
from latchstring.core.revocations.cursor import Cursor
from latchstring.core.revocations.rules import (
    EVERYONE,
    NEVER,
    Revocation,
    RevocationKind,
    RevocationReason,
    next_epoch,
)
from latchstring.core.revocations.tables import revocations
from latchstring.foundation.clock import beyond_every_count
from latchstring.foundation.database import Connection, StandbyError, is_postgresql, xid8

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


async def restamp_restored(connection: Connection, *, most: int) -> int:
    """Give at most `most` entries that were restored from another cluster an id of this one; return how many.

    Ids of the other one would otherwise become current some day, and be read as new then.
    """
    if not is_postgresql(connection):
        return 0
    restored = sa.select(revocations.c.sequence).where(_FROM_ANOTHER_CLUSTER).limit(most)
    # The first id there is: everybody has passed it. Readers know these entries, or find them by their numbers.
    changed = revocations.update().where(revocations.c.sequence.in_(restored))
    return (await connection.execute(changed.values(transaction_id=sa.cast(_FIRST_ID, xid8)))).rowcount


async def insert_revocations(
    connection: Connection, entries: Sequence[Revocation], *, now: datetime, sequence: int | None = None
) -> None:
    """Insert revocations; workers see them at their next poll. `sequence` is the number of a single one, if given."""
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
    if sequence is not None:
        insert = insert.values(sequence=sequence)
    if is_postgresql(connection):
        insert = insert.values(transaction_id=sa.func.pg_current_xact_id())
    await connection.execute(insert, rows)


async def begin_epoch(connection: Connection, *, reason: RevocationReason, now: datetime) -> Revocation:
    """Begin the next epoch, which ends every session of an earlier one. The caller holds the lock of epochs."""
    # Compared as a number and not as a time: with clocks that differ, a token issued by an instance that is ahead would
    # survive a time, and a sign-in at one that is behind would be refused (decision 9). One row, however many end.
    entry = Revocation(
        kind=RevocationKind.EVERYONE,
        session_id=None,
        user_id=None,
        below_version=next_epoch(await epoch(connection), reason=reason, now=now),
        reason=reason,
        expires_at=NEVER,
    )
    sequence = None
    if reason is RevocationReason.RESTORED and not is_postgresql(connection):
        # A worker that runs on during a restore has a cursor of the database of before. The entry's number must be
        # above it, or the worker misses the entry until it reads the whole feed again.
        last_number = int(await revocations_cursor(connection))
        sequence = max(last_number + 1, beyond_every_count(now))
    await insert_revocations(connection, [entry], now=now, sequence=sequence)
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

# The cursor, the revision of the keys and the entries are read in one statement, and so in one snapshot.
# A standby has none, because it may lag behind by hours. Asked each time: behind a pooler, or in an application's pool,
# the server may be another one than before.
_SNAPSHOT = sa.case((sa.not_(sa.func.pg_is_in_recovery()), sa.cast(sa.func.pg_current_snapshot(), sa.Text()))).label(
    "cursor"
)
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

# No visible entry has such an id, except after a restore: then ids of another cluster are among them. They are not
# new, and read as such they would be read at each poll.
_FROM_ANOTHER_CLUSTER = revocations.c.transaction_id >= sa.func.pg_snapshot_xmax(sa.func.pg_current_snapshot())
_FIRST_ID = "3"  # PostgreSQL gives lower ones to nobody
_MOST: sa.BindParameter[int] = sa.bindparam("most")
# Each branch follows the index of `transaction_id`, whatever the planner knows of its parameters.
_POSTGRESQL_NEW = sa.union_all(
    sa.select(*_ENTRY)
    .where(
        revocations.c.transaction_id >= sa.cast(sa.bindparam("next_id", type_=sa.Text()), xid8), ~_FROM_ANOTHER_CLUSTER
    )
    .order_by(revocations.c.transaction_id)
    .limit(_MOST),
    sa.select(*_ENTRY)
    .where(revocations.c.transaction_id == sa.any_(sa.cast(sa.bindparam("open_ids", type_=sa.Text()), sa.ARRAY(xid8))))
    .limit(_MOST),
)
_SQLITE_NEW = (
    sa.select(*_ENTRY)
    .where(revocations.c.sequence > sa.cast(sa.bindparam("cursor", type_=sa.Text()), sa.Integer()))
    .order_by(revocations.c.sequence)
    .limit(_MOST)
)

_KEYS_REVISION = REVISION.label("keys_revision")
# Joined to the entries, so that the cursor is returned even if there are none.
_ONE_ROW = sa.select(sa.literal(1).label("one")).subquery("one")


def _since(cursor: sa.Label[str], new: sa.Select[Any] | sa.CompoundSelect[Any]) -> sa.Select[Any]:
    entries = new.subquery("new")
    return sa.select(cursor, _KEYS_REVISION, *entries.c).select_from(_ONE_ROW.outerjoin(entries, sa.true()))


_POSTGRESQL_SINCE, _SQLITE_SINCE = _since(_SNAPSHOT, _POSTGRESQL_NEW), _since(_LAST_NUMBER, _SQLITE_NEW)
_POSTGRESQL_CURSOR, _SQLITE_CURSOR = sa.select(_SNAPSHOT), sa.select(_LAST_NUMBER)

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
    """Read the feed's cursor: a later `revocations_since` returns everything that is not committed yet.

    Raises:
        StandbyError: the database is a standby.
    """
    if is_postgresql(connection):
        return str(_after_snapshot((await connection.execute(_POSTGRESQL_CURSOR)).scalar_one()))
    return str((await connection.execute(_SQLITE_CURSOR)).scalar_one())


async def revocations_page(
    connection: Connection, *, after: int, most: int, now: datetime
) -> tuple[list[Revocation], int | None]:
    """Read the next entries that have not expired, and the number of the last; None if there are no more."""
    rows = (await connection.execute(_PAGE, {"after": after, "most": most, "now": now})).all()
    return _entries(rows), rows[-1].sequence if len(rows) == most else None


async def revocations_since(connection: Connection, cursor: str, *, most: int) -> PollResult | None:
    """Read the entries that the read which returned `cursor` may have missed.

    Returns:
        None if all entries have to be read again: there are more than `most`, or the cursor is of a later time than
        the database, which was restored from a copy.

    Raises:
        StandbyError: the database is a standby.
    """
    since = Cursor.parse(cursor)
    # One more than asked for tells whether there are more.
    bounds: dict[str, object] = {"most": most + 1}
    if is_postgresql(connection):
        open_ids = "{" + ",".join(map(str, since.open_ids)) + "}"
        rows = (
            await connection.execute(_POSTGRESQL_SINCE, bounds | {"next_id": str(since.next_id), "open_ids": open_ids})
        ).all()
        present = _after_snapshot(rows[0].cursor)
    else:
        rows = (await connection.execute(_SQLITE_SINCE, bounds | {"cursor": str(since.next_id)})).all()
        present = Cursor(next_id=int(rows[0].cursor))
    entries = _entries(rows)
    # Numbers begin anew behind the cursor in a restored copy: its new entries would be missed until they pass it.
    if present.next_id < since.next_id or len(entries) > most:
        return None
    return PollResult(entries=entries, cursor=str(present), keys_revision=rows[0].keys_revision)


def _after_snapshot(snapshot: str | None) -> Cursor:
    if snapshot is None:
        raise StandbyError
    return Cursor.of_snapshot(snapshot)


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
