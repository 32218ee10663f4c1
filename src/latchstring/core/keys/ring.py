"""The key ring: the set of keys in force in this process.

    EnvironmentRing  PEMs from the environment; never changes while the process runs
    DatabaseRing     rows of `latchstring_keys`, sealed under the secret; re-read when a poll sees that one changed

`current` only reads an attribute. A set that did not change stays the same object, so that each PEM is parsed
once, and tokens verified with the set stay in the cache.
"""

from asyncio import Task, create_task, sleep, wait
from dataclasses import dataclass
from datetime import datetime
from math import nan
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
from latchstring.foundation.measurements import UNMETERED, Meter, Metric
from latchstring.foundation.vault import SealedValueError, Vault

# Tokens with made-up kids must not become queries: one read a second, however many there are (PYSEC-2026-177).
CATCH_UP_INTERVAL_SECONDS = 1.0
_CATCH_UP_SECONDS = 5.0
"""How long a sign-out waits for the keys at most."""


@dataclass(frozen=True, slots=True)
class ListedKey:
    """A key as listed for an operator; keys from the environment have no dates."""

    kid: str
    algorithm: Algorithm
    state: KeyState
    source: str
    published_at: datetime | None = None
    signs_from: datetime | None = None
    retired_at: datetime | None = None
    verifies_until: datetime | None = None


class KeyRing(Protocol):
    """A source of the keys in force."""

    @property
    def current(self) -> KeySet:
        """Return the keys in force.

        Raises:
            KeysUnavailableError: the keys have not been read yet.
        """
        ...

    async def reload(self, connection: Connection, *, revision: int | None = None) -> None:
        """Read the keys again, unless they were read at `revision`."""
        ...

    def advance(self) -> None:
        """Recompute which keys are in force now. No I/O."""
        ...

    async def catch_up(self, *, is_urgent: bool = False) -> None:
        """Read the keys because a token names an unknown one; at most once a second, unless it `is_urgent`."""
        ...

    async def catch_up_anew(self) -> None:
        """Wait for a read that begins after this call: at most a second, and one read for all callers.

        Raises:
            UnavailableError: that read failed.
        """
        ...

    async def list_keys(self) -> list[ListedKey]:
        """Return every key for an operator, the oldest first."""
        ...

    def ended_at_once(self) -> list[str]:
        """Return the `kid`s of keys that were retired at once: other services must drop their copies."""
        ...


class EnvironmentRing:
    """Keys from the environment. Reading them again does nothing: they do not change while the process runs."""

    def __init__(self, keys: KeySet) -> None:
        self._keys = keys

    @property
    def current(self) -> KeySet:
        """Return the configured keys."""
        return self._keys

    async def reload(self, connection: Connection, *, revision: int | None = None) -> None:
        """Do nothing."""

    def advance(self) -> None:
        """Do nothing."""

    async def catch_up(self, *, is_urgent: bool = False) -> None:
        """Do nothing."""

    async def catch_up_anew(self) -> None:
        """Do nothing."""

    async def list_keys(self) -> list[ListedKey]:
        """Return the signing key, and the keys that only verify."""
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
        """Return an empty list: a key that was removed from the environment is unknown here."""
        return []


@dataclass(frozen=True, slots=True)
class _WaitedRead:
    """The outcome of the last read that callers of `catch_up_anew` waited for."""

    number: int
    succeeded: bool


