"""Refresh: begin a session's next generation, for a refresh token or a fresh proof; revoke a stolen session."""

import logging
from datetime import UTC, datetime, timedelta
from uuid import UUID

from latchstring.core.accounts import store as accounts
from latchstring.core.accounts.rules import User
from latchstring.core.caller import Caller, Proven
from latchstring.core.revocations.feed import RevocationFeed
from latchstring.core.revocations.rules import Revocation, RevocationReason
from latchstring.core.sessions import store
from latchstring.core.sessions.issuing import SignedIn, TokenIssuer
from latchstring.core.sessions.revoking import Revoker
from latchstring.core.sessions.rules import (
    Client,
    Lifetimes,
    RefreshLimit,
    ReuseVerdict,
    Rotation,
    Session,
    is_from_the_future,
    judge,
    proven_before_claims,
)
from latchstring.core.tokens.rules import RefreshClaims
from latchstring.core.tokens.tokens import Tokens
from latchstring.errors import Code, Refused
from latchstring.foundation.audit import record
from latchstring.foundation.clock import Clock
from latchstring.foundation.database import Connection, Database
from latchstring.foundation.events import RefreshRepeatedElsewhere, Source
from latchstring.foundation.measurements import UNMETERED, Meter, Metric
from latchstring.foundation.spans import span

_log = logging.getLogger(__name__)

_OUTCOMES = {
    Code.INVALID_TOKEN: "invalid",
    Code.TOKEN_EXPIRED: "expired",
    Code.REFRESH_TOKEN_REUSED: "reused",
    Code.TOO_MANY_REQUESTS: "limited",
}
"""What the metrics call a refusal; every other one is `ended`."""


