"""Read, rename, disable, enable and delete users; grant and withdraw roles."""

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
        """Read the user with a canonical email."""
        async with self._database.reading() as connection:
            return await store.user_by_email(connection, email)

    async def list(self, *, after: UUID | None = None, limit: int = 1000) -> Sequence[User]:
        """Read users by id, oldest first, starting after the id `after`; at most `limit`."""
        async with self._database.reading() as connection:
            return await store.list_users(connection, after=after, limit=limit)

    async def rename(
        self, user_id: UUID, *, first_name: str | None, last_name: str | None, source: Source
    ) -> User | None:
        """Change the first or last name, or both. Returns None if there is no such user."""
        async with self._database.transaction() as connection:
            user = await store.lock_user(connection, user_id)
            if user is None:
                return None
            renamed = replace(
                user,
                first_name=user.first_name if first_name is None else first_name,
                last_name=user.last_name if last_name is None else last_name,
            )
            # No event in the audit trail for a request that changes nothing.
            if renamed != user:
                await store.update_names(
                    connection, user_id, first_name=renamed.first_name, last_name=renamed.last_name
                )
                await record(connection, UserRenamed(at=self._clock.now(), source=source, user_id=user_id))
            return renamed

    async def disable(self, user_id: UUID, *, source: Source = APPLICATION) -> User | None:
        """Disable a user: no sign-in, and every worker refuses all tokens of the user within a second.

        Returns the user as it is now; None if there is no such user.
        """
        async with self._database.transaction() as connection:
            user = await store.lock_user(connection, user_id)
            if user is None or user.is_disabled:
                return user
            now = self._clock.now()
            # In one transaction: a disabled user whose tokens still work is CVE-2024-22513 (simplejwt).
            revocation = await self._revoker.revoke_user(connection, user, RevocationReason.USER_DISABLED, now=now)
            await store.update_disabled(connection, user_id, disabled_at=now)
            await record(connection, UserDisabled(at=now, source=source, user_id=user_id))
            disabled = await store.user_by_id(connection, user_id)
        # Only after the commit: this worker must not refuse tokens for a change that was rolled back.
        self._revoker.announce([revocation])
        return disabled

    async def enable(self, user_id: UUID, *, source: Source = APPLICATION) -> User | None:
        """Enable a disabled user, who can sign in again. Sessions from before stay revoked.

        Returns the user as it is now; None if there is no such user.
        """
        async with self._database.transaction() as connection:
            user = await store.lock_user(connection, user_id)
            if user is None or not user.is_disabled:
                return user
            # No revocation: disabling revoked the sessions, and no session can have been created since.
            await store.update_disabled(connection, user_id, disabled_at=None)
            await record(connection, UserEnabled(at=self._clock.now(), source=source, user_id=user_id))
            return await store.user_by_id(connection, user_id)

    async def delete(self, user_id: UUID, *, source: Source = APPLICATION) -> bool:
        """Delete a user. The tokens get 404 on every worker within a second, and the email can be registered again.

        Returns False if there is no such user.
        """
        async with self._database.transaction() as connection:
            user = await store.lock_user(connection, user_id)
            if user is None:
                return False
            now = self._clock.now()
            # Guards without I/O would otherwise accept the tokens of a deleted user until they expire (like
            # CVE-2023-32682, Synapse). The rows of sessions stay as evidence.
            revocation = await self._revoker.revoke_user(connection, user, RevocationReason.USER_DELETED, now=now)
            await store.delete_user(connection, user_id)
            await record(connection, UserDeleted(at=now, source=source, user_id=user_id))
        self._revoker.announce([revocation])
        return True

    async def grant_role(self, user_id: UUID, role: str, *, source: Source = APPLICATION) -> User | None:
        """Grant a role to a user. Tokens without it are refused with `claims_changed` until they are refreshed.

        Returns the user as it is now; None if there is no such user.

        Raises:
            InvalidRoleError: the name is malformed, or the user already has the maximum number of roles.
        """
        return await self._change_roles(user_id, lambda roles: with_role(roles, role), RoleGranted, role, source)

    async def withdraw_role(self, user_id: UUID, role: str, *, source: Source = APPLICATION) -> User | None:
        """Withdraw a role from a user. Every worker refuses tokens with that role within a second.

        Returns the user as it is now; None if there is no such user.
        """

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
            # An unchanged list must not make every client of the user refresh.
            if roles == user.roles:
                return user
            now = self._clock.now()
            await store.update_roles(connection, user_id, roles=roles)
            # The session stays: a refresh gets a token with the present roles.
            revocation = await self._revoker.revoke_claims(connection, user, now=now)
            await record(connection, kind(at=now, source=source, user_id=user_id, role=role))
        self._revoker.announce([revocation])
        return replace(user, roles=roles, claims_version=user.claims_version + 1)