class DatabaseRing:
    """Keys from the database, private halves sealed under the secret."""

    def __init__(self, database: Database, vault: Vault, clock: Clock, *, meter: Meter = UNMETERED) -> None:
        self._meter = meter
        self._database = database
        self._vault = vault
        self._clock = clock
        self._keys: KeySet | None = None
        self._rows: list[StoredKey] = []
        self._revision: int | None = None
        self._private: dict[str, TokenKey] = {}
        # One read at a time: the earlier of two must not overwrite the result of the later one.
        self._read_lock = LoopLock()
        self._catch_up_lock = LoopLock()
        self._caught_up_at: float | None = None
        self._wait_lock = LoopLock()
        self._begun = 0
        self._last = _WaitedRead(number=0, succeeded=True)

    @property
    def current(self) -> KeySet:
        """Return the keys in force; before the first `reload`, raise KeysUnavailableError."""
        if self._keys is None:
            raise KeysUnavailableError("the keys have not been read yet")
        return self._keys

    async def reload(self, connection: Connection, *, revision: int | None = None) -> None:
        """Read the keys, unless they were read at `revision`; if nothing changed, keep the same set object."""
        if revision is None or revision != self._revision:
            async with self._read_lock:
                await self._read(connection)

    def advance(self) -> None:
        """Recompute which keys are in force now. No I/O."""
        if self._keys is not None:
            self._choose(self._rows)

    async def catch_up(self, *, is_urgent: bool = False) -> None:
        """Read the keys; unless it is urgent, once for all concurrent callers, and at most once a second."""
        async with self._catch_up_lock:
            since = self._clock.uptime() - CATCH_UP_INTERVAL_SECONDS
            if not is_urgent and self._caught_up_at is not None and self._caught_up_at > since:
                return
            try:
                # The connection before the lock in `reload`, in the order in which a poll takes both.
                async with self._database.reading_apart() as connection:
                    await self.reload(connection)
            finally:
                # Counted from its end, so that the callers waiting for a read that fails do not each try again.
                self._caught_up_at = self._clock.uptime()

    async def catch_up_anew(self) -> None:
        """Wait for a read that begins after this call: at most a second, and one read for all callers."""
        # A sign-out must not use a read that is up to a second old: its token's key could be newer, and the response
        # would report success although the session stays active.
        caught_up = create_task(self._catch_up_after(self._begun))
        caught_up.add_done_callback(_retrieve_exception)
        # Left to itself and not cancelled, which the driver would wait for: the turns before this one, the pause and
        # the read have limits of their own, which together are ten seconds while the database hangs.
        done, _ = await wait([caught_up], timeout=_CATCH_UP_SECONDS)
        if not done:
            raise KeysUnavailableError("the keys could not be read in time")
        await caught_up

    async def _catch_up_after(self, begun_before: int) -> None:
        async with self._wait_lock:
            if self._last.number <= begun_before:
                await self._catch_up_when_due()
            elif not self._last.succeeded:
                raise KeysUnavailableError("the keys could not be read a moment ago")

    async def _catch_up_when_due(self) -> None:
        now = self._clock.uptime()
        due = now if self._caught_up_at is None else max(now, self._caught_up_at + CATCH_UP_INTERVAL_SECONDS)
        # Reserve the slot before sleeping, so that no other read begins in between.
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
        # The revision first: a change between the two reads has a higher one, and is read the next time.
        revision = await store.revision(connection)
        rows = await store.all_keys(connection)
        self._choose(rows)
        self._rows, self._revision = rows, revision

    async def list_keys(self) -> list[ListedKey]:
        """Return every key with its state now, the oldest first."""
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
        """Return the `kid`s of keys that were retired at once, as of the last read."""
        return [key.kid for key in self._rows if key.is_ended_at_once]

    def _choose(self, rows: list[StoredKey]) -> None:
        now = self._clock.now()
        live = [key for key in rows if key.state(now=now) is not KeyState.GONE]
        signing = signing_key(live, now=now)
        if signing is None:
            # Not even the previous set stays in use: one of its keys may have been retired because it was stolen.
            self._keys = None
            raise KeysUnavailableError("the database holds no key that may sign: run latchstring migrate")
        names = [key.kid for key in live]
        if self._keys is not None and list(self._keys.verifying) == names and self._keys.signing.kid == signing.kid:
            return
        try:
            verifying = {key.kid: self._public_half(key) for key in live}
            # Pending keys are unsealed now, so that the event loop is not held when they begin to sign.
            private = {
                key.kid: self._private_half(key)
                for key in live
                if key.kid == signing.kid or key.state(now=now) is KeyState.PENDING
            }
        except KeysUnavailableError:
            # The previous set stays in use, unless one of its keys has ended: that key may have been stolen.
            if self._keys is not None and not self._keys.verifying.keys() <= set(names):
                self._keys = None
            raise
        self._keys = KeySet(signing=private[signing.kid], verifying=verifying)
        self._private = private
        self._note_ages(live, now=now)

    def _note_ages(self, live: list[StoredKey], *, now: datetime) -> None:
        for state in (KeyState.PENDING, KeyState.ACTIVE, KeyState.RETIRED):
            published = [key.published_at.timestamp() for key in live if key.state(now=now) is state]
            self._meter.gauge(Metric.KEY_AGE, min(published, default=nan), state)

    def _public_half(self, key: StoredKey) -> TokenKey:
        parsed = None if self._keys is None else self._keys.verifying.get(key.kid)
        if parsed is not None:
            return parsed
        # The seal of the private half is bound to the kid. An attacker who can write to the database, but does not have
        # the secret, can't add a key that verifies.
        self._unsealed(key)
        public = token_key(key.public_pem.encode(), key.algorithm, name=f"key {key.kid}")
        # The public half is not sealed: its thumbprint shows whether the column was changed to an attacker's key.
        if public.kid != key.kid:
            raise KeysUnavailableError(f"the public half of key {key.kid} belongs to another key")
        return public

    def _private_half(self, key: StoredKey) -> TokenKey:
        parsed = self._private.get(key.kid)
        if parsed is not None:
            return parsed
        try:
            return token_key(self._unsealed(key), key.algorithm, name=f"key {key.kid}", is_our_own=True)
        except ConfigurationError:
            raise KeysUnavailableError(f"the private half of key {key.kid} can't be used") from None

    def _unsealed(self, key: StoredKey) -> bytes:
        try:
            return self._vault.unseal(key.private_sealed, context=seal_context(key.kid))
        except SealedValueError:
            raise KeysUnavailableError("a key was sealed under another LATCHSTRING_SECRET: set that one") from None


def _retrieve_exception(task: "Task[None]") -> None:
    # A caller that has left does not: asyncio would log the error as "never retrieved".
    if not task.cancelled():
        task.exception()


def seal_context(kid: str) -> str:
    """Return the context that binds a sealed private half to its row."""
    return f"key {kid}"
