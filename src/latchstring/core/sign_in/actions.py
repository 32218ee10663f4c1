"""From a proof to a session: a new one, the caller's own proven anew, or one in its place."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from latchstring.core.accounts import store as accounts
from latchstring.core.accounts.rules import User
from latchstring.core.caller import Caller, Proven
from latchstring.core.revocations.rules import Revocation, RevocationReason
from latchstring.core.sessions.actions import Sessions
from latchstring.core.sessions.creation import create_session, replace_session
from latchstring.core.sessions.issuing import HookClaims, SignedIn, TokenIssuer
from latchstring.core.sessions.refresh import Refresher
from latchstring.core.sessions.revoking import Revoker
from latchstring.core.sessions.rules import Lifetimes, Session
from latchstring.core.sign_in.rules import Proof, admit
from latchstring.core.tokens.rules import RefreshClaims
from latchstring.errors import Code, Refused
from latchstring.foundation.audit import record
from latchstring.foundation.clock import Clock
from latchstring.foundation.database import Connection
from latchstring.foundation.events import SessionProven, Source


@dataclass(frozen=True, slots=True)
class Admitted:
    """A session created, or proven anew, in a transaction that has yet to commit."""

    user: User
    session: Session
    proven: Proven
    """What the client that gets the tokens has proven."""
    revoked: Sequence[Revocation] = ()
    """What had to end for it."""


@dataclass(frozen=True, slots=True)
class Stolen:
    """A used refresh token was shown, so the session has ended. The proof counts for a new sign-in."""

    revoked: Sequence[Revocation]


class SignIn:
    """The one door to a session."""

    def __init__(
        self,
        clock: Clock,
        sessions: Sessions,
        *,
        refresher: Refresher,
        issuer: TokenIssuer,
        revoker: Revoker,
        lifetimes: Lifetimes,
        sessions_per_user: int,
    ) -> None:
        self._clock = clock
        self._sessions = sessions
        self._refresher = refresher
        self._issuer = issuer
        self._revoker = revoker
        self._lifetimes = lifetimes
        self._sessions_per_user = sessions_per_user

    async def create_session(self, connection: Connection, proof: Proof, *, source: Source) -> Admitted | Refused:
        """Create a session within the caller's transaction, if the proof is enough.

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
        proven = Proven(int(proof.proven_at.timestamp()), (proof.method,))
        session = await create_session(connection, user, proven, lifetimes=self._lifetimes, now=now, source=source)
        return Admitted(user, session, proven, revoked)

    async def confirm(
        self, connection: Connection, proof: Proof, caller: Caller, *, bearer: RefreshClaims | None, source: Source
    ) -> Admitted | Stolen | Refused:
        """Prove the caller's session anew within the caller's transaction, if the proof is enough.

        A refresh token that was used before ends the session: somebody has a copy. That has to be committed, and
        announced, before the proof may begin a new one: what an application does at a sign-in must not undo it.

        Args:
            connection: the open transaction.
            proof: who the user has just proved to be.
            caller: the session it was given in.
            bearer: the refresh token of that session that the caller sent, if any.
            source: where the proof came from.
        """
        user = admit(proof, user_now=await accounts.lock_user(connection, proof.user.id))
        if isinstance(user, Refused):
            return user
        proven = caller.proven.merged(proof.method, at_unix=int(proof.proven_at.timestamp()))
        revoked: list[Revocation] = []
        session = await self._refresher.confirm(
            connection, caller, proven, bearer=bearer, source=source, revoked=revoked
        )
        if isinstance(session, Refused):
            if session.code is Code.REFRESH_TOKEN_REUSED:
                return Stolen(revoked)
            return Refused(Code.SESSION_ENDED) if session.code is Code.TOKEN_EXPIRED else session
        event = SessionProven(
            at=self._clock.now(), source=source, user_id=user.id, session_id=session.id, method=proof.method
        )
        await record(connection, event)
        return Admitted(user, session, proven, revoked)

    async def replace_sessions(
        self, connection: Connection, proof: Proof, caller: Caller, *, reason: RevocationReason, source: Source
    ) -> Admitted | Refused:
        """End every session of the caller's user within the caller's transaction; create one in place of the caller's.

        Whoever shares the caller's session is out, too. The new one has the proofs of the caller's, with their times,
        and its absolute end.

        Args:
            connection: the open transaction.
            proof: who the user has just proved to be.
            caller: whose session is replaced.
            reason: why they end.
            source: where the proof came from.
        """
        user = admit(proof, user_now=await accounts.lock_user(connection, caller.user_id))
        if isinstance(user, Refused):
            return user
        replaced = await self._sessions.living(connection, caller)
        if replaced is None:
            return Refused(Code.SESSION_ENDED)
        revoked = await self._sessions.end_all(connection, user.id, reason=reason, source=source)
        session = await replace_session(
            connection,
            user,
            caller.proven,
            replaced=replaced,
            lifetimes=self._lifetimes,
            now=self._clock.now(),
            source=source,
        )
        return Admitted(user, session, caller.proven, revoked)

    def announce(self, stolen: Stolen) -> None:
        """Let this worker know of the end of a stolen session, whose transaction has committed."""
        self._revoker.announce(stolen.revoked)

    async def claims_of(self, user: User) -> HookClaims:
        """Ask what the application has to say of a user, before a session is created or goes on: that may fail."""
        return await self._issuer.claims_of(user)

    async def issue_tokens(
        self, admitted: Admitted, *, hook_claims: HookClaims | None = None, former: Iterable[str] = (), source: Source
    ) -> SignedIn:
        """Return the tokens of a session whose transaction has committed.

        Args:
            admitted: the session.
            hook_claims: the application's claims, where they were asked for already.
            former: the tokens in the browser's cookies, which the new ones replace: their session ends, so that a new
                sign-in leaves none behind that nobody holds any more (ASVS 5.0, 7.2.4).
            source: where the proof came from.
        """
        self._revoker.announce(admitted.revoked)
        signed_in = await self._issuer.issue(admitted.user, admitted.session, admitted.proven, hook_claims=hook_claims)
        await self._sessions.end_former(former, kept_id=admitted.session.id, source=source)
        return signed_in
