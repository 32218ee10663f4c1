"""Queries on password hashes, read together with their user."""

from datetime import datetime
from uuid import UUID

import sqlalchemy as sa

from latchstring.core.accounts.rules import User
from latchstring.core.accounts.store import user_reader
from latchstring.core.accounts.tables import users
from latchstring.features.password.tables import passwords
from latchstring.foundation.database import Connection

# An outer join: an unknown user, and one without a password, cost the same single statement as any other.
_WITH_HASH = sa.select(users, passwords.c.password_hash).select_from(
    users.outerjoin(passwords, passwords.c.user_id == users.c.id)
)
_user_from_row = user_reader(_WITH_HASH)
_BY_EMAIL = _WITH_HASH.where(users.c.email == sa.bindparam("wanted_email"))
_BY_ID = _WITH_HASH.where(users.c.id == sa.bindparam("wanted_id"))


async def user_and_hash(connection: Connection, email: str) -> tuple[User | None, str | None]:
    """Return the user with a canonical email and their password hash, or None for each."""
    row = (await connection.execute(_BY_EMAIL, {"wanted_email": email})).one_or_none()
    return (_user_from_row(row), row.password_hash) if row else (None, None)


async def hash_of_user(connection: Connection, user_id: UUID) -> tuple[User | None, str | None]:
    """Return a user and their password hash, or None for each."""
    row = (await connection.execute(_BY_ID, {"wanted_id": user_id})).one_or_none()
    return (_user_from_row(row), row.password_hash) if row else (None, None)


async def change_hash(connection: Connection, user_id: UUID, *, password_hash: str, now: datetime) -> None:
    """Replace the hash by that of another password."""
    await connection.execute(
        passwords.update().where(passwords.c.user_id == user_id).values(password_hash=password_hash, changed_at=now)
    )


async def insert_hash(connection: Connection, user_id: UUID, password_hash: str, *, now: datetime) -> None:
    """Insert a user's first password hash."""
    await connection.execute(passwords.insert().values(user_id=user_id, password_hash=password_hash, changed_at=now))


async def replace_hash(connection: Connection, user_id: UUID, *, old: str, new: str) -> bool:
    """Replace an outdated hash of the same password; return False if the password was changed meanwhile."""
    # Conditional on the old hash: an upgrade must not undo a password change that committed during the sign-in.
    replaced = await connection.execute(
        passwords.update()
        .where(passwords.c.user_id == user_id, passwords.c.password_hash == old)
        .values(password_hash=new)
        .returning(passwords.c.user_id)
    )
    return replaced.one_or_none() is not None
