"""What can be done with an account that touches no session."""

from dataclasses import replace
from uuid import UUID

from latchstring.core.accounts import store
from latchstring.core.accounts.rules import User
from latchstring.foundation.audit import record
from latchstring.foundation.clock import Clock
from latchstring.foundation.database import Database
from latchstring.foundation.facts import Source, UserRenamed


class Accounts:
    """The accounts room's verbs."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def user(self, user_id: UUID) -> User | None:
        """Read one user."""
        return await store.read_user(self._database, user_id)

    async def user_with_email(self, email: str) -> User | None:
        """Read the user of a canonical address."""
        async with self._database.reading() as connection:
            return await store.user_by_email(connection, email)

    async def users(self, *, after: UUID | None = None, limit: int = 1000) -> list[User]:
        """Read users in the order they came, from behind `after`."""
        async with self._database.reading() as connection:
            return await store.list_users(connection, after=after, limit=limit)

    async def rename_user(
        self, user_id: UUID, *, first_name: str | None, last_name: str | None, source: Source
    ) -> User | None:
        """Change either name, or both; None when the user is gone."""
        async with self._database.transaction() as connection:
            user = await store.lock_user(connection, user_id)
            if user is None:
                return None
            renamed = replace(
                user,
                first_name=user.first_name if first_name is None else first_name,
                last_name=user.last_name if last_name is None else last_name,
            )
            if renamed != user:
                await store.update_names(
                    connection, user_id, first_name=renamed.first_name, last_name=renamed.last_name
                )
                await record(connection, UserRenamed(at=self._clock.now(), source=source, user_id=user_id))
            return renamed
