"""Named queries of the table of users."""

from collections.abc import Callable, Collection
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from latchstring.core.accounts.rules import User
from latchstring.core.accounts.tables import users
from latchstring.foundation.clock import new_id
from latchstring.foundation.database import Connection, Database, insert_or_ignore


def user_reader(statement: sa.Select[Any]) -> Callable[[sa.Row[Any]], User]:
    """Return a function that makes a `User` from a row of `statement`, by the names of its columns.

    Args:
        statement: selects every column of `users`, and any columns of joined tables.
    """
    # Paired with the names and not read as `row.email`: that costs half a microsecond a column, measured, and
    # `CurrentUser` reads a row at each request.
    names = statement.selected_columns.keys()

    def user_from_row(row: sa.Row[Any]) -> User:
        values = dict(zip(names, row, strict=True))
        return User(
            id=values["id"],
            email=values["email"],
            first_name=values["first_name"],
            last_name=values["last_name"],
            created_at=values["created_at"],
            email_verified=values["email_verified_at"] is not None,
            disabled_at=values["disabled_at"],
            security_version=values["security_version"],
            claims_version=values["claims_version"],
            roles=tuple(values["roles"]),
        )

    return user_from_row


_ALL = sa.select(users)
_BY_ID = _ALL.where(users.c.id == sa.bindparam("wanted_id"))
_BY_ID_LOCKED = _BY_ID.with_for_update()
_BY_EMAIL = _ALL.where(users.c.email == sa.bindparam("wanted_email"))
_user_from_row = user_reader(_ALL)


async def user_by_id(connection: Connection, user_id: UUID) -> User | None:
    """Read one user."""
    row = (await connection.execute(_BY_ID, {"wanted_id": user_id})).one_or_none()
    return _user_from_row(row) if row else None


async def read_user(database: Database, user_id: UUID) -> User | None:
    """Read one user outside any transaction."""
    row = await database.read_one(_BY_ID, {"wanted_id": user_id})
    return _user_from_row(row) if row else None


async def lock_user(connection: Connection, user_id: UUID) -> User | None:
    """Read one user, and lock its row until the transaction ends.

    Lock order: the user's row first, then rows of sessions. Any other order can deadlock.
    """
    row = (await connection.execute(_BY_ID_LOCKED, {"wanted_id": user_id})).one_or_none()
    return _user_from_row(row) if row else None


async def user_by_email(connection: Connection, email: str) -> User | None:
    """Read the user with a canonical email."""
    row = (await connection.execute(_BY_EMAIL, {"wanted_email": email})).one_or_none()
    return _user_from_row(row) if row else None


async def list_users(connection: Connection, *, after: UUID | None, limit: int) -> list[User]:
    """Read users by id, oldest first, starting after the id `after`."""
    # Ids begin with their creation time (UUIDv7), so that the primary key is the order, and no OFFSET is needed.
    query = _ALL.order_by(users.c.id).limit(limit)
    if after is not None:
        query = query.where(users.c.id > after)
    return [_user_from_row(row) for row in await connection.execute(query)]


async def insert_user(
    connection: Connection, *, email: str, first_name: str, last_name: str, now: datetime
) -> User | None:
    """Insert a user. Returns None if the email is taken, also by a concurrent insert."""
    user = User(
        id=new_id(now),
        email=email,
        first_name=first_name,
        last_name=last_name,
        created_at=now,
        email_verified=False,
        disabled_at=None,
        security_version=1,
        claims_version=1,
        roles=(),
    )
    # The unique constraint decides, and not an earlier SELECT: of two registrations at once both would pass that.
    inserted = await connection.execute(
        insert_or_ignore(connection, users)
        .values(
            id=user.id,
            email=email,
            first_name=first_name,
            last_name=last_name,
            created_at=now,
            email_verified_at=None,
            disabled_at=None,
            security_version=user.security_version,
            claims_version=user.claims_version,
            roles=[],
        )
        .returning(users.c.id)
    )
    return user if inserted.one_or_none() else None


async def update_names(connection: Connection, user_id: UUID, *, first_name: str, last_name: str) -> None:
    """Change a user's first and last name."""
    await connection.execute(
        users.update().where(users.c.id == user_id).values(first_name=first_name, last_name=last_name)
    )


async def update_disabled(connection: Connection, user_id: UUID, *, disabled_at: datetime | None) -> None:
    """Disable or enable a user. Either voids earlier proofs and access tokens."""
    await connection.execute(
        users.update()
        .where(users.c.id == user_id)
        .values(
            disabled_at=disabled_at,
            # Both ways: a proof or a token from before the change must not be accepted after it.
            security_version=users.c.security_version + 1,
            claims_version=users.c.claims_version + 1,
        )
    )


async def raise_security_version(connection: Connection, user_id: UUID) -> None:
    """Void every proof of this user that has not created its session yet."""
    await connection.execute(
        users.update().where(users.c.id == user_id).values(security_version=users.c.security_version + 1)
    )


async def raise_claims_version(connection: Connection, user_id: UUID) -> None:
    """Raise the version that access tokens carry, so that those issued earlier can be refused."""
    await connection.execute(
        users.update().where(users.c.id == user_id).values(claims_version=users.c.claims_version + 1)
    )


async def update_roles(connection: Connection, user_id: UUID, *, roles: Collection[str]) -> None:
    """Change a user's roles, and raise the version of claims: tokens with the old roles can be refused."""
    await connection.execute(
        users.update().where(users.c.id == user_id).values(roles=list(roles), claims_version=users.c.claims_version + 1)
    )


async def delete_user(connection: Connection, user_id: UUID) -> None:
    """Delete a user. Another user can register the email afterwards."""
    await connection.execute(users.delete().where(users.c.id == user_id))
