"""Register, sign in with a password, confirm who one is with it, and change it."""

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
from latchstring.errors import Code, Refused
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
from latchstring.foundation.passwords import PasswordHasher, Verdict


@dataclass(frozen=True, slots=True)
class Checked:
    """A password that was compared with a user's hash, and the place that the try has taken in the limits."""

    user: User | None
    password_hash: str | None
    verdict: Verdict
    reservation: Reservation
    proof: Proof | None
    """Of the user; None where the password was wrong, or there is nobody."""

    @property
    def returnable(self) -> Reservation:
        """The place that a right password has taken: if its try comes to nothing, it was no failure."""
        return self.reservation if self.proof else Reservation()


class Passwords:
    """The password room's verbs."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        hasher: PasswordHasher,
        limits: Limits,
        *,
        sign_in: SignIn,
    ) -> None:
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
        """Create an account and sign its owner in; all of it or nothing. The session of `former` tokens ends then."""
        full = self._limits.refuses_registration(address=source.address)
        if full is not None:
            return full
        async with self._database.transaction() as connection:
            reservation = await self._limits.reserve_registration(connection, address=source.address)
        if isinstance(reservation, Refused):
            return reservation
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
        """Create an account for somebody else, with no session."""
        password_hash = await self._hasher.hash(password)
        async with self._database.transaction() as connection:
            user = await self._insert(connection, email, first_name, last_name, password_hash, source=source)
        return Refused(Code.EMAIL_TAKEN) if user is None else user

    async def sign_in(
        self, *, email: str, password: str, former: Iterable[str] = (), source: Source
    ) -> SignedIn | Refused:
        """Sign in; one response for an unknown email, a wrong password, no password and a disabled user.

        The session of the `former` tokens, which the browser has, ends once that is done.
        """
        checked = await self._check(email, password, source=source)
        if isinstance(checked, Refused):
            return checked
        return await self._create_session(checked, await self._hook_claims(checked), former=former, source=source)

    async def _create_session(
        self, checked: Checked, hook_claims: HookClaims | None, *, former: Iterable[str] = (), source: Source
    ) -> SignedIn | Refused:
        async with self._released_on_error(checked.returnable), self._database.transaction() as connection:
            if checked.proof is None:
                return await self._refuse(connection, checked.user, source=source)
            admitted = await self._sign_in.create_session(connection, checked.proof, source=source)
            if isinstance(admitted, Refused):
                return await self._refuse(connection, checked.user, source=source)
            await self._accept(connection, checked, source=source)
        return await self._sign_in.issue_tokens(admitted, hook_claims=hook_claims, former=former, source=source)

    async def confirm(
        self, caller: Caller, *, password: str, bearer: RefreshClaims | None, source: Source
    ) -> SignedIn | Refused:
        """Prove the caller's session anew by the password; by a reused refresh token of it, sign in instead."""
        checked = await self._check(caller, password, source=source)
        if isinstance(checked, Refused):
            return checked
        hook_claims = await self._hook_claims(checked)
        async with self._released_on_error(checked.returnable), self._database.transaction() as connection:
            if checked.proof is None:
                return await self._refuse(connection, checked.user, source=source)
            admitted = await self._sign_in.confirm(connection, checked.proof, caller, bearer=bearer, source=source)
            if isinstance(admitted, Refused):
                return await self._refuse_after_proof(connection, checked, admitted, source=source)
            if not isinstance(admitted, Stolen):
                await self._accept(connection, checked, source=source)
        if isinstance(admitted, Stolen):
            self._sign_in.announce(admitted)
            return await self._create_session(checked, hook_claims, source=source)
        return await self._sign_in.issue_tokens(admitted, hook_claims=hook_claims, source=source)

    async def change_password(
        self, caller: Caller, *, current_password: str, new_password: str, source: Source
    ) -> SignedIn | Refused:
        """Put a new password in the current one's place; end every session, and give the caller a new one."""
        checked = await self._check(caller, current_password, source=source)
        if isinstance(checked, Refused):
            return checked
        hook_claims = await self._hook_claims(checked)
        async with self._released_on_error(checked.reservation):
            new_hash = await self._hasher.hash(new_password) if checked.proof else None
        async with self._released_on_error(checked.returnable), self._database.transaction() as connection:
            if checked.proof is None or new_hash is None:
                return await self._refuse(connection, checked.user, source=source)
            reason = RevocationReason.PASSWORD_CHANGED
            admitted = await self._sign_in.replace_sessions(
                connection, checked.proof, caller, reason=reason, source=source
            )
            if isinstance(admitted, Refused):
                return await self._refuse_after_proof(connection, checked, admitted, source=source)
            now, user_id = self._clock.now(), admitted.user.id
            await store.change_hash(connection, user_id, password_hash=new_hash, now=now)
            # A sign-in with the old password whose hash still runs must open nothing.
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
        """Count the try, and compare the password with the hash of an address's or a caller's user.

        Counted first, in a transaction of its own: whoever hangs up while the hash runs has had the try.
        """
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
            if isinstance(who, Caller):
                user, password_hash = await store.hash_of_user(connection, who.user_id)
            else:
                user, password_hash = await store.user_and_hash(connection, who)
        proven_at = self._clock.now()
        async with self._released_on_error(reservation):
            verdict = await self._hasher.verify(password, password_hash)
        proof = Proof(user=user, method=Method.PASSWORD, proven_at=proven_at) if user and verdict.matches else None
        return Checked(user=user, password_hash=password_hash, verdict=verdict, reservation=reservation, proof=proof)

    async def _hook_claims(self, checked: Checked) -> HookClaims | None:
        """Ask the application's hook before anything is changed: it may fail."""
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
        except Exception:
            # No password was found wrong: neither an overload nor what an application has broken may lock anybody out.
            async with self._database.transaction() as connection:
                await self._limits.release(connection, reservation)
            raise

    async def _accept(self, connection: Connection, checked: Checked, *, source: Source) -> None:
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
        """Refuse a right password that comes to nothing: only one that was void by then counts as a failure."""
        if refused.code is Code.INVALID_CREDENTIALS:
            return await self._refuse(connection, checked.user, source=source)
        await self._limits.release(connection, checked.reservation)
        return refused

    async def _refuse(self, connection: Connection, user: User | None, *, source: Source) -> Refused:
        # Written for an unknown address as well: an answer that costs one write less would tell which ones exist.
        user_id = user.id if user else None
        event = SignInRefused(at=self._clock.now(), source=source, user_id=user_id, method=Method.PASSWORD)
        await record(connection, event)
        return Refused(Code.INVALID_CREDENTIALS)

    async def _upgrade(self, connection: Connection, user: User, *, old: str, new: str, source: Source) -> None:
        if await store.replace_hash(connection, user.id, old=old, new=new):
            await record(connection, PasswordUpgraded(at=self._clock.now(), source=source, user_id=user.id))
