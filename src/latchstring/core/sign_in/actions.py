"""From a proof to a session."""

from dataclasses import dataclass

from latchstring.core.accounts import store as accounts
from latchstring.core.accounts.rules import User
from latchstring.core.sessions.actions import Sessions, SignedIn
from latchstring.core.sessions.opening import open_session
from latchstring.core.sessions.rules import Lifetimes, Session
from latchstring.core.sign_in.rules import Proof, admit
from latchstring.errors import Refused
from latchstring.foundation.audit import Source
from latchstring.foundation.clock import Clock
from latchstring.foundation.database import Connection


@dataclass(frozen=True, slots=True)
class Opened:
    """A session opened in a transaction that has yet to commit."""

    user: User
    session: Session


class SignIn:
    """The one door to a session."""

    def __init__(self, clock: Clock, sessions: Sessions, *, lifetimes: Lifetimes) -> None:
        self._clock = clock
        self._sessions = sessions
        self._lifetimes = lifetimes

    async def open(self, connection: Connection, proof: Proof, *, source: Source) -> Opened | Refused:
        """Open a session within the caller's transaction, if the proof is enough.

        The user's row stays locked until the transaction ends, so that disabling the user, or changing the password,
        comes either before this (and the proof is void) or after it (and finds the session, to end it).
        """
        user = admit(proof, user_now=await accounts.lock_user(connection, proof.user.id))
        if isinstance(user, Refused):
            return user
        session = await open_session(
            connection,
            user,
            methods=(proof.method,),
            proven_at=proof.proven_at,
            lifetimes=self._lifetimes,
            now=self._clock.now(),
            source=source,
        )
        return Opened(user, session)

    async def welcome(self, opened: Opened) -> SignedIn:
        """Give the tokens of a session whose transaction has committed."""
        return await self._sessions.signed_in(opened.user, opened.session)
