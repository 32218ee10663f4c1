"""Register, sign in by password, confirm a session and change the password.

Every check of a password goes through `Passwords._check`: slot first, then the hash, with no connection held.
"""

import contextlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from latchstring.core.accounts import store as accounts
from latchstring.core.accounts.rules import User
from latchstring.core.caller import Caller
from latchstring.core.revocations.rules import RevocationReason
from latchstring.core.sessions.issuing import HookClaims, SignedIn
from latchstring.core.sign_in.actions import SignIn, Stolen
from latchstring.core.sign_in.rules import Method, Proof
from latchstring.core.tokens.rules import RefreshClaims
from latchstring.errors import Code, DatabaseUnavailableError, Refused
from latchstring.features.password import store
from latchstring.foundation.audit import record
from latchstring.foundation.clock import Clock
from latchstring.foundation.database import Connection, Database
from latchstring.foundation.events import (
    PasswordChanged,
    PasswordUpgraded,
    SignInRefused,
    Source,
    UserRegistered,
)
from latchstring.foundation.limits import Limits, Reservation
from latchstring.foundation.measurements import UNMETERED, Meter, Metric
from latchstring.foundation.passwords import PasswordHasher, Verdict
from latchstring.foundation.spans import span

_LATE_RELEASE_SECONDS = 0.5
_OUTCOMES = {Code.INVALID_CREDENTIALS: "wrong_credentials", Code.TOO_MANY_REQUESTS: "limited"}
"""What the metrics call a refused sign-in; every other one is `refused`."""


@dataclass(frozen=True, slots=True)
class Checked:
    """The result of comparing a password with a user's hash, and the slot that the attempt took."""

    user: User | None
    password_hash: str | None
    verdict: Verdict
    reservation: Reservation
    proof: Proof | None
    """The user's proof; None if the password was wrong or there is no such user."""

    @property
    def releasable(self) -> Reservation:
        """The slot to release if a later step fails: that of a right password; a wrong one keeps its slot."""
        return self.reservation if self.proof else Reservation()


