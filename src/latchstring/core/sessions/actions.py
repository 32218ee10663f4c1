"""What can be done with sessions: renew, end, shut out."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from latchstring.core.accounts import store as accounts
from latchstring.core.accounts.rules import User
from latchstring.core.caller import Caller
from latchstring.core.sessions import store
from latchstring.core.sessions.feed import RevocationFeed
from latchstring.core.sessions.rules import (
    REVOCATION_MARGIN,
    EndReason,
    Lifetimes,
    Presented,
    Session,
    access_token_expiry,
    judge,
)
from latchstring.core.sessions.store import Revocation, RevocationKind
from latchstring.core.tokens.rules import RefreshClaims
from latchstring.core.tokens.tokens import TokenPair, Tokens
from latchstring.errors import Code, Refused
from latchstring.foundation.audit import Fact, Source, record
from latchstring.foundation.clock import Clock
from latchstring.foundation.database import Connection, Database


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A living session, whose it is, and the tokens of its present generation."""

    user: User
    session: Session
    tokens: TokenPair


class Sessions:
    """The sessions room's verbs."""

    def __init__(
        self, database: Database, clock: Clock, tokens: Tokens, feed: RevocationFeed, *, lifetimes: Lifetimes
    ) -> None:
        self._database = database
        self._clock = clock
        self._tokens = tokens
        self._feed = feed
        self._lifetimes = lifetimes

    async def signed_in(self, user: User, session: Session) -> SignedIn:
        """Sign both tokens of the session's present generation; the same row gives the same claims every time."""
        issued_at = int(session.rotated_at.timestamp())
        caller = Caller(
            user_id=user.id,
            session_id=session.id,
            claims_version=user.claims_version,
            roles=user.roles,
            methods=session.methods,
            proven_at_unix=int(session.proven_at.timestamp()),
            issued_at_unix=issued_at,
            expires_at_unix=int(access_token_expiry(session, self._lifetimes).timestamp()),
        )
        bearer = RefreshClaims(
            user_id=user.id,
            session_id=session.id,
            issued_at_unix=issued_at,
            expires_at_unix=int(session.expires_at.timestamp()),
            generation=session.generation,
        )
        # Two RSA signatures take two milliseconds, in which the loop would serve nobody; a thread lets go of the GIL.
        tokens = await asyncio.to_thread(self._tokens.issue, caller, bearer)
        return SignedIn(user=user, session=session, tokens=tokens)

    async def renew_session(self, refresh_token: str, *, source: Source) -> SignedIn | Refused:
        """Exchange a refresh token for the next pair; the previous one, within the grace, for the same pair again."""
        now = self._clock.now()
        bearer = self._tokens.read_refresh(refresh_token, now=now.timestamp())
        if bearer is None:
            return Refused(Code.INVALID_TOKEN)
        if bearer.expires_at_unix <= now.timestamp():
            return Refused(Code.TOKEN_EXPIRED)
        revoked: list[Revocation] = []
        async with self._database.transaction() as connection:
            outcome = await self._rotate(connection, bearer, now=now, source=source, revoked=revoked)
        self._feed.apply(revoked)
        # Signing takes milliseconds: after the commit, when no connection is held. A crash in between costs nothing,
        # since asking again gives the same successor.
        return outcome if isinstance(outcome, Refused) else await self.signed_in(*outcome)

    async def _rotate(
        self, connection: Connection, bearer: RefreshClaims, *, now: datetime, source: Source, revoked: list[Revocation]
    ) -> tuple[User, Session] | Refused:
        session = await store.rotate(
            connection,
            bearer.session_id,
            user_id=bearer.user_id,
            generation=bearer.generation,
            now=now,
            access_expiry=self._lifetimes.access_expiry(now),
            refresh_expiry=self._lifetimes.refresh_expiry(now),
        )
        user = await accounts.user_by_id(connection, bearer.user_id)
        if user is None:
            return Refused(Code.USER_GONE)
        if session is not None:
            return user, session
        session = await store.session_of_user(connection, bearer.session_id, user_id=user.id)
        if session is None:
            return Refused(Code.SESSION_ENDED)
        match judge(session, generation=bearer.generation, now=now, grace=self._lifetimes.grace):
            case Presented.REPEATED:
                return user, session
            case Presented.REUSED:
                ended = await self._end(connection, session.id, user.id, EndReason.REFRESH_REUSED, now=now)
                if ended:  # of several copies that come at once, one finds the session alive
                    await record(
                        connection,
                        Fact.SESSION_REFRESH_REUSED,
                        now=now,
                        source=source,
                        user_id=user.id,
                        session_id=session.id,
                    )
                revoked += ended
                return Refused(Code.REFRESH_TOKEN_REUSED)
            case Presented.EXPIRED:
                return Refused(Code.TOKEN_EXPIRED)
            case Presented.ENDED:
                return Refused(Code.SESSION_ENDED)

    async def sign_out(self, shown: Iterable[str], *, source: Source) -> None:
        """End every session of which a genuine token is shown, whatever its kind, generation or age."""
        now = self._clock.now()
        owners: dict[UUID, UUID] = {}
        for text in shown:
            token = self._tokens.read_access(text, now=now.timestamp()) or self._tokens.read_refresh(
                text, now=now.timestamp()
            )
            if token is not None:
                owners[token.session_id] = token.user_id
        if not owners:
            return
        revoked: list[Revocation] = []
        async with self._database.transaction() as connection:
            for session_id in sorted(owners):  # in one order everywhere: two sign-outs never wait for each other
                user_id = owners[session_id]
                ended = await self._end(connection, session_id, user_id, EndReason.LOGOUT, now=now)
                if ended:
                    await record(
                        connection,
                        Fact.SESSION_ENDED,
                        now=now,
                        source=source,
                        user_id=user_id,
                        session_id=session_id,
                        reason=EndReason.LOGOUT,
                    )
                revoked += ended
        self._feed.apply(revoked)

    async def disable_user(self, user_id: UUID, *, source: Source) -> User | None:
        """Shut a user out: no sign-in, and every token it holds is refused everywhere. None when there is none."""
        async with self._database.transaction() as connection:
            user = await accounts.lock_user(connection, user_id)
            if user is None or user.is_disabled:
                return user
            now = self._clock.now()
            revocation = await self._end_all(connection, user, EndReason.USER_DISABLED, now=now)
            await accounts.update_disabled(connection, user_id, disabled_at=now)
            await record(connection, Fact.USER_DISABLED, now=now, source=source, user_id=user_id)
            disabled = await accounts.user_by_id(connection, user_id)
        self._feed.apply([revocation])
        return disabled

    async def enable_user(self, user_id: UUID, *, source: Source) -> User | None:
        """Let a disabled user sign in again; its old sessions stay ended. None when there is none."""
        async with self._database.transaction() as connection:
            user = await accounts.lock_user(connection, user_id)
            if user is None or not user.is_disabled:
                return user
            await accounts.update_disabled(connection, user_id, disabled_at=None)
            await record(connection, Fact.USER_ENABLED, now=self._clock.now(), source=source, user_id=user_id)
            return await accounts.user_by_id(connection, user_id)

    async def delete_user(self, user_id: UUID, *, source: Source) -> bool:
        """Delete a user for good; its tokens get 404 everywhere and its address is free. False when there is none."""
        async with self._database.transaction() as connection:
            user = await accounts.lock_user(connection, user_id)
            if user is None:
                return False
            now = self._clock.now()
            revocation = await self._end_all(connection, user, EndReason.USER_DELETED, now=now)
            await accounts.delete_user(connection, user_id)
            await record(connection, Fact.USER_DELETED, now=now, source=source, user_id=user_id)
        self._feed.apply([revocation])
        return True

    async def _end(
        self, connection: Connection, session_id: UUID, user_id: UUID, reason: EndReason, *, now: datetime
    ) -> list[Revocation]:
        last_access = await store.end_session(connection, session_id, user_id=user_id, now=now, reason=reason)
        if last_access is None:
            return []
        revocation = Revocation(
            kind=RevocationKind.SESSION,
            session_id=session_id,
            user_id=user_id,
            below_version=None,
            reason=reason,
            expires_at=last_access + REVOCATION_MARGIN,
        )
        await store.insert_revocation(connection, revocation, now=now)
        return [revocation]

    async def _end_all(self, connection: Connection, user: User, reason: EndReason, *, now: datetime) -> Revocation:
        last_access = await store.end_sessions_of_user(connection, user.id, now=now, reason=reason)
        # Sessions ended before may have tokens left that were refused for another reason: they get this one, too.
        latest = max(last_access or now, now + self._lifetimes.access)
        revocation = Revocation(
            kind=RevocationKind.USER,
            session_id=None,
            user_id=user.id,
            below_version=user.claims_version + 1,
            reason=reason,
            expires_at=latest + REVOCATION_MARGIN,
        )
        await store.insert_revocation(connection, revocation, now=now)
        return revocation
