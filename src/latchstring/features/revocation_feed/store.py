"""Queries on feed tokens. A token is looked up by its hash."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa

from latchstring.features.revocation_feed.tables import feed_tokens
from latchstring.foundation.database import Connection, insert_or_ignore


@dataclass(frozen=True, slots=True)
class FeedToken:
    """A service's feed token, as an operator sees it: without the token and its hash."""

    name: str
    created_at: datetime


_BY_HASH = sa.select(sa.literal(1)).where(feed_tokens.c.token_hash == sa.bindparam("wanted_hash"))


async def insert_feed_token(
    connection: Connection, token_id: UUID, name: str, *, token_hash: bytes, now: datetime
) -> bool:
    """Insert a token; return False if the name is taken."""
    # One statement: a check before the insert would let two operators create the same name at once.
    insert = insert_or_ignore(connection, feed_tokens).values(
        id=token_id, name=name, token_hash=token_hash, created_at=now
    )
    return (await connection.execute(insert.returning(feed_tokens.c.id))).one_or_none() is not None


async def has_feed_token(connection: Connection, token_hash: bytes) -> bool:
    """Return whether there is a token with this hash."""
    return (await connection.execute(_BY_HASH, {"wanted_hash": token_hash})).one_or_none() is not None


async def all_feed_tokens(connection: Connection) -> list[FeedToken]:
    """Return every token's name and date, the oldest first."""
    rows = await connection.execute(
        sa.select(feed_tokens.c.name, feed_tokens.c.created_at).order_by(feed_tokens.c.created_at, feed_tokens.c.name)
    )
    return [FeedToken(name=row.name, created_at=row.created_at) for row in rows]


async def delete_feed_token(connection: Connection, name: str) -> bool:
    """Delete a token; return False if there is none of that name."""
    return (await connection.execute(feed_tokens.delete().where(feed_tokens.c.name == name))).rowcount == 1
