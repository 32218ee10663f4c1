"""What can be done with users: read, rename, disable, enable, delete, give a role and take it back."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from uuid import UUID

from latchstring.core.accounts import store
from latchstring.core.accounts.rules import User, with_role
from latchstring.core.revocations.rules import RevocationReason
from latchstring.core.sessions.revoking import Revoker
from latchstring.foundation.audit import record
from latchstring.foundation.clock import Clock
from latchstring.foundation.database import Database
from latchstring.foundation.events import (
    APPLICATION,
    RoleGranted,
    RoleWithdrawn,
    Source,
    UserDeleted,
    UserDisabled,
    UserEnabled,
    UserRenamed,
)


class Users:
    """The users of the application: `auth.users`."""

    def __init__(self, database: Database, clock: Clock, revoker: Revoker) -> None:
        self._database = database
        self._clock = clock
        self._revoker = revoker

    async def get(self, user_id: UUID) -> User | None:
        """Read one user."""
        return await store.read_user(self._database, user_id)

    async def find_by_email(self, email: str) -> User | None:
        """Read the user of a canonical address."""
        async with self._database.reading() as connection:
            return await store.user_by_email(connection, email)

    async def list(self, *, after: UUID | None = None, limit: int = 1000) -> Sequence[User]:
        """Read users in the order they came, from behind `after`."""
        async with self._database.reading() as connection:
            return await store.list_users(connection, after=after, limit=limit)

    async def rename(
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

    async def disable(self, user_id: UUID, *, source: Source = APPLICATION) -> User | None:
        """Shut a user out: no sign-in, and every token it holds is refused everywhere. None when there is none."""
        async with self._database.transaction() as connection:
            user = await store.lock_user(connection, user_id)
            if user is None or user.is_disabled:
                return user
            now = self._clock.now()
            revocation = await self._revoker.revoke_user(connection, user, RevocationReason.USER_DISABLED, now=now)
            await store.update_disabled(connection, user_id, disabled_at=now)
            await record(connection, UserDisabled(at=now, source=source, user_id=user_id))
            disabled = await store.user_by_id(connection, user_id)
        self._revoker.announce([revocation])
        return disabled

    async def enable(self, user_id: UUID, *, source: Source = APPLICATION) -> User | None:
        """Let a disabled user sign in again; its old sessions stay ended. None when there is none."""
        async with self._database.transaction() as connection:
            user = await store.lock_user(connection, user_id)
            if user is None or not user.is_disabled:
                return user
            await store.update_disabled(connection, user_id, disabled_at=None)
            await record(connection, UserEnabled(at=self._clock.now(), source=source, user_id=user_id))
            return await store.user_by_id(connection, user_id)

    async def delete(self, user_id: UUID, *, source: Source = APPLICATION) -> bool:
        """Delete a user for good; its tokens get 404 everywhere and its address is free. False when there is none."""
        async with self._database.transaction() as connection:
            user = await store.lock_user(connection, user_id)
            if user is None:
                return False
            now = self._clock.now()
            revocation = await self._revoker.revoke_user(connection, user, RevocationReason.USER_DELETED, now=now)
            await store.delete_user(connection, user_id)
            await record(connection, UserDeleted(at=now, source=source, user_id=user_id))
        self._revoker.announce([revocation])
        return True

    async def grant_role(self, user_id: UUID, role: str, *, source: Source = APPLICATION) -> User | None:
        """Give a user a role; tokens that do not know of it are refused with `claims_changed`, until refreshed.

        Returns the user as it is now; None when there is none.

        Raises:
            InvalidRoleError: no name of a role, or more of them than a user may have.
        """
        return await self._change_roles(user_id, lambda roles: with_role(roles, role), RoleGranted, role, source)

    async def withdraw_role(self, user_id: UUID, role: str, *, source: Source = APPLICATION) -> User | None:
        """Take a role from a user; no token that says so is believed any more, on any worker, within a second."""

        def without(roles: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(each for each in roles if each != role)

        return await self._change_roles(user_id, without, RoleWithdrawn, role, source)

    async def _change_roles(
        self,
        user_id: UUID,
        changed: Callable[[tuple[str, ...]], tuple[str, ...]],
        kind: type[RoleGranted | RoleWithdrawn],
        role: str,
        source: Source,
    ) -> User | None:
        async with self._database.transaction() as connection:
            user = await store.lock_user(connection, user_id)
            if user is None:
                return None
            roles = changed(user.roles)
            if roles == user.roles:
                return user
            now = self._clock.now()
            await store.update_roles(connection, user_id, roles=roles)
            revocation = await self._revoker.revoke_claims(connection, user, now=now)
            await record(connection, kind(at=now, source=source, user_id=user_id, role=role))
        self._revoker.announce([revocation])
        return replace(user, roles=roles, claims_version=user.claims_version + 1)
