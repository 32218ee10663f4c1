"""Queries and writes of slots."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa

from latchstring.foundation.clock import MAX_CLOCK_SKEW
from latchstring.foundation.database import Connection, UtcDateTime
from latchstring.foundation.limits.rates import Rate
from latchstring.foundation.limits.tables import slots


def _frees_at(number: int) -> sa.ScalarSelect[datetime]:
    # When one slot fewer than the rate will be taken; NULL if that is so now. If the rate was lowered meanwhile, more
    # slots may be taken than it allows, and the first one to expire frees none.
    return (
        sa.select(slots.c.expires_at)
        .where(
            slots.c.key == sa.bindparam(f"key{number}"), slots.c.expires_at > sa.bindparam("now", type_=UtcDateTime())
        )
        .order_by(slots.c.expires_at.desc())
        .offset(sa.bindparam(f"others{number}"))
        .limit(1)
        .scalar_subquery()
    )


# By the number of windows: a registration has one, a sign-in two.
_WHEN_FREE: dict[int, sa.Executable] = {1: sa.select(_frees_at(0)), 2: sa.select(_frees_at(0), _frees_at(1))}
_INSERT = slots.insert()


async def when_free(
    connection: Connection, wanted: Sequence[tuple[str, Rate]], *, now: datetime
) -> Sequence[datetime | None]:
    """Read for each key when its window has a slot again; None if it has one now."""
    parameters: dict[str, object] = {"now": now}
    for number, (key, rate) in enumerate(wanted):
        parameters |= {f"key{number}": key, f"others{number}": rate.times - 1}
    return (await connection.execute(_WHEN_FREE[len(wanted)], parameters)).one()


async def insert_slots(connection: Connection, taken: Mapping[UUID, tuple[str, datetime]]) -> None:
    """Take slots, each for a key until an instant."""
    rows = [{"id": slot, "key": key, "expires_at": expires_at} for slot, (key, expires_at) in taken.items()]
    await connection.execute(_INSERT, rows)


async def delete_slots(connection: Connection, ids: Collection[UUID]) -> None:
    """Release slots."""
    await connection.execute(slots.delete().where(slots.c.id.in_(ids)))


async def prune_limits(connection: Connection, *, now: datetime, most: int) -> int:
    """Delete at most `most` slots that have expired by every instance's clock; return how many."""
    # An instance whose clock is ahead must not delete slots that still count for the others.
    long_ago = now - MAX_CLOCK_SKEW
    expired = sa.select(slots.c.id).where(slots.c.expires_at <= long_ago).order_by(slots.c.expires_at).limit(most)
    return (await connection.execute(slots.delete().where(slots.c.id.in_(expired)))).rowcount
