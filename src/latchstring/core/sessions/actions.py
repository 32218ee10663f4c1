"""What can be done with sessions: list and revoke them, sign out, and end all of them in an emergency."""

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
    """The sessions package's verbs.

    Those that take a connection work in the caller's transaction, and return what `announce` needs once that has
    committed.
    """

    def __init__(self, database: Database, clock: Clock, tokens: Tokens, keys: Keys, revoker: Revoker) -> None:
        self._database = database
        self._clock = clock
        self._tokens = tokens
        self._keys = keys
        self._revoker = revoker

    async def list_sessions(self, user_id: UUID) -> list[ListedSession]:
        """Read a user's living sessions, the one last used first."""
        async with self._database.reading() as connection:
            return await store.list_sessions(connection, user_id, now=self._clock.now())

    async def revoke_session(
        self, session_id: UUID, *, user_id: UUID | None = None, reason: RevocationReason, source: Source
    ) -> bool:
        """End one session, of one user where given; False where there is none, or it has ended."""
        revoked: list[Revocation] = []
        async with self._database.transaction() as connection:
            owner = user_id or await store.owner_of(connection, session_id)
            if owner is not None:
                now = self._clock.now()
                ended = await store.end_session(connection, session_id, user_id=owner, now=now, reason=reason)
                revoked += await self._revoker.revoke_sessions(connection, ended, owner, reason, now=now, source=source)
        self._revoker.announce(revoked)
        return bool(revoked)

    async def revoke_other_sessions(self, caller: Caller, *, source: Source) -> bool:
        """End every session of the caller's user but the caller's own; False where that one has ended itself."""
        async with self._database.transaction() as connection:
            await accounts.lock_user(connection, caller.user_id)
            if await self.living(connection, caller) is None:
                return False
            revoked = await self.end_others(connection, caller, reason=RevocationReason.REVOKED, source=source)
        self._revoker.announce(revoked)
        return True

    async def living(self, connection: Connection, caller: Caller) -> Session | None:
        """Read the caller's session, whose user is held locked; None where it has ended."""
        return await store.active_session(connection, caller.session_id, user_id=caller.user_id, now=self._clock.now())

    async def active_among(self, session_ids: Collection[UUID], *, now: datetime) -> Mapping[UUID, datetime]:
        """Return the living ones among `session_ids`, each with when it ends unless it is refreshed."""
        async with self._database.reading() as connection:
            return await store.active_among(connection, session_ids, now=now)

    async def end_others(
        self, connection: Connection, caller: Caller, *, reason: RevocationReason, source: Source
    ) -> list[Revocation]:
        """End every session of the caller's user, whom the caller of this holds locked, but the caller's own."""
        now = self._clock.now()
        ended = await store.end_other_sessions(
            connection, caller.user_id, kept_id=caller.session_id, now=now, reason=reason
        )
        return await self._revoker.revoke_sessions(connection, ended, caller.user_id, reason, now=now, source=source)

    async def end_all(
        self, connection: Connection, user_id: UUID, *, reason: RevocationReason, source: Source
    ) -> list[Revocation]:
        """End every session of a user, held locked, one by one: whoever creates one afterwards keeps it."""
        now = self._clock.now()
        ended = await store.end_sessions_of_user(connection, user_id, now=now, reason=reason)
        return await self._revoker.revoke_sessions(connection, ended, user_id, reason, now=now, source=source)

    async def end_oldest(
        self, connection: Connection, user_id: UUID, *, most: int, now: datetime, source: Source
    ) -> list[Revocation]:
        """End the oldest living sessions of a user, held locked, so that `most` are left."""
        ended = await store.end_oldest_sessions(
            connection, user_id, most=most, now=now, reason=RevocationReason.TOO_MANY
        )
        return await self._revoker.revoke_sessions(
            connection, ended, user_id, RevocationReason.TOO_MANY, now=now, source=source
        )

    async def revoke_sessions_of_user(self, user_id: UUID, *, reason: RevocationReason, source: Source) -> bool:
        """End every session of a user, who may sign in again; False where there is no such user."""
        async with self._database.transaction() as connection:
            user = await accounts.lock_user(connection, user_id)
            if user is None:
                return False
            now = self._clock.now()
            revocation = await self._revoker.revoke_user(connection, user, reason, now=now)
            await accounts.raise_claims_version(connection, user_id)
            await record(connection, SessionsEnded(at=now, source=source, user_id=user_id, reason=reason))
        self._revoker.announce([revocation])
        return True

    async def revoke_everyone(self, *, source: Source) -> None:
        """End every session of every user by beginning an epoch: one row, however many sessions there are."""
        async with self._database.transaction() as connection:
            revocation = await self._end_everyones(connection, source=source)
        self._revoker.announce([revocation])

    async def retire_key_at_once(self, kid: str, *, source: Source, dry_run: bool = False) -> KeyChange | KeyConflict:
        """End a key that was stolen, and all other keys and sessions: the thief may have renewed any of them."""
        draft = None if dry_run else await self._keys.draft()
        async with self._database.transaction() as connection:
            change = await self._keys.retire_at_once(connection, kid, draft, source=source)
            if isinstance(change, KeyChange) and not dry_run:
                # Not announced: who has heard of an epoch knows the keys, too, and that the next poll sees to.
                await self._end_everyones(connection, source=source)
            return change

    async def _end_everyones(self, connection: Connection, *, source: Source) -> Revocation:
        await lock_exclusively(connection, "latchstring_epoch")
        now = self._clock.now()
        revocation = await begin_epoch(connection, reason=RevocationReason.OPERATOR, now=now)
        await record(connection, EveryoneSignedOut(at=now, source=source, reason=RevocationReason.OPERATOR))
        return revocation

    async def sign_out(self, shown: Iterable[str], *, source: Source) -> None:
        """End every session of which a genuine token is shown, whatever its kind, generation or age.

        No time in a token is looked at: by a clock that differs a session would survive its sign-out.
        """
        shown = tuple(shown)
        await self._tokens.reload_keys_for(*shown, wait=True)
        await self._end_shown(shown, RevocationReason.LOGOUT, source=source)

    async def end_former(self, shown: Iterable[str], *, kept_id: UUID, source: Source) -> None:
        """End the sessions that a browser had, by the tokens in its cookies, which a new sign-in replaces.

        Args:
            shown: what may be tokens. No key is waited for: cookies of long ago must delay no sign-in.
            kept_id: the new session.
            source: where it came from.
        """
        await self._end_shown(shown, RevocationReason.SIGNED_IN_AGAIN, kept_id=kept_id, source=source)

    async def _end_shown(
        self, shown: Iterable[str], reason: RevocationReason, *, kept_id: UUID | None = None, source: Source
    ) -> None:
        named = {token for text in shown if (token := self._tokens.session_of(text)) is not None}
        # One at a time: nobody holds two sessions' rows without their user's, so that nobody waits in a circle.
        for token in named:
            if token.session_id != kept_id:
                await self.revoke_session(token.session_id, user_id=token.user_id, reason=reason, source=source)
