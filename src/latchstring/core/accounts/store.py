"""Named questions about users, and the writes."""

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
    """Read one user and keep everyone else from changing it until the transaction ends. First user, then sessions."""
    row = (await connection.execute(_BY_ID_LOCKED, {"wanted_id": user_id})).one_or_none()
    return _user_from_row(row) if row else None


async def user_by_email(connection: Connection, email: str) -> User | None:
    """Read the user of a canonical address."""
    row = (await connection.execute(_BY_EMAIL, {"wanted_email": email})).one_or_none()
    return _user_from_row(row) if row else None


async def list_users(connection: Connection, *, after: UUID | None, limit: int) -> list[User]:
    """Read users in the order they came, from behind `after`."""
    query = _ALL.order_by(users.c.id).limit(limit)
    if after is not None:
        query = query.where(users.c.id > after)
    return [_user_from_row(row) for row in await connection.execute(query)]


async def insert_user(
    connection: Connection, *, email: str, first_name: str, last_name: str, now: datetime
) -> User | None:
    """Insert a user; None when the address is taken, even by an insert of the same instant."""
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
    """Change how a user is called."""
    await connection.execute(
        users.update().where(users.c.id == user_id).values(first_name=first_name, last_name=last_name)
    )


async def update_disabled(connection: Connection, user_id: UUID, *, disabled_at: datetime | None) -> None:
    """Shut a user out, or let it in again; what was proven or issued before is worth nothing either way."""
    await connection.execute(
        users.update()
        .where(users.c.id == user_id)
        .values(
            disabled_at=disabled_at,
            security_version=users.c.security_version + 1,
            claims_version=users.c.claims_version + 1,
        )
    )


async def raise_security_version(connection: Connection, user_id: UUID) -> None:
    """Make void whatever proof of this user is under way."""
    await connection.execute(
        users.update().where(users.c.id == user_id).values(security_version=users.c.security_version + 1)
    )


async def raise_claims_version(connection: Connection, user_id: UUID) -> None:
    """Give the tokens issued from now on another version than those before."""
    await connection.execute(
        users.update().where(users.c.id == user_id).values(claims_version=users.c.claims_version + 1)
    )


async def update_roles(connection: Connection, user_id: UUID, *, roles: Collection[str]) -> None:
    """Change a user's roles; tokens issued from now on have another version than those before."""
    await connection.execute(
        users.update().where(users.c.id == user_id).values(roles=list(roles), claims_version=users.c.claims_version + 1)
    )


async def delete_user(connection: Connection, user_id: UUID) -> None:
    """Remove a user; the address is free again."""
    await connection.execute(users.delete().where(users.c.id == user_id))
