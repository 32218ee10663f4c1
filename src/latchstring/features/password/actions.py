"""Register, and sign in with a password."""

from latchstring.core.accounts import store as accounts
from latchstring.core.accounts.rules import User
from latchstring.core.sessions.actions import SignedIn
from latchstring.core.sign_in.actions import SignIn
from latchstring.core.sign_in.rules import Method, Proof
from latchstring.errors import Code, Refused
from latchstring.features.password import store
from latchstring.foundation.audit import Fact, Source, record
from latchstring.foundation.clock import Clock
from latchstring.foundation.database import Connection, Database
from latchstring.foundation.passwords import PasswordHasher


class Passwords:
    """The password room's verbs."""

    def __init__(self, database: Database, clock: Clock, hasher: PasswordHasher, sign_in: SignIn) -> None:
        self._database = database
        self._clock = clock
        self._hasher = hasher
        self._sign_in = sign_in

    async def register_user(
        self, *, email: str, first_name: str, last_name: str, password: str, source: Source
    ) -> SignedIn | Refused:
        """Create an account and sign its owner in; all of it or nothing."""
        password_hash = await self._hasher.hash(password)
        async with self._database.transaction() as connection:
            user = await self._insert(connection, email, first_name, last_name, password_hash, source=source)
            if user is None:
                return Refused(Code.EMAIL_TAKEN)
            proof = Proof(user=user, method=Method.PASSWORD, proven_at=user.created_at)
            opened = await self._sign_in.open(connection, proof, source=source)
        return opened if isinstance(opened, Refused) else await self._sign_in.welcome(opened)

    async def create_user(
        self, *, email: str, first_name: str, last_name: str, password: str, source: Source
    ) -> User | Refused:
        """Create an account for somebody else, with no session."""
        password_hash = await self._hasher.hash(password)
        async with self._database.transaction() as connection:
            user = await self._insert(connection, email, first_name, last_name, password_hash, source=source)
        return Refused(Code.EMAIL_TAKEN) if user is None else user

    async def sign_in(self, *, email: str, password: str, source: Source) -> SignedIn | Refused:
        """Sign in; one answer for an unknown address, a wrong password, no password and a disabled user."""
        async with self._database.reading() as connection:
            user, password_hash = await store.user_and_hash(connection, email)
        proven_at = self._clock.now()
        verdict = await self._hasher.verify(password, password_hash)
        async with self._database.transaction() as connection:
            if user is None or not verdict.matches:
                return await self._refuse(connection, user, source=source)
            proof = Proof(user=user, method=Method.PASSWORD, proven_at=proven_at)
            opened = await self._sign_in.open(connection, proof, source=source)
            if isinstance(opened, Refused):
                return await self._refuse(connection, user, source=source)
            if verdict.upgraded_hash is not None and password_hash is not None:
                await self._upgrade(connection, user, old=password_hash, new=verdict.upgraded_hash, source=source)
        return await self._sign_in.welcome(opened)

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
            await record(connection, Fact.USER_REGISTERED, now=now, source=source, user_id=user.id)
        return user

    async def _refuse(self, connection: Connection, user: User | None, *, source: Source) -> Refused:
        # Written for an unknown address as well: an answer that costs one write less would tell which ones exist.
        await record(
            connection,
            Fact.SIGN_IN_REFUSED,
            now=self._clock.now(),
            source=source,
            user_id=user.id if user else None,
            reason=Method.PASSWORD,
        )
        return Refused(Code.INVALID_CREDENTIALS)

    async def _upgrade(self, connection: Connection, user: User, *, old: str, new: str, source: Source) -> None:
        if await store.replace_hash(connection, user.id, old=old, new=new):
            await record(connection, Fact.PASSWORD_UPGRADED, now=self._clock.now(), source=source, user_id=user.id)
