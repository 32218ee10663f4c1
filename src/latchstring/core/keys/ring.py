"""The key ring: the set of keys in force in this process.

    EnvironmentRing      PEMs from the environment: known from the start, never changes
    DatabaseRing   rows of `latchstring_keys`, sealed under the secret; re-read when the feed sees that one changed

`current` is a read of an attribute. A set that did not change stays the same object, so that each PEM is parsed
once and what was verified against it stays known.
"""

from asyncio import sleep
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from latchstring.core.keys import store
from latchstring.core.keys.key_set import KeySet, TokenKey, token_key
from latchstring.core.keys.rotation import KeyState, signing_key
from latchstring.core.keys.settings import Algorithm
from latchstring.core.keys.store import StoredKey
from latchstring.errors import ConfigurationError, KeysUnavailableError, UnavailableError
from latchstring.foundation.clock import Clock
from latchstring.foundation.database import Connection, Database
from latchstring.foundation.loop_lock import LoopLock
from latchstring.foundation.vault import SealedValueError, Vault

CATCH_UP_INTERVAL_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class ListedKey:
    """A key as an operator sees it; the environment's keys have no dates."""

    kid: str
    algorithm: Algorithm
    state: KeyState
    source: str
    published_at: datetime | None = None
    signs_from: datetime | None = None
    retired_at: datetime | None = None
    verifies_until: datetime | None = None


class KeyRing(Protocol):
    """Where the keys in force come from."""

    @property
    def current(self) -> KeySet:
        """Return the keys in force.

        Raises:
            KeysUnavailableError: not read yet.
        """
        ...

    async def reload(self, connection: Connection, *, revision: int | None = None) -> None:
        """Read the keys again, if `revision` is not the one they were read at."""
        ...

    def advance(self) -> None:
        """Let keys come and go whose time has come, without reading anything."""
        ...

    async def catch_up(self, *, is_urgent: bool = False) -> None:
        """Read the keys for somebody who misses one; at most once a second, unless it `is_urgent`."""
        ...

    async def catch_up_anew(self) -> None:
        """Wait for a read that begins after this call: in a second at most, and one for all who wait.

        Raises:
            UnavailableError: that read failed.
        """
        ...

    async def list_keys(self) -> list[ListedKey]:
        """Return every key for an operator to look at, the oldest first."""
        ...

    def ended_at_once(self) -> list[str]:
        """Return the names of keys that were retired at once: whoever holds them from before must drop them."""
        ...


class EnvironmentRing:
    """Keys that the environment gave."""

    def __init__(self, keys: KeySet) -> None:
        self._keys = keys

    @property
    def current(self) -> KeySet:
        """Return the keys given."""
        return self._keys

    async def reload(self, connection: Connection, *, revision: int | None = None) -> None:
        """Do nothing: the environment does not change while a process runs."""

    def advance(self) -> None:
        """Do nothing: likewise."""

    async def catch_up(self, *, is_urgent: bool = False) -> None:
        """Do nothing: likewise."""

    async def catch_up_anew(self) -> None:
        """Do nothing: likewise."""

    async def list_keys(self) -> list[ListedKey]:
        """Return the key that signs, and those that only verify."""
        signing = self._keys.signing.kid
        return [
            ListedKey(
                kid=kid,
                algorithm=key.algorithm,
                state=KeyState.ACTIVE if kid == signing else KeyState.RETIRED,
                source="environment",
            )
            for kid, key in self._keys.verifying.items()
        ]

    def ended_at_once(self) -> list[str]:
        """Return none: what is no longer given is not known here."""
        return []


@dataclass(frozen=True, slots=True)
class _WaitedRead:
    """What became of the last read that somebody waited for."""

    number: int
    succeeded: bool


