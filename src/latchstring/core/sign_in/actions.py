"""Turn a proof into a session: create one, confirm the caller's, or replace all of the user's."""

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
    """A session created or confirmed in a transaction that has not committed yet."""

    user: User
    session: Session
    proven: Proven
    """What the client that will get the tokens has proven."""
    revoked: Sequence[Revocation] = ()
    """The revocations that this caused, for `issue_tokens` to apply after the commit."""


@dataclass(frozen=True, slots=True)
class Stolen:
    """A reused refresh token was presented, and the session has been revoked. The proof may create a new session."""

    revoked: Sequence[Revocation]


class SignIn:
    """Creates, confirms and replaces sessions. No other part of the package does."""

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
        """Create a session within the caller's transaction, if the proof is enough. The user's row stays locked.

        The user's oldest sessions beyond `sessions_per_user` are revoked.
        """
        # With the row locked, disabling the user or changing the password happens either before this (and the proof is
        # void) or after it (and finds the session, to revoke it).
        user = admit(proof, user_now=await accounts.lock_user(connection, proof.user.id))
        if isinstance(user, Refused):
            return user
        now = self._clock.now()
        # One fewer than the limit, which leaves room for the session created here.
        revoked = await self._sessions.end_oldest(
            connection, user.id, most=self._sessions_per_user - 1, now=now, source=source
        )
        proven = Proven(int(proof.proven_at.timestamp()), (proof.method,))
        session = await create_session(connection, user, proven, lifetimes=self._lifetimes, now=now, source=source)
        return Admitted(user, session, proven, revoked)

    async def confirm(
        self, connection: Connection, proof: Proof, caller: Caller, *, bearer: RefreshClaims | None, source: Source
    ) -> Admitted | Stolen | Refused:
        """Confirm the caller's session within the caller's transaction, if the proof is enough (ASVS 5.0, 7.2.4).

        A reused refresh token revokes the session, and `Stolen` is returned. Commit, and call `announce`, before the
        same proof creates a new session: a subscriber that fails at the sign-in must not roll the revocation back.

        Args:
            connection: the open transaction.
            proof: what the user has just proved.
            caller: the caller whose session is confirmed.
            bearer: the refresh token of that session that the caller sent, if any.
            source: where the request came from.
        """
        user = admit(proof, user_now=await accounts.lock_user(connection, proof.user.id))
        if isinstance(user, Refused):
            return user
        # From the caller's token and not from the session's row: a client gets no credit for another client's proof.
        proven = caller.proven.merged(proof.method, at_unix=int(proof.proven_at.timestamp()))
        revoked: list[Revocation] = []
        session = await self._refresher.confirm(
            connection, caller, proven, bearer=bearer, source=source, revoked=revoked
        )
        if isinstance(session, Refused):
            # No exception: a refusal is a value, so that the revocation and its event commit.
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
        """Revoke every session of the caller's user within the caller's transaction; replace the caller's by a new one.

        The new session has the proofs of the caller's token, with their times, and the old session's absolute end.

        Args:
            connection: the open transaction.
            proof: what the user has just proved.
            caller: the caller whose session is replaced.
            reason: why the sessions are revoked.
            source: where the request came from.
        """
        user = admit(proof, user_now=await accounts.lock_user(connection, caller.user_id))
        if isinstance(user, Refused):
            return user
        replaced = await self._sessions.active(connection, caller)
        if replaced is None:
            return Refused(Code.SESSION_ENDED)
        # The caller's session too: kept, it would keep a thief who shares it (CVE-2023-40273, Airflow).
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
        """Refuse a stolen session's tokens in this worker, once the transaction has committed."""
        self._revoker.announce(stolen.revoked)

    async def claims_of(self, user: User) -> HookClaims:
        """Call the claims hook before the transaction, because it may fail."""
        return await self._issuer.claims_of(user)

    async def issue_tokens(
        self, admitted: Admitted, *, hook_claims: HookClaims | None = None, former: Iterable[str] = (), source: Source
    ) -> SignedIn:
        """Sign the tokens of a session whose transaction has committed.

        Args:
            admitted: the session.
            hook_claims: the application's own claims, if the hook has been called already.
            former: the tokens in the browser's cookies, which the new ones replace. Their sessions are revoked
                (ASVS 5.0, 7.2.4).
            source: where the request came from.
        """
        # Applied here first: the response must not reach a client whose former tokens this worker still accepts.
        self._revoker.announce(admitted.revoked)
        signed_in = await self._issuer.issue(admitted.user, admitted.session, admitted.proven, hook_claims=hook_claims)
        # Last, once the sign-in has succeeded: one that fails must not sign the browser out.
        await self._sessions.end_former(former, kept_id=admitted.session.id, source=source)
        return signed_in