class Passwords:
    """Registers users, and signs in, confirms and changes by password."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        hasher: PasswordHasher,
        limits: Limits,
        *,
        sign_in: SignIn,
        meter: Meter = UNMETERED,
    ) -> None:
        self._meter = meter
        self._database = database
        self._clock = clock
        self._hasher = hasher
        self._limits = limits
        self._sign_in = sign_in

    async def register_user(
        self,
        *,
        email: str,
        first_name: str,
        last_name: str,
        password: str,
        former: Iterable[str] = (),
        source: Source,
    ) -> SignedIn | Refused:
        """Create an account and sign its owner in, in one transaction; then end the session of the `former` tokens.

        Returns:
            The new session's tokens, or `email_taken` or `too_many_requests`.
        """
        # From memory first: a flood must not queue for the lock of its own full window.
        full = self._limits.refuses_registration(address=source.address)
        if full is not None:
            return full
        # Counted before the hash: counted after it, one attempt per worker and thread would pass at once.
        async with self._database.transaction() as connection:
            reservation = await self._limits.reserve_registration(connection, address=source.address)
        if isinstance(reservation, Refused):
            return reservation
        # Outside a transaction: a hash takes tens of milliseconds, and the pool has few connections.
        async with self._released_on_error(reservation):
            password_hash = await self._hasher.hash(password)
        async with self._database.transaction() as connection:
            user = await self._insert(connection, email, first_name, last_name, password_hash, source=source)
            if user is None:
                return Refused(Code.EMAIL_TAKEN)
            proof = Proof(user=user, method=Method.PASSWORD, proven_at=user.created_at)
            admitted = await self._sign_in.create_session(connection, proof, source=source)
        if isinstance(admitted, Refused):
            return admitted
        return await self._sign_in.issue_tokens(admitted, former=former, source=source)

    async def create_user(
        self, *, email: str, first_name: str, last_name: str, password: str, source: Source
    ) -> User | Refused:
        """Create an account without a session, for the command line; not counted by any limit."""
        password_hash = await self._hasher.hash(password)
        async with self._database.transaction() as connection:
            user = await self._insert(connection, email, first_name, last_name, password_hash, source=source)
        return Refused(Code.EMAIL_TAKEN) if user is None else user

    async def sign_in(
        self, *, email: str, password: str, former: Iterable[str] = (), source: Source
    ) -> SignedIn | Refused:
        """Sign in, then end the session of the `former` tokens, which the browser sent.

        Returns:
            The new session's tokens; `invalid_credentials`, the same for an unknown email, a wrong password, a user
            without a password and a disabled user; or `too_many_requests`.
        """
        outcome = "unavailable"
        try:
            with span("latchstring.sign_in") as current:
                result = await self._sign_in_once(email, password, former=former, source=source)
                outcome = _OUTCOMES.get(result.code, "refused") if isinstance(result, Refused) else "succeeded"
                current.end_with(outcome)
        finally:
            self._meter.count(Metric.SIGN_INS, Method.PASSWORD, outcome)
        return result

    async def _sign_in_once(
        self, email: str, password: str, *, former: Iterable[str], source: Source
    ) -> SignedIn | Refused:
        checked = await self._check(email, password, source=source)
        if isinstance(checked, Refused):
            return checked
        return await self._create_session(checked, await self._hook_claims(checked), former=former, source=source)

    async def _create_session(
        self, checked: Checked, hook_claims: HookClaims | None, *, former: Iterable[str] = (), source: Source
    ) -> SignedIn | Refused:
        async with self._released_on_error(checked.releasable), self._database.transaction() as connection:
            if checked.proof is None:
                return await self._refuse(connection, checked.user, source=source)
            admitted = await self._sign_in.create_session(connection, checked.proof, source=source)
            # Disabled, or the password was changed while the hash ran: the same response as for a wrong password.
            if isinstance(admitted, Refused):
                return await self._refuse(connection, checked.user, source=source)
            await self._accept(connection, checked, source=source)
        return await self._sign_in.issue_tokens(admitted, hook_claims=hook_claims, former=former, source=source)

    async def confirm(
        self, caller: Caller, *, password: str, bearer: RefreshClaims | None, source: Source
    ) -> SignedIn | Refused:
        """Confirm the caller's session with a fresh proof by password.

        Args:
            caller: the caller, by an access token.
            password: the user's password.
            bearer: the claims of the session's refresh token, if the request carried one.
            source: where the request came from.

        Returns:
            The next tokens of the session, or those of a new session if `bearer` was reused and the session ended.
        """
        checked = await self._check(caller, password, source=source)
        if isinstance(checked, Refused):
            return checked
        hook_claims = await self._hook_claims(checked)
        async with self._released_on_error(checked.releasable), self._database.transaction() as connection:
            if checked.proof is None:
                return await self._refuse(connection, checked.user, source=source)
            admitted = await self._sign_in.confirm(connection, checked.proof, caller, bearer=bearer, source=source)
            if isinstance(admitted, Refused):
                return await self._refuse_after_proof(connection, checked, admitted, source=source)
            if not isinstance(admitted, Stolen):
                await self._accept(connection, checked, source=source)
        # The refresh token was reused, and the end of the session has committed. The right password now signs in as at
        # `/login`, and gives no proof to the session that the thief shared.
        if isinstance(admitted, Stolen):
            self._sign_in.announce(admitted)
            return await self._create_session(checked, hook_claims, source=source)
        return await self._sign_in.issue_tokens(admitted, hook_claims=hook_claims, source=source)

    async def change_password(
        self, caller: Caller, *, current_password: str, new_password: str, source: Source
    ) -> SignedIn | Refused:
        """Replace the current password by a new one; end every session, and create a new one for the caller."""
        checked = await self._check(caller, current_password, source=source)
        if isinstance(checked, Refused):
            return checked
        hook_claims = await self._hook_claims(checked)
        async with self._released_on_error(checked.reservation):
            new_hash = await self._hasher.hash(new_password) if checked.proof else None
        async with self._released_on_error(checked.releasable), self._database.transaction() as connection:
            if checked.proof is None or new_hash is None:
                return await self._refuse(connection, checked.user, source=source)
            # The caller's own session too: a thief who shares it would survive the change (CVE-2023-40273 is the kind).
            reason = RevocationReason.PASSWORD_CHANGED
            admitted = await self._sign_in.replace_sessions(
                connection, checked.proof, caller, reason=reason, source=source
            )
            if isinstance(admitted, Refused):
                return await self._refuse_after_proof(connection, checked, admitted, source=source)
            now, user_id = self._clock.now(), admitted.user.id
            await store.change_hash(connection, user_id, password_hash=new_hash, now=now)
            # A sign-in whose hash of the old password still runs must not create a session afterwards.
            await accounts.raise_security_version(connection, user_id)
            await self._limits.release(connection, checked.reservation)
            event = PasswordChanged(
                at=now,
                source=source,
                user_id=user_id,
                session_id=admitted.session.id,
                replaced_session_id=caller.session_id,
            )
            await record(connection, event)
        return await self._sign_in.issue_tokens(admitted, hook_claims=hook_claims, source=source)

    async def _check(self, who: str | Caller, password: str, *, source: Source) -> Checked | Refused:
        """Reserve a slot, and compare the password with the hash of the user with an email, or of a caller.

        The slot commits before the hash begins: a client that disconnects while it runs has used its attempt.
        """
        # By canonical email, for a caller too: an account has one limit, at whichever route (CVE-2025-24806).
        account = await self._email_of(who) if isinstance(who, Caller) else who
        if account is None:
            return Refused(Code.USER_NOT_FOUND)
        full = self._limits.refuses_sign_in(account=account, address=source.address)
        if full is not None:
            return full
        async with self._database.transaction() as connection:
            reservation = await self._limits.reserve_sign_in(connection, account=account, address=source.address)
            if isinstance(reservation, Refused):
                return reservation
            # After the slot, in the same transaction: a refused attempt does not read the hash.
            if isinstance(who, Caller):
                user, password_hash = await store.hash_of_user(connection, who.user_id)
            else:
                user, password_hash = await store.user_and_hash(connection, who)
        # Before the hash, so that time in the queue never makes a proof look fresher.
        proven_at = self._clock.now()
        async with self._released_on_error(reservation):
            # Without a hash it does the same work: the time must not reveal who has an account (CVE-2016-2513).
            verdict = await self._hasher.verify(password, password_hash)
        proof = Proof(user=user, method=Method.PASSWORD, proven_at=proven_at) if user and verdict.matches else None
        return Checked(user=user, password_hash=password_hash, verdict=verdict, reservation=reservation, proof=proof)

    async def _hook_claims(self, checked: Checked) -> HookClaims | None:
        """Call the claims hook before anything is changed, because it may fail."""
        # No hook for a wrong password: it would run for anybody who can type an email.
        if checked.proof is None:
            return None
        async with self._released_on_error(checked.reservation):
            return await self._sign_in.claims_of(checked.proof.user)

    async def _email_of(self, caller: Caller) -> str | None:
        user = await accounts.read_user(self._database, caller.user_id)
        return user.email if user else None

    @contextlib.asynccontextmanager
    async def _released_on_error(self, reservation: Reservation) -> AsyncIterator[None]:
        try:
            yield
        except Exception as error:
            # A database that did not respond has used up the caller's time. It gets half a second more.
            seconds = _LATE_RELEASE_SECONDS if isinstance(error, DatabaseUnavailableError) else None
            # The password was not found wrong: an overload, or a hook that fails, must not lock users out.
            async with self._database.transaction(timeout_seconds=seconds) as connection:
                await self._limits.release(connection, reservation)
            raise

    async def _accept(self, connection: Connection, checked: Checked, *, source: Source) -> None:
        # Only this attempt's slot: a success that reset the counter would let an attacker go on (allauth 65.8.1).
        await self._limits.release(connection, checked.reservation)
        new = checked.verdict.upgraded_hash
        if new is not None and checked.user is not None and checked.password_hash is not None:
            await self._upgrade(connection, checked.user, old=checked.password_hash, new=new, source=source)

    async def _insert(
        self,
        connection: Connection,
        email: str,
        first_name: str,
        last_name: str,
        password_hash: str,
        *,
        source: Source,
    ) -> User | None:
        now = self._clock.now()
        # None if the email is taken: decided by the unique index, since two registrations may arrive at once.
        user = await accounts.insert_user(connection, email=email, first_name=first_name, last_name=last_name, now=now)
        if user is not None:
            await store.insert_hash(connection, user.id, password_hash, now=now)
            event = UserRegistered(
                at=now, source=source, user_id=user.id, email=email, first_name=first_name, last_name=last_name
            )
            await record(connection, event)
        return user

    async def _refuse_after_proof(
        self, connection: Connection, checked: Checked, refused: Refused, *, source: Source
    ) -> Refused:
        """Refuse a right password whose action was refused; release its slot, unless the password was void by then."""
        # Changed while the hash ran: what was right a moment ago is a wrong password now.
        if refused.code is Code.INVALID_CREDENTIALS:
            return await self._refuse(connection, checked.user, source=source)
        await self._limits.release(connection, checked.reservation)
        return refused

    async def _refuse(self, connection: Connection, user: User | None, *, source: Source) -> Refused:
        # Recorded for an unknown email as well: one write less would reveal by the time which emails have an account.
        user_id = user.id if user else None
        event = SignInRefused(at=self._clock.now(), source=source, user_id=user_id, method=Method.PASSWORD)
        await record(connection, event)
        return Refused(Code.INVALID_CREDENTIALS)

    async def _upgrade(self, connection: Connection, user: User, *, old: str, new: str, source: Source) -> None:
        if await store.replace_hash(connection, user.id, old=old, new=new):
            await record(connection, PasswordUpgraded(at=self._clock.now(), source=source, user_id=user.id))
