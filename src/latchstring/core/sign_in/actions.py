"""From a proof to a session: a new one, or the caller's own proven anew."""

from collections.abc import Sequence
from dataclasses import dataclass

from latchstring.core.accounts import store as accounts
from latchstring.core.accounts.rules import User
from latchstring.core.caller import Caller
from latchstring.core.sessions.actions import KnownClaims, Sessions, SignedIn
from latchstring.core.sessions.opening import open_session
from latchstring.core.sessions.rules import Lifetimes, Revocation, Session
from latchstring.core.sign_in.rules import Proof, admit
from latchstring.errors import Code, Refused
from latchstring.foundation.audit import record
from latchstring.foundation.clock import Clock
from latchstring.foundation.database import Connection
from latchstring.foundation.facts import SessionProven, Source


@dataclass(frozen=True, slots=True)
class Opened:
    """A session opened, or proven anew, in a transaction that has yet to commit."""

    user: User
    session: Session
    revoked: Sequence[Revocation] = ()
    """What had to end for it: the oldest session of a user who has as many as the limit allows."""


class SignIn:
    """The one door to a session."""

    def __init__(self, clock: Clock, sessions: Sessions, *, lifetimes: Lifetimes, sessions_per_user: int) -> None:
        self._clock = clock
        self._sessions = sessions
        self._lifetimes = lifetimes
        self._sessions_per_user = sessions_per_user

    async def open(self, connection: Connection, proof: Proof, *, source: Source) -> Opened | Refused:
        """Open a session within the caller's transaction, if the proof is enough.

        The user's row stays locked until the transaction ends, so that disabling the user, or changing the password,
        comes either before this (and the proof is void) or after it (and finds the session, to end it).
        """
        user = admit(proof, user_now=await accounts.lock_user(connection, proof.user.id))
        if isinstance(user, Refused):
            return user
        now = self._clock.now()
        revoked = await self._sessions.end_oldest(
            connection, user.id, most=self._sessions_per_user - 1, now=now, source=source
        )
        session = await open_session(
            connection,
            user,
            methods=(proof.method,),
            proven_at=proof.proven_at,
            lifetimes=self._lifetimes,
            now=now,
            source=source,
        )
        return Opened(user, session, revoked)

    async def confirm(
        self, connection: Connection, proof: Proof, caller: Caller, *, refresh_token: str | None, source: Source
    ) -> Opened | Refused:
        """Prove the caller's session anew within the caller's transaction, if the proof is enough.

        Args:
            connection: the open transaction.
            proof: who the user has just proved to be.
            caller: the session it was given in.
            refresh_token: the one that came along, to be replaced.
            source: where the proof came from.
        """
        user = admit(proof, user_now=await accounts.lock_user(connection, proof.user.id))
        if isinstance(user, Refused):
            return user
        session = await self._sessions.prove_anew(
            connection, caller, methods=(proof.method,), proven_at=proof.proven_at, shown=refresh_token
        )
        if session is None:
            return Refused(Code.SESSION_ENDED)
        fact = SessionProven(
            at=self._clock.now(), source=source, user_id=user.id, session_id=session.id, method=proof.method
        )
        await record(connection, fact)
        return Opened(user, session)

    async def claims_of(self, user: User) -> KnownClaims:
        """Ask what the application has to say of a user, before a session is opened or goes on: that may fail."""
        return await self._sessions.claims_of(user)

    async def welcome(self, opened: Opened, *, known: KnownClaims | None = None) -> SignedIn:
        """Give the tokens of a session whose transaction has committed."""
        self._sessions.announce(opened.revoked)
        return await self._sessions.signed_in(opened.user, opened.session, known=known)
