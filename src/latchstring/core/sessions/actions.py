"""What can be done with sessions: renew, prove anew, list, end, shut out, give a role and take it back."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from latchstring.core.accounts import store as accounts
from latchstring.core.accounts.rules import User, with_role
from latchstring.core.caller import NO_CLAIMS, Caller, Proven
from latchstring.core.sessions import store
from latchstring.core.sessions.feed import RevocationFeed
from latchstring.core.sessions.rules import (
    REVOCATION_MARGIN,
    Client,
    EndReason,
    Lifetimes,
    ListedSession,
    Presented,
    RefreshLimit,
    Revocation,
    RevocationKind,
    Session,
    is_from_the_future,
    judge,
    proven_before_claims,
)
from latchstring.core.sessions.store import EndedSession, Rotation
from latchstring.core.tokens.actions import Keys
from latchstring.core.tokens.rotation import KeyChange, KeyConflict
from latchstring.core.tokens.rules import RefreshClaims, custom_claims
from latchstring.core.tokens.tokens import TokenPair, Tokens
from latchstring.errors import Code, Refused
from latchstring.foundation.audit import record
from latchstring.foundation.clock import Clock
from latchstring.foundation.database import Connection, Database, lock_exclusively
from latchstring.foundation.facts import (
    APPLICATION,
    EveryoneSignedOut,
    RefreshRepeatedElsewhere,
    RefreshTokenReused,
    RoleGranted,
    RoleWithdrawn,
    SessionEnded,
    SessionsEnded,
    Source,
    UserDeleted,
    UserDisabled,
    UserEnabled,
)

_log = logging.getLogger(__name__)

ClaimsHook = Callable[[User], Awaitable[Mapping[str, Any]]]
"""An application's function: what a user's access tokens say beside what is ours."""


@dataclass(frozen=True, slots=True)
class KnownClaims:
    """What an application's hook said of a user as it was then."""

    user: User
    claims: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A living session, whose it is, and the tokens of its present generation."""

    user: User
    session: Session
    tokens: TokenPair


class Sessions:
    """The sessions room's verbs.

    Those that take a connection work in the caller's transaction, and return what `announce` is to be told once that
    has committed.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        tokens: Tokens,
        keys: Keys,
        feed: RevocationFeed,
        *,
        lifetimes: Lifetimes,
        refresh_limit: RefreshLimit | None,
        ends_repeats_elsewhere: bool = False,
        claims: ClaimsHook | None = None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._tokens = tokens
        self._keys = keys
        self._feed = feed
        self._lifetimes = lifetimes
        self._refresh_limit = refresh_limit
        self._ends_repeats_elsewhere = ends_repeats_elsewhere
        self._claims = claims

    async def signed_in(
        self, user: User, session: Session, proven: Proven, *, known: KnownClaims | None = None
    ) -> SignedIn:
        """Sign both tokens of the session's present generation; the same row and proof give the same claims every time.

        Args:
            user: as it is now.
            session: whose.
            proven: by the client that gets the tokens, and never by another one: a thief who shares the session must
                not be given the owner's fresh proof.
            known: the application's own claims, where they were asked for already.
        """
        if known is None or known.user != user:
            known = await self.claims_of(user)
        # A proof given within the generation came after its beginning, and a token can't speak of the future.
        issued_at = max(int(session.rotated_at.timestamp()), proven.at_unix)
        caller = Caller(
            user_id=user.id,
            session_id=session.id,
            claims_version=user.claims_version,
            epoch=session.epoch,
            roles=user.roles,
            methods=proven.methods,
            proven_at_unix=proven.at_unix,
            issued_at_unix=issued_at,
            expires_at_unix=int(session.generation_access_expires_at.timestamp()),
            claims=known.claims,
        )
        bearer = RefreshClaims(
            user_id=user.id,
            session_id=session.id,
            issued_at_unix=issued_at,
            expires_at_unix=int(session.expires_at.timestamp()),
            generation=session.generation,
            proven=proven,
        )
        if not self._feed.has_heard_of(session.epoch):
            # Everyone was signed out a moment ago, perhaps because the key was stolen that would sign these tokens.
            await self._tokens.learn_keys()
        # Two RSA signatures take two milliseconds, in which the loop would serve nobody; a thread lets go of the GIL.
        tokens = await asyncio.to_thread(self._tokens.issue, caller, bearer)
        return SignedIn(user=user, session=session, tokens=tokens)

    async def renew_session(self, refresh_token: str, *, source: Source) -> SignedIn | Refused:
        """Exchange a refresh token for the next pair; the previous one, within the grace, for the same pair again."""
        now = self._clock.now()
        bearer = self._tokens.read_refresh(refresh_token, now=now.timestamp())
        if bearer is None and await self._tokens.learn_keys_of(refresh_token):
            bearer = self._tokens.read_refresh(refresh_token, now=now.timestamp())
        if bearer is None:
            return Refused(Code.INVALID_TOKEN)
        if bearer.expires_at_unix <= now.timestamp():
            return Refused(Code.TOKEN_EXPIRED)
        # Asked before the token is used up: an application's hook that fails must not make a thief of an honest client.
        asked = await accounts.read_user(self._database, bearer.user_id) if self._claims else None
        known = await self.claims_of(asked) if asked else None
        revoked: list[Revocation] = []
        async with self._database.transaction() as connection:
            outcome = await self._rotate(connection, bearer, now=now, source=source, revoked=revoked)
        self.announce(revoked)
        # Signing takes milliseconds: after the commit, when no connection is held. A crash in between costs nothing,
        # since asking again gives the same successor.
        if isinstance(outcome, Refused):
            return outcome
        user, session = outcome
        if not self._feed.has_heard_of(session.epoch):
            await self._tokens.learn_keys()
            # Verified with the keys of before, it may be a thief's, who would get a pair of the next key for it.
            if self._tokens.read_refresh(refresh_token, now=now.timestamp()) is None:
                return Refused(Code.INVALID_TOKEN)
        return await self.signed_in(user, session, bearer.proven or proven_before_claims(session), known=known)

    async def claims_of(self, user: User) -> KnownClaims:
        """Ask the application's hook, with no connection held.

        Raises:
            ConfigurationError: it said what no token can say.
        """
        return KnownClaims(user, custom_claims(await self._claims(user)) if self._claims else NO_CLAIMS)

    async def _rotate(
        self, connection: Connection, bearer: RefreshClaims, *, now: datetime, source: Source, revoked: list[Revocation]
    ) -> tuple[User, Session] | Refused:
        rotation = self._rotation(bearer.session_id, bearer.user_id, now=now, source=source)
        limit = self._refresh_limit
        session = await store.rotate(connection, rotation, presented=bearer.generation, limit=limit)
        user = await accounts.user_by_id(connection, bearer.user_id)
        if user is None:
            return Refused(Code.USER_GONE)
        if session is not None:
            return user, session
        judged = await self._judged(connection, bearer, limit=limit, now=now, source=source, revoked=revoked)
        return judged if isinstance(judged, Refused) else (user, judged)

    async def _judged(
        self,
        connection: Connection,
        bearer: RefreshClaims,
        *,
        limit: RefreshLimit | None,
        now: datetime,
        source: Source,
        revoked: list[Revocation],
    ) -> Session | Refused:
        """Judge a refresh token that is not the current one: return the session to answer from, or refuse.

        A reused token ends the session. The revocations are added to `revoked`.
        """
        found = await store.session_of_user(connection, bearer.session_id, user_id=bearer.user_id)
        if found is None:
            return Refused(Code.SESSION_ENDED)
        session, epoch = found
        grace, client = self._lifetimes.grace, _client(source)
        verdict = judge(
            session, epoch=epoch, generation=bearer.generation, now=now, grace=grace, limit=limit, client=client
        )
        reason = EndReason.REFRESH_REUSED
        match verdict:
            case Presented.REPEATED:
                return await self._repeated(connection, session, limit=limit, is_elsewhere=False, now=now)
            case Presented.REPEATED_ELSEWHERE:
                fact = RefreshRepeatedElsewhere(at=now, source=source, user_id=session.user_id, session_id=session.id)
                await record(connection, fact)
                if not self._ends_repeats_elsewhere:
                    return await self._repeated(connection, session, limit=limit, is_elsewhere=True, now=now)
                reason = EndReason.REFRESH_REPEATED_ELSEWHERE
            case Presented.REUSED:
                pass
            case Presented.TOO_OFTEN:
                return _too_often(session, limit, now=now)
            case Presented.CLOCKS_DIFFER:
                return _clocks_differ(session, now=now)
            case Presented.EXPIRED:
                return Refused(Code.TOKEN_EXPIRED)
            case Presented.ENDED:
                return Refused(Code.SESSION_ENDED)
        ended = await store.end_session(connection, session.id, user_id=session.user_id, now=now, reason=reason)
        # Of several copies that come at once, one finds the session alive.
        revoked += await self._tell(connection, ended, session.user_id, reason, now=now, source=source)
        return Refused(Code.REFRESH_TOKEN_REUSED)

    async def _repeated(
        self, connection: Connection, session: Session, *, limit: RefreshLimit | None, is_elsewhere: bool, now: datetime
    ) -> Session | Refused:
        if await store.count_repeat(
            connection, session.id, user_id=session.user_id, now=now, limit=limit, is_elsewhere=is_elsewhere
        ):
            return session
        # It may have ended between the reading and this.
        is_living = await self._living(connection, session.id, user_id=session.user_id) is not None
        return _too_often(session, limit, now=now) if is_living else Refused(Code.SESSION_ENDED)

    def refresh_claims(self, caller: Caller, shown: str | None) -> RefreshClaims | None:
        """Read the refresh token that a caller sent. None if there is none, or it belongs to another session."""
        now = self._clock.now().timestamp()
        bearer = self._tokens.read_refresh(shown, now=now) if shown else None
        is_theirs = bearer is not None and bearer.session_id == caller.session_id and bearer.expires_at_unix > now
        return bearer if is_theirs else None

    async def prove_anew(
        self,
        connection: Connection,
        caller: Caller,
        proven: Proven,
        *,
        bearer: RefreshClaims | None,
        source: Source,
        revoked: list[Revocation],
    ) -> Session | Refused:
        """Begin the caller's session's next generation, since its user has proved again who they are (ASVS 5.0, 7.2.4).

        A token that a refresh has replaced within the grace is answered within the generation that replaced it: another
        tab may hold that one, and must not be left behind. A reused one ends the session, and is refused.

        Args:
            connection: the open transaction, which holds the user locked.
            caller: who has proved it.
            proven: the caller's earlier proofs and the new one.
            bearer: the refresh token that the caller sent, if any.
            source: where the request came from.
            revoked: revocations are added to it.
        """
        now = self._clock.now()
        rotation = self._rotation(caller.session_id, caller.user_id, now=now, source=source)
        methods, proven_at = proven.methods, datetime.fromtimestamp(proven.at_unix, UTC)
        if bearer is None:
            session = await store.rotate_unseen(
                connection,
                rotation,
                access_issued_at=datetime.fromtimestamp(caller.issued_at_unix, UTC),
                grace=self._lifetimes.grace,
                methods=methods,
                proven_at=proven_at,
            )
            if session is None:
                found = await self.living(connection, caller)
                if found is not None and is_from_the_future(found, now=now):
                    return _clocks_differ(found, now=now)
        else:
            session = await store.rotate_proven(
                connection, rotation, presented=bearer.generation, methods=methods, proven_at=proven_at
            )
            if session is None:
                judged = await self._judged(connection, bearer, limit=None, now=now, source=source, revoked=revoked)
                if isinstance(judged, Refused):
                    return judged
        session = session or await store.prove(
            connection, caller.session_id, user_id=caller.user_id, methods=methods, proven_at=proven_at, now=now
        )
        return session or Refused(Code.SESSION_ENDED)

    async def list_sessions(self, user_id: UUID) -> list[ListedSession]:
        """Read a user's living sessions, the one last used first."""
        async with self._database.reading() as connection:
            return await store.list_sessions(connection, user_id, now=self._clock.now())

    async def revoke_session(
        self, session_id: UUID, *, user_id: UUID | None = None, reason: EndReason, source: Source
    ) -> bool:
        """End one session, of one user where given; False where there is none, or it has ended."""
        revoked: list[Revocation] = []
        async with self._database.transaction() as connection:
            owner = user_id or await store.owner_of(connection, session_id)
            if owner is not None:
                now = self._clock.now()
                ended = await store.end_session(connection, session_id, user_id=owner, now=now, reason=reason)
                revoked += await self._tell(connection, ended, owner, reason, now=now, source=source)
        self.announce(revoked)
        return bool(revoked)

    async def revoke_other_sessions(self, caller: Caller, *, source: Source) -> bool:
        """End every session of the caller's user but the caller's own; False where that one has ended itself."""
        async with self._database.transaction() as connection:
            await accounts.lock_user(connection, caller.user_id)
            if await self.living(connection, caller) is None:
                return False
            revoked = await self.end_others(connection, caller, reason=EndReason.REVOKED, source=source)
        self.announce(revoked)
        return True

    async def living(self, connection: Connection, caller: Caller) -> Session | None:
        """Read the caller's session, whose user is held locked; None where it has ended."""
        return await self._living(connection, caller.session_id, user_id=caller.user_id)

    async def _living(self, connection: Connection, session_id: UUID, *, user_id: UUID) -> Session | None:
        found = await store.session_of_user(connection, session_id, user_id=user_id)
        if found is None:
            return None
        session, epoch = found
        has_ended = session.revoked_at is not None or session.epoch < epoch or session.expires_at <= self._clock.now()
        return None if has_ended else session

    async def end_others(
        self, connection: Connection, caller: Caller, *, reason: EndReason, source: Source
    ) -> list[Revocation]:
        """End every session of the caller's user, whom the caller of this holds locked, but the caller's own."""
        now = self._clock.now()
        ended = await store.end_other_sessions(
            connection, caller.user_id, kept_id=caller.session_id, now=now, reason=reason
        )
        return await self._tell(connection, ended, caller.user_id, reason, now=now, source=source)

    async def end_all(
        self, connection: Connection, user_id: UUID, *, reason: EndReason, source: Source
    ) -> list[Revocation]:
        """End every session of a user, held locked, one by one: whoever creates one afterwards keeps it."""
        now = self._clock.now()
        ended = await store.end_sessions_of_user(connection, user_id, now=now, reason=reason)
        return await self._tell(connection, ended, user_id, reason, now=now, source=source)

    async def end_oldest(
        self, connection: Connection, user_id: UUID, *, most: int, now: datetime, source: Source
    ) -> list[Revocation]:
        """End the oldest living sessions of a user, held locked, so that `most` are left."""
        ended = await store.end_oldest_sessions(connection, user_id, most=most, now=now, reason=EndReason.TOO_MANY)
        return await self._tell(connection, ended, user_id, EndReason.TOO_MANY, now=now, source=source)

    async def revoke_sessions_of_user(self, user_id: UUID, *, reason: EndReason, source: Source) -> bool:
        """End every session of a user, who may sign in again; False where there is no such user."""
        async with self._database.transaction() as connection:
            user = await accounts.lock_user(connection, user_id)
            if user is None:
                return False
            now = self._clock.now()
            revocation = await self._end_all(connection, user, reason, now=now)
            await accounts.raise_claims_version(connection, user_id)
            await record(connection, SessionsEnded(at=now, source=source, user_id=user_id, reason=reason))
        self.announce([revocation])
        return True

    async def revoke_everyone(self, *, source: Source) -> None:
        """End every session of every user by beginning an epoch: one row, however many sessions there are."""
        async with self._database.transaction() as connection:
            revocation = await self._end_everyones(connection, source=source)
        self.announce([revocation])

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
        revocation = await store.begin_epoch(connection, reason=EndReason.OPERATOR, now=now)
        await record(connection, EveryoneSignedOut(at=now, source=source, reason=EndReason.OPERATOR))
        return revocation

    async def sign_out(self, shown: Iterable[str], *, source: Source) -> None:
        """End every session of which a genuine token is shown, whatever its kind, generation or age.

        No time in a token is looked at: by a clock that differs a session would survive its sign-out.
        """
        shown = tuple(shown)
        await self._tokens.learn_keys_of(*shown, wait=True)
        await self._end_shown(shown, EndReason.LOGOUT, source=source)

    async def end_former(self, shown: Iterable[str], *, kept_id: UUID, source: Source) -> None:
        """End the sessions that a browser had, by the tokens in its cookies, which a new sign-in replaces.

        Args:
            shown: what may be tokens. No key is waited for: cookies of long ago must delay no sign-in.
            kept_id: the new session.
            source: where it came from.
        """
        await self._end_shown(shown, EndReason.SIGNED_IN_AGAIN, kept_id=kept_id, source=source)

    async def _end_shown(
        self, shown: Iterable[str], reason: EndReason, *, kept_id: UUID | None = None, source: Source
    ) -> None:
        named = {token for text in shown if (token := self._tokens.session_of(text)) is not None}
        # One at a time: nobody holds two sessions' rows without their user's, so that nobody waits in a circle.
        for token in named:
            if token.session_id != kept_id:
                await self.revoke_session(token.session_id, user_id=token.user_id, reason=reason, source=source)

    async def disable_user(self, user_id: UUID, *, source: Source = APPLICATION) -> User | None:
        """Shut a user out: no sign-in, and every token it holds is refused everywhere. None when there is none."""
        async with self._database.transaction() as connection:
            user = await accounts.lock_user(connection, user_id)
            if user is None or user.is_disabled:
                return user
            now = self._clock.now()
            revocation = await self._end_all(connection, user, EndReason.USER_DISABLED, now=now)
            await accounts.update_disabled(connection, user_id, disabled_at=now)
            await record(connection, UserDisabled(at=now, source=source, user_id=user_id))
            disabled = await accounts.user_by_id(connection, user_id)
        self.announce([revocation])
        return disabled

    async def enable_user(self, user_id: UUID, *, source: Source = APPLICATION) -> User | None:
        """Let a disabled user sign in again; its old sessions stay ended. None when there is none."""
        async with self._database.transaction() as connection:
            user = await accounts.lock_user(connection, user_id)
            if user is None or not user.is_disabled:
                return user
            await accounts.update_disabled(connection, user_id, disabled_at=None)
            await record(connection, UserEnabled(at=self._clock.now(), source=source, user_id=user_id))
            return await accounts.user_by_id(connection, user_id)

    async def delete_user(self, user_id: UUID, *, source: Source = APPLICATION) -> bool:
        """Delete a user for good; its tokens get 404 everywhere and its address is free. False when there is none."""
        async with self._database.transaction() as connection:
            user = await accounts.lock_user(connection, user_id)
            if user is None:
                return False
            now = self._clock.now()
            revocation = await self._end_all(connection, user, EndReason.USER_DELETED, now=now)
            await accounts.delete_user(connection, user_id)
            await record(connection, UserDeleted(at=now, source=source, user_id=user_id))
        self.announce([revocation])
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
            user = await accounts.lock_user(connection, user_id)
            if user is None:
                return None
            roles = changed(user.roles)
            if roles == user.roles:
                return user
            now = self._clock.now()
            await accounts.update_roles(connection, user_id, roles=roles)
            latest = await store.latest_access_expiry(connection, user_id)
            revocation = Revocation(
                kind=RevocationKind.USER,
                session_id=None,
                user_id=user_id,
                below_version=user.claims_version + 1,
                reason=EndReason.CLAIMS_CHANGED,
                expires_at=max(now + self._lifetimes.access, latest or now) + REVOCATION_MARGIN,
            )
            await store.insert_revocations(connection, [revocation], now=now)
            await record(connection, kind(at=now, source=source, user_id=user_id, role=role))
        self.announce([revocation])
        return replace(user, roles=roles, claims_version=user.claims_version + 1)

    def announce(self, revoked: Sequence[Revocation]) -> None:
        """Let this worker know what a committed transaction ended, before anybody is answered."""
        self._feed.apply(revoked)

    def _rotation(self, session_id: UUID, user_id: UUID, *, now: datetime, source: Source) -> Rotation:
        return Rotation(
            session_id=session_id,
            user_id=user_id,
            now=now,
            client=_client(source),
            access_expiry=self._lifetimes.access_expiry(now),
            refresh_expiry=self._lifetimes.refresh_expiry(now),
        )

    async def _tell(
        self,
        connection: Connection,
        ended: Sequence[EndedSession],
        user_id: UUID,
        reason: EndReason,
        *,
        now: datetime,
        source: Source,
    ) -> list[Revocation]:
        revoked = [
            Revocation(
                kind=RevocationKind.SESSION,
                session_id=session.id,
                user_id=user_id,
                below_version=None,
                reason=reason,
                expires_at=session.access_expires_at + REVOCATION_MARGIN,
            )
            for session in ended
        ]
        await store.insert_revocations(connection, revoked, now=now)
        for session in ended:
            if reason is EndReason.REFRESH_REUSED:
                reused = RefreshTokenReused(at=now, source=source, user_id=user_id, session_id=session.id)
                await record(connection, reused)
            else:
                fact = SessionEnded(at=now, source=source, user_id=user_id, session_id=session.id, reason=reason)
                await record(connection, fact)
        return revoked

    async def _end_all(self, connection: Connection, user: User, reason: EndReason, *, now: datetime) -> Revocation:
        ended = await store.end_sessions_of_user(connection, user.id, now=now, reason=reason)
        # Sessions ended before may have tokens left that were refused for another reason: they get this one, too.
        latest = max([now + self._lifetimes.access, *(session.access_expires_at for session in ended)])
        revocation = Revocation(
            kind=RevocationKind.USER,
            session_id=None,
            user_id=user.id,
            below_version=user.claims_version + 1,
            reason=reason,
            expires_at=latest + REVOCATION_MARGIN,
        )
        await store.insert_revocations(connection, [revocation], now=now)
        return revocation


def _client(source: Source) -> Client:
    return Client.of(address=source.address, user_agent=source.user_agent)


def _clocks_differ(session: Session, *, now: datetime) -> Refused:
    _log.warning(
        "a session was rotated %.0f s ahead of this instance's clock: set the instances' clocks",
        (session.rotated_at - now).total_seconds(),
    )
    return Refused(Code.INVALID_TOKEN)


def _too_often(session: Session, limit: RefreshLimit | None, *, now: datetime) -> Refused:
    wait = limit.wait(session, now=now) if limit else timedelta()
    return Refused(Code.TOO_MANY_REQUESTS, retry_after_seconds=wait.total_seconds())
