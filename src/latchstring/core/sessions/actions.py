"""List and revoke sessions, sign out, and sign everyone out in an emergency."""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from uuid import UUID

from latchstring.core.accounts import store as accounts
from latchstring.core.caller import Caller
from latchstring.core.keys.actions import Keys
from latchstring.core.keys.rotation import KeyChange, KeyConflict
from latchstring.core.revocations.rules import Revocation, RevocationReason
from latchstring.core.revocations.store import begin_epoch
from latchstring.core.sessions import store
from latchstring.core.sessions.revoking import Revoker
from latchstring.core.sessions.rules import ListedSession, Session
from latchstring.core.tokens.tokens import Tokens
from latchstring.foundation.audit import record
from latchstring.foundation.clock import Clock
from latchstring.foundation.database import Connection, Database, lock_exclusively
from latchstring.foundation.events import EveryoneSignedOut, SessionsEnded, Source


class Sessions:
    """The verbs of sessions.

    Methods that take a connection work in the caller's transaction, and return the revocations to pass to
    `Revoker.announce` after the commit.
    """

    def __init__(self, database: Database, clock: Clock, tokens: Tokens, keys: Keys, revoker: Revoker) -> None:
        self._database = database
        self._clock = clock
        self._tokens = tokens
        self._keys = keys
        self._revoker = revoker

    async def list_sessions(self, user_id: UUID) -> list[ListedSession]:
        """Read a user's active sessions, the last refreshed first."""
        async with self._database.reading() as connection:
            return await store.list_sessions(connection, user_id, now=self._clock.now())

    async def revoke_session(
        self, session_id: UUID, *, user_id: UUID | None = None, reason: RevocationReason, source: Source
    ) -> bool:
        """Revoke one session, of `user_id` if given. Returns False if there is no such session, or it has ended."""
        revoked: list[Revocation] = []
        async with self._database.transaction() as connection:
            owner = user_id or await store.owner_of(connection, session_id)
            if owner is not None:
                now = self._clock.now()
                # The statement names the owner: an id alone must never revoke another user's session.
                ended = await store.end_session(connection, session_id, user_id=owner, now=now, reason=reason)
                revoked += await self._revoker.revoke_sessions(connection, ended, owner, reason, now=now, source=source)
        self._revoker.announce(revoked)
        return bool(revoked)

    async def revoke_other_sessions(self, caller: Caller, *, source: Source) -> bool:
        """Revoke the user's sessions except the caller's own. Returns False if the caller's own has ended."""
        async with self._database.transaction() as connection:
            await accounts.lock_user(connection, caller.user_id)
            # The guard's memory may lag by a second: a session just revoked must not revoke the owner's other ones.
            if await self.active(connection, caller) is None:
                return False
            now, reason = self._clock.now(), RevocationReason.REVOKED
            ended = await store.end_other_sessions(
                connection, caller.user_id, kept_id=caller.session_id, now=now, reason=reason
            )
            revoked = await self._revoker.revoke_sessions(
                connection, ended, caller.user_id, reason, now=now, source=source
            )
        self._revoker.announce(revoked)
        return True

    async def active(self, connection: Connection, caller: Caller) -> Session | None:
        """Read the caller's session, whose user is locked; None if it has ended."""
        return await store.active_session(connection, caller.session_id, user_id=caller.user_id, now=self._clock.now())

    async def active_among(self, session_ids: Collection[UUID], *, now: datetime) -> Mapping[UUID, datetime]:
        """Return the active ones among `session_ids`, each with when it expires unless it is refreshed."""
        async with self._database.reading() as connection:
            return await store.active_among(connection, session_ids, now=now)

    async def end_all(
        self, connection: Connection, user_id: UUID, *, reason: RevocationReason, source: Source
    ) -> list[Revocation]:
        """Revoke every session of a user, which is locked."""
        # One entry per session, and not one for the user: that would refuse the session which replaces the caller's.
        now = self._clock.now()
        ended = await store.end_sessions_of_user(connection, user_id, now=now, reason=reason)
        return await self._revoker.revoke_sessions(connection, ended, user_id, reason, now=now, source=source)

    async def end_oldest(
        self, connection: Connection, user_id: UUID, *, most: int, now: datetime, source: Source
    ) -> list[Revocation]:
        """Revoke the oldest active sessions of a user, which is locked, so that `most` are left."""
        ended = await store.end_oldest_sessions(
            connection, user_id, most=most, now=now, reason=RevocationReason.TOO_MANY
        )
        return await self._revoker.revoke_sessions(
            connection, ended, user_id, RevocationReason.TOO_MANY, now=now, source=source
        )

    async def revoke_sessions_of_user(self, user_id: UUID, *, reason: RevocationReason, source: Source) -> bool:
        """Revoke every session of a user, who can sign in again. Returns False if there is no such user."""
        async with self._database.transaction() as connection:
            user = await accounts.lock_user(connection, user_id)
            if user is None:
                return False
            now = self._clock.now()
            revocation = await self._revoker.revoke_user(connection, user, reason, now=now)
            # The entry refuses all tokens up to this version; those of sessions created afterwards have the next one.
            await accounts.raise_claims_version(connection, user_id)
            await record(connection, SessionsEnded(at=now, source=source, user_id=user_id, reason=reason))
        self._revoker.announce([revocation])
        return True

    async def revoke_everyone(self, *, source: Source) -> None:
        """Revoke every session of every user, by beginning an epoch."""
        # One row in the feed, however many sessions there are. A time in its place would depend on the clocks of the
        # instances: a token issued by one that is ahead would outlive the sign-out (decision 9).
        async with self._database.transaction() as connection:
            revocation = await self.begin_epoch(connection, reason=RevocationReason.OPERATOR, source=source)
        self._revoker.announce([revocation])

    async def retire_key_at_once(self, kid: str, *, source: Source, dry_run: bool = False) -> KeyChange | KeyConflict:
        """Retire every key at once, because one was stolen, and revoke every session.

        Args:
            kid: the stolen key. The others end with it, because the thief could read those too.
            source: where the command came from.
            dry_run: check and describe the change, and write nothing.

        Returns:
            The change, or the reason why it is not possible.
        """
        # The thief may have exchanged a forged refresh token of any session for an honest pair, signed with another
        # key. Retiring the stolen key alone would leave that pair valid (decision 14).
        draft = None if dry_run else await self._keys.draft()
        async with self._database.transaction() as connection:
            change = await self._keys.retire_at_once(connection, kid, draft, source=source)
            if isinstance(change, KeyChange) and not dry_run:
                # Not announced: an epoch is applied only together with the new keys, which the next poll reads.
                await self.begin_epoch(connection, reason=RevocationReason.OPERATOR, source=source)
            return change

    async def begin_epoch(self, connection: Connection, *, reason: RevocationReason, source: Source) -> Revocation:
        """Begin an epoch in the caller's transaction, which ends every session there is, and record why."""
        # Two commands at once would otherwise both read the same epoch, and give out the same number.
        await lock_exclusively(connection, "latchstring_epoch")
        now = self._clock.now()
        revocation = await begin_epoch(connection, reason=reason, now=now)
        await record(connection, EveryoneSignedOut(at=now, source=source, reason=reason))
        return revocation

    async def sign_out(self, presented: Iterable[str], *, source: Source) -> None:
        """Revoke the session of every genuine token presented, whatever its kind, generation or age.

        Args:
            presented: strings that may be tokens.
            source: where the request came from.

        Raises:
            UnavailableError: the keys or the database are unavailable, and the sign-out could not be recorded.
        """
        presented = tuple(presented)
        # Waits for a key that this worker does not have yet: otherwise a sign-out would report a success that revoked
        # nothing (CVE-2020-15223, fosite).
        await self._tokens.reload_keys_for(*presented, wait=True)
        await self._revoke_presented(presented, RevocationReason.LOGOUT, source=source)

    async def end_former(self, presented: Iterable[str], *, kept_id: UUID, source: Source) -> None:
        """Revoke the sessions that a browser had before a new sign-in, by the tokens in its cookies.

        Args:
            presented: strings that may be tokens.
            kept_id: the new session, which stays.
            source: where the request came from.
        """
        # Waits for no key: cookies with a key that is long gone must not delay a sign-in.
        await self._revoke_presented(presented, RevocationReason.SIGNED_IN_AGAIN, kept_id=kept_id, source=source)

    async def _revoke_presented(
        self, presented: Iterable[str], reason: RevocationReason, *, kept_id: UUID | None = None, source: Source
    ) -> None:
        # By signature and issuer alone. If a time in the token counted, a session would survive its sign-out at an
        # instance whose clock differs by seconds.
        named = {token for text in presented if (token := self._tokens.session_of(text)) is not None}
        # One transaction each: no transaction locks two sessions without their user's row, so that none can deadlock.
        for token in named:
            if token.session_id != kept_id:
                await self.revoke_session(token.session_id, user_id=token.user_id, reason=reason, source=source)
