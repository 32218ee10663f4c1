"""Named questions about slots, and the writes."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

import sqlalchemy as sa

from latchstring.foundation.database import Connection, UtcDateTime
from latchstring.foundation.limits.rates import Rate
from latchstring.foundation.limits.tables import places

_CLOCKS_DIFFER = timedelta(hours=1)


def _frees_at(number: int) -> sa.ScalarSelect[datetime]:
    # When one place fewer than the rate will be taken; NULL where that is so now. After the rate was lowered more are
    # taken than there are: then the first to run out makes no room yet.
    return (
        sa.select(places.c.expires_at)
        .where(
            places.c.key == sa.bindparam(f"key{number}"), places.c.expires_at > sa.bindparam("now", type_=UtcDateTime())
        )
        .order_by(places.c.expires_at.desc())
        .offset(sa.bindparam(f"others{number}"))
        .limit(1)
        .scalar_subquery()
    )


_QUESTIONS: dict[int, sa.Executable] = {1: sa.select(_frees_at(0)), 2: sa.select(_frees_at(0), _frees_at(1))}
_INSERT = places.insert()


async def when_free(
    connection: Connection, wanted: Sequence[tuple[str, Rate]], *, now: datetime
) -> Sequence[datetime | None]:
    """Read of each key's window when it has a place again; None where it has one now."""
    parameters: dict[str, object] = {"now": now}
    for number, (key, rate) in enumerate(wanted):
        parameters |= {f"key{number}": key, f"others{number}": rate.times - 1}
    return (await connection.execute(_QUESTIONS[len(wanted)], parameters)).one()


async def insert_places(connection: Connection, taken: Mapping[UUID, tuple[str, datetime]]) -> None:
    """Take places, each for a key until an instant."""
    rows = [{"id": place, "key": key, "expires_at": expires_at} for place, (key, expires_at) in taken.items()]
    await connection.execute(_INSERT, rows)


async def delete_places(connection: Connection, ids: Collection[UUID]) -> None:
    """Free places."""
    await connection.execute(places.delete().where(places.c.id.in_(ids)))


async def prune_limits(connection: Connection, *, now: datetime, most: int) -> int:
    """Delete places whose time has run out on every instance's clock, `most` at a time; return how many."""
    long_ago = now - _CLOCKS_DIFFER
    expired = sa.select(places.c.id).where(places.c.expires_at <= long_ago).order_by(places.c.expires_at).limit(most)
    return (await connection.execute(places.delete().where(places.c.id.in_(expired)))).rowcount