class DatabaseRing:
    """Keys that the database holds."""

    def __init__(self, database: Database, vault: Vault, clock: Clock) -> None:
        self._database = database
        self._vault = vault
        self._clock = clock
        self._keys: KeySet | None = None
        self._rows: list[StoredKey] = []
        self._revision: int | None = None
        self._private: dict[str, TokenKey] = {}
        # One at a time: of two, the one that read earlier must not have the last word.
        self._read_lock = LoopLock()
        self._caught_up_at: float | None = None
        self._wait_lock = LoopLock()
        self._begun = 0
        self._last = _WaitedRead(number=0, succeeded=True)

    @property
    def current(self) -> KeySet:
        """Return the keys in force; before the first `reload`, refuse."""
        if self._keys is None:
            raise KeysUnavailableError("the keys have not been read yet")
        return self._keys

    async def reload(self, connection: Connection, *, revision: int | None = None) -> None:
        """Read the keys, unless they are those of `revision`; where nothing changed, keep the very set."""
        if revision is None or revision != self._revision:
            async with self._read_lock:
                await self._read(connection)

    def advance(self) -> None:
        """Let keys come and go whose time has come."""
        if self._keys is not None:
            self._choose(self._rows)

    async def catch_up(self, *, is_urgent: bool = False) -> None:
        """Read the keys; unless it is urgent, once for all who ask at the same time, and at most once a second."""
        async with self._read_lock:
            since = self._clock.uptime() - CATCH_UP_INTERVAL_SECONDS
            if not is_urgent and self._caught_up_at is not None and self._caught_up_at > since:
                return
            try:
                async with self._database.reading() as connection:
                    await self._read(connection)
            finally:
                # Counted from its end, so that those who wait for one that fails do not each try again.
                self._caught_up_at = self._clock.uptime()

    async def catch_up_anew(self) -> None:
        """Wait for a read that begins after this call: in a second at most, and one for all who wait."""
        begun_before = self._begun
        async with self._wait_lock:
            if self._last.number <= begun_before:
                await self._catch_up_when_due()
            elif not self._last.succeeded:
                raise KeysUnavailableError("the keys could not be read a moment ago")

    async def _catch_up_when_due(self) -> None:
        now = self._clock.uptime()
        due = now if self._caught_up_at is None else max(now, self._caught_up_at + CATCH_UP_INTERVAL_SECONDS)
        # Taken from now on, so that no other read comes in between.
        self._caught_up_at = due
        await sleep(due - now)
        self._begun += 1
        try:
            await self.catch_up(is_urgent=True)
        except UnavailableError:
            self._last = _WaitedRead(number=self._begun, succeeded=False)
            raise
        self._last = _WaitedRead(number=self._begun, succeeded=True)

    async def _read(self, connection: Connection) -> None:
        # The number first: what changes meanwhile has another one, and is read the next time.
        revision = await store.revision(connection)
        rows = await store.all_keys(connection)
        self._choose(rows)
        self._rows, self._revision = rows, revision

    async def list_keys(self) -> list[ListedKey]:
        """Return every row, with the state it is in now."""
        now = self._clock.now()
        async with self._database.reading() as connection:
            return [
                ListedKey(
                    kid=key.kid,
                    algorithm=key.algorithm,
                    state=key.state(now=now),
                    source="database",
                    published_at=key.published_at,
                    signs_from=key.signs_from,
                    retired_at=key.retired_at,
                    verifies_until=key.verifies_until,
                )
                for key in await store.all_keys(connection)
            ]

    def ended_at_once(self) -> list[str]:
        """Return the names of keys that were retired at once, as of the last look at the database."""
        return [key.kid for key in self._rows if key.is_ended_at_once]

    def _choose(self, rows: list[StoredKey]) -> None:
        now = self._clock.now()
        live = [key for key in rows if key.state(now=now) is not KeyState.GONE]
        signing = signing_key(live, now=now)
        if signing is None:
            # None of those of before either, of which one may have been retired a moment ago.
            self._keys = None
            raise KeysUnavailableError("the database holds no key that may sign: run latchstring migrate")
        names = [key.kid for key in live]
        if self._keys is not None and list(self._keys.verifying) == names and self._keys.signing.kid == signing.kid:
            return
        try:
            verifying = {key.kid: self._public_half(key) for key in live}
            # Those that will sign are opened with the others: when their time comes, the loop is not held for it.
            private = {
                key.kid: self._private_half(key)
                for key in live
                if key.kid == signing.kid or key.state(now=now) is KeyState.PENDING
            }
        except KeysUnavailableError:
            # What was known goes on, but never a key that has ended: it may have been stolen.
            if self._keys is not None and not self._keys.verifying.keys() <= set(names):
                self._keys = None
            raise
        self._keys = KeySet(signing=private[signing.kid], verifying=verifying)
        self._private = private

    def _public_half(self, key: StoredKey) -> TokenKey:
        known = None if self._keys is None else self._keys.verifying.get(key.kid)
        if known is not None:
            return known
        # Its name is what the seal of its private half is bound to: a key that was put there by somebody who can write
        # to the database, but does not know the secret, verifies nothing.
        self._unsealed(key)
        public = token_key(key.public_pem.encode(), key.algorithm, name=f"key {key.kid}")
        if public.kid != key.kid:
            raise KeysUnavailableError(f"the public half of key {key.kid} is another key's")
        return public

    def _private_half(self, key: StoredKey) -> TokenKey:
        known = self._private.get(key.kid)
        if known is not None:
            return known
        try:
            return token_key(self._unsealed(key), key.algorithm, name=f"key {key.kid}", is_our_own=True)
        except ConfigurationError:
            raise KeysUnavailableError(f"the private half of key {key.kid} can't be used") from None

    def _unsealed(self, key: StoredKey) -> bytes:
        try:
            return self._vault.unseal(key.private_sealed, context=seal_context(key.kid))
        except SealedValueError:
            raise KeysUnavailableError("a key was sealed under another LATCHSTRING_SECRET: set that one") from None


def seal_context(kid: str) -> str:
    """Return what a private half's seal is bound to."""
    return f"key {kid}"