class Refresher:
    """Exchanges refresh tokens, and confirms sessions."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        tokens: Tokens,
        *,
        feed: RevocationFeed,
        issuer: TokenIssuer,
        revoker: Revoker,
        lifetimes: Lifetimes,
        limit: RefreshLimit | None,
        ends_repeats_elsewhere: bool = False,
        meter: Meter = UNMETERED,
    ) -> None:
        self._meter = meter
        self._database = database
        self._clock = clock
        self._tokens = tokens
        self._feed = feed
        self._issuer = issuer
        self._revoker = revoker
        self._lifetimes = lifetimes
        self._refresh_limit = limit
        self._ends_repeats_elsewhere = ends_repeats_elsewhere

    async def refresh(self, refresh_token: str, *, source: Source) -> SignedIn | Refused:
        """Exchange a refresh token for the next pair of tokens.

        Within the grace, the previous refresh token gets the same pair again. An older one revokes the session.

        Raises:
            UnavailableError: the database or the keys are unavailable. The client can repeat the request.
        """
        outcome = "unavailable"
        try:
            with span("latchstring.refresh") as current:
                result = await self._exchange(refresh_token, source=source)
                outcome = _OUTCOMES.get(result.code, "ended") if isinstance(result, Refused) else "succeeded"
                current.end_with(outcome)
        finally:
            self._meter.count(Metric.REFRESHES, outcome)
            if outcome == "limited":
                self._meter.count(Metric.LIMITS_HIT, "refresh")
        return result

    async def _exchange(self, refresh_token: str, *, source: Source) -> SignedIn | Refused:
        now = self._clock.now()
        bearer = self._tokens.read_refresh(refresh_token, now=now.timestamp())
        if bearer is None and await self._tokens.reload_keys_for(refresh_token):
            bearer = self._tokens.read_refresh(refresh_token, now=now.timestamp())
        if bearer is None:
            return Refused(Code.INVALID_TOKEN)
        if bearer.expires_at_unix <= now.timestamp():
            return Refused(Code.TOKEN_EXPIRED)
        # Before the rotation: if the claims hook failed after it, the client would keep a replaced token, and later be
        # taken for a thief.
        user_before = await accounts.read_user(self._database, bearer.user_id) if self._issuer.has_hook else None
        hook_claims = await self._issuer.claims_of(user_before) if user_before else None
        revoked: list[Revocation] = []
        async with self._database.transaction() as connection:
            outcome = await self._rotate(connection, bearer, now=now, source=source, revoked=revoked)
        self._revoker.announce(revoked)
        # Signed after the commit, when no connection is held: it takes milliseconds. After a crash in between, the
        # client repeats the request and gets the same successor.
        if isinstance(outcome, Refused):
            return outcome
        user, session = outcome
        if not self._feed.knows_epoch(session.epoch):
            await self._tokens.reload_keys()
            # The token was verified with keys from before the epoch. A thief may have made it with the stolen key, and
            # would now get an honest pair, signed with the new one.
            if self._tokens.read_refresh(refresh_token, now=now.timestamp()) is None:
                return Refused(Code.INVALID_TOKEN)
        return await self._issuer.issue(
            user, session, bearer.proven or proven_before_claims(session), hook_claims=hook_claims
        )

    async def _rotate(
        self, connection: Connection, bearer: RefreshClaims, *, now: datetime, source: Source, revoked: list[Revocation]
    ) -> tuple[User, Session] | Refused:
        rotation = self._rotation(bearer.session_id, bearer.user_id, now=now, source=source)
        limit = self._refresh_limit
        # One conditional statement, and no SELECT before it: of two refreshes at once both would pass that
        # (CVE-2026-1035, Keycloak).
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
        """Judge a token that did not win the rotation: return the session to respond from, refuse, or revoke it."""
        found = await store.session_of_user(connection, bearer.session_id, user_id=bearer.user_id)
        if found is None:
            return Refused(Code.SESSION_ENDED)
        session, epoch = found
        grace, client = self._lifetimes.grace, _client(source)
        verdict = judge(
            session, epoch=epoch, generation=bearer.generation, now=now, grace=grace, limit=limit, client=client
        )
        reason = RevocationReason.REFRESH_REUSED
        match verdict:
            case ReuseVerdict.REPEATED:
                return await self._repeated(connection, session, limit=limit, is_elsewhere=False, now=now)
            case ReuseVerdict.REPEATED_ELSEWHERE:
                event = RefreshRepeatedElsewhere(at=now, source=source, user_id=session.user_id, session_id=session.id)
                await record(connection, event)
                if not self._ends_repeats_elsewhere:
                    return await self._repeated(connection, session, limit=limit, is_elsewhere=True, now=now)
                reason = RevocationReason.REFRESH_REPEATED_ELSEWHERE
            case ReuseVerdict.REUSED:
                pass
            case _:
                return _refusal_of(verdict, session, limit, now=now)
        ended = await store.end_session(connection, session.id, user_id=session.user_id, now=now, reason=reason)
        # Of several copies presented at once, one ends the session; for the others `ended` is empty.
        revoked += await self._revoker.revoke_sessions(
            connection, ended, session.user_id, reason, now=now, source=source
        )
        return Refused(Code.REFRESH_TOKEN_REUSED)

    async def _repeated(
        self, connection: Connection, session: Session, *, limit: RefreshLimit | None, is_elsewhere: bool, now: datetime
    ) -> Session | Refused:
        if await store.count_repeat(
            connection, session.id, user_id=session.user_id, now=now, limit=limit, is_elsewhere=is_elsewhere
        ):
            self._meter.count(Metric.REPEATS, "elsewhere" if is_elsewhere else "same")
            return session
        # The session may have ended since it was read.
        active = await store.active_session(connection, session.id, user_id=session.user_id, now=now)
        return Refused(Code.SESSION_ENDED) if active is None else _too_often(session, limit, now=now)

    def refresh_claims(self, caller: Caller, presented: str | None) -> RefreshClaims | None:
        """Read the refresh token that a caller sent. Returns None without a valid one of the caller's own session."""
        now = self._clock.now().timestamp()
        bearer = self._tokens.read_refresh(presented, now=now) if presented else None
        is_theirs = bearer is not None and bearer.session_id == caller.session_id and bearer.expires_at_unix > now
        return bearer if is_theirs else None

    async def confirm(
        self,
        connection: Connection,
        caller: Caller,
        proven: Proven,
        *,
        bearer: RefreshClaims | None,
        source: Source,
        revoked: list[Revocation],
    ) -> Session | Refused:
        """Begin the next generation of the caller's session with a fresh proof (ASVS 5.0, 7.2.4).

        A token that was replaced within the grace stays in the generation that replaced it. A reused one revokes the
        session, and is refused.

        Args:
            connection: the open transaction, in which the user is locked.
            caller: the caller who has confirmed.
            proven: the caller's earlier proofs and the new one.
            bearer: the refresh token that the caller sent, if any.
            source: where the request came from.
            revoked: a list to which revocations are added.
        """
        rotation = self._rotation(caller.session_id, caller.user_id, now=self._clock.now(), source=source)
        if bearer is None:
            session = await self._rotate_unseen(connection, rotation, caller, proven)
        else:
            session = await self._rotate_proven(connection, rotation, proven, bearer, source=source, revoked=revoked)
        if session is not None:
            return session
        # No further generation for a replaced token: the tab with the current one would later be taken for a thief.
        session = await store.prove(
            connection,
            caller.session_id,
            user_id=caller.user_id,
            methods=proven.methods,
            proven_at=proven.at,
            now=rotation.now,
        )
        return session or Refused(Code.SESSION_ENDED)

    async def _rotate_unseen(
        self, connection: Connection, rotation: Rotation, caller: Caller, proven: Proven
    ) -> Session | Refused | None:
        session = await store.rotate_unseen(
            connection,
            rotation,
            access_issued_at=datetime.fromtimestamp(caller.issued_at_unix, UTC),
            grace=self._lifetimes.grace,
            methods=proven.methods,
            proven_at=proven.at,
        )
        if session is not None:
            return session
        # Not rotated: a repeat within the grace, or another instance whose clock is ahead rotated it.
        now = rotation.now
        found = await store.active_session(connection, caller.session_id, user_id=caller.user_id, now=now)
        return _clocks_differ(found, now=now) if found is not None and is_from_the_future(found, now=now) else None

    async def _rotate_proven(
        self,
        connection: Connection,
        rotation: Rotation,
        proven: Proven,
        bearer: RefreshClaims,
        *,
        source: Source,
        revoked: list[Revocation],
    ) -> Session | Refused | None:
        session = await store.rotate_proven(
            connection, rotation, presented=bearer.generation, methods=proven.methods, proven_at=proven.at
        )
        if session is not None:
            return session
        # No limit: a thief who uses up the session's refreshes must not prevent the owner's confirmation.
        judged = await self._judged(connection, bearer, limit=None, now=rotation.now, source=source, revoked=revoked)
        return judged if isinstance(judged, Refused) else None

    def _rotation(self, session_id: UUID, user_id: UUID, *, now: datetime, source: Source) -> Rotation:
        return Rotation(
            session_id=session_id,
            user_id=user_id,
            now=now,
            client=_client(source),
            access_expiry=self._lifetimes.access_expiry(now),
            refresh_expiry=self._lifetimes.refresh_expiry(now),
        )


def _client(source: Source) -> Client:
    return Client.of(address=source.address, user_agent=source.user_agent)


def _refusal_of(verdict: ReuseVerdict, session: Session, limit: RefreshLimit | None, *, now: datetime) -> Refused:
    match verdict:
        case ReuseVerdict.TOO_OFTEN:
            return _too_often(session, limit, now=now)
        case ReuseVerdict.CLOCKS_DIFFER:
            return _clocks_differ(session, now=now)
        case ReuseVerdict.EXPIRED:
            return Refused(Code.TOKEN_EXPIRED)
        case _:
            return Refused(Code.SESSION_ENDED)


def _clocks_differ(session: Session, *, now: datetime) -> Refused:
    # No theft: the session stays, and the client can refresh again once the clocks agree.
    _log.warning(
        "a session was rotated %.0f s ahead of this instance's clock: synchronise the clocks of all instances (NTP)",
        (session.rotated_at - now).total_seconds(),
    )
    return Refused(Code.INVALID_TOKEN)


def _too_often(session: Session, limit: RefreshLimit | None, *, now: datetime) -> Refused:
    wait = limit.wait(session, now=now) if limit else timedelta()
    return Refused(Code.TOO_MANY_REQUESTS, retry_after_seconds=wait.total_seconds())
