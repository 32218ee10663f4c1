"""The key ring: the set of keys in force in this process.

    FixedRing      PEMs from the environment: known from the start, never changes
    DatabaseRing   rows of `latchstring_keys`, sealed under the secret; re-read with the revocation feed

`current` is a read of an attribute. A set that did not change stays the same object, so that each PEM is parsed
once and what was verified against it stays known.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from latchstring.core.tokens import store
from latchstring.core.tokens.keys import KeySet, make_private_pem, public_pem, token_key
from latchstring.core.tokens.rules import KeyState, key_state
from latchstring.core.tokens.settings import Algorithm
from latchstring.core.tokens.store import StoredKey
from latchstring.errors import ConfigurationError, KeysUnavailableError
from latchstring.foundation.audit import SYSTEM, Fact, record
from latchstring.foundation.clock import Clock
from latchstring.foundation.crypto import SealedValueError, Vault
from latchstring.foundation.database import Connection, Database, lock_exclusively

_CHECK_CONTEXT = "secret-check"
_CHECK_TEXT = b"latchstring"


@dataclass(frozen=True, slots=True)
class ListedKey:
    """A key as an operator sees it; the environment's keys have no dates."""

    kid: str
    algorithm: Algorithm
    state: KeyState
    source: str
    published_at: datetime | None = None
    signs_from: datetime | None = None
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

    async def prepare(self) -> None:
        """Make what is missing: run once, before the workers start, by whoever serves."""
        ...

    async def reload(self, connection: Connection) -> None:
        """Read the keys again."""
        ...

    async def list_keys(self) -> list[ListedKey]:
        """Return every key for an operator to look at, the oldest first."""
        ...


class FixedRing:
    """Keys that the environment gave."""

    def __init__(self, keys: KeySet) -> None:
        self._keys = keys

    @property
    def current(self) -> KeySet:
        """Return the keys given."""
        return self._keys

    async def prepare(self) -> None:
        """Do nothing: the environment's keys are made elsewhere."""

    async def reload(self, connection: Connection) -> None:
        """Do nothing: the environment does not change while a process runs."""

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


class DatabaseRing:
    """Keys that the database holds."""

    def __init__(self, database: Database, vault: Vault, *, algorithm: Algorithm, clock: Clock) -> None:
        self._database = database
        self._vault = vault
        self._algorithm = algorithm
        self._clock = clock
        self._keys: KeySet | None = None
        self._read_from: tuple[StoredKey, ...] = ()

    @property
    def current(self) -> KeySet:
        """Return the keys in force; before the first `reload`, refuse."""
        if self._keys is None:
            raise KeysUnavailableError("the keys have not been read yet")
        return self._keys

    async def prepare(self) -> None:
        """Check the secret against the database's mark, and make the first key where there is none.

        Raises:
            ConfigurationError: the database's keys were sealed under another secret.
        """
        async with self._database.transaction() as connection:
            await lock_exclusively(connection, "latchstring_keys")
            await self._check_secret(connection)
            stored = await store.all_keys(connection)
            if not any(self._could_sign(key) for key in stored):
                await self._create_key(connection)

    async def reload(self, connection: Connection) -> None:
        """Read the keys; where nothing changed, keep the very set."""
        now = self._clock.now()
        live = tuple(key for key in await store.all_keys(connection) if _state(key, now=now) is not KeyState.GONE)
        usable = [key for key in live if self._could_sign(key)]
        if not usable:
            raise KeysUnavailableError("the database holds no key that may sign: run latchstring migrate")
        active = [key for key in usable if _state(key, now=now) is KeyState.ACTIVE]
        # No key is active yet where the first was made a moment ago, by an instance whose clock is ahead of ours.
        newest = max(active, key=_signs_from) if active else min(usable, key=_signs_from)
        if self._keys is not None and live == self._read_from and self._keys.signing.kid == newest.kid:
            return
        verifying = {key.kid: token_key(key.public_pem.encode(), key.algorithm, name=f"key {key.kid}") for key in live}
        private = token_key(self._open(newest), newest.algorithm, name=f"key {newest.kid}", is_our_own=True)
        self._keys = KeySet(signing=private, verifying=verifying)
        self._read_from = live

    async def list_keys(self) -> list[ListedKey]:
        """Return every row, with the state it is in now."""
        now = self._clock.now()
        async with self._database.reading() as connection:
            return [
                ListedKey(
                    kid=key.kid,
                    algorithm=key.algorithm,
                    state=_state(key, now=now),
                    source="database",
                    published_at=key.published_at,
                    signs_from=key.signs_from,
                    verifies_until=key.verifies_until,
                )
                for key in await store.all_keys(connection)
            ]

    def _could_sign(self, key: StoredKey) -> bool:
        return key.algorithm is self._algorithm and key.retired_at is None

    async def _check_secret(self, connection: Connection) -> None:
        checks = await store.secret_checks(connection)
        if not checks:
            sealed = self._vault.seal(_CHECK_TEXT, context=_CHECK_CONTEXT)
            await store.insert_secret_check(
                connection, secret_id=self._vault.secret_id, check_sealed=sealed, now=self._clock.now()
            )
            return
        try:
            self._vault.open(checks.get(self._vault.secret_id, b""), context=_CHECK_CONTEXT)
        except SealedValueError:
            raise ConfigurationError(
                "LATCHSTRING_SECRET is not the one this database's keys were sealed under: set that one"
            ) from None

    async def _create_key(self, connection: Connection) -> None:
        now = self._clock.now()
        pem = make_private_pem(self._algorithm)
        made = token_key(pem, self._algorithm, name="the new key", is_our_own=True)
        await store.insert_key(
            connection,
            StoredKey(
                kid=made.kid,
                algorithm=self._algorithm,
                public_pem=public_pem(made),
                private_sealed=self._vault.seal(pem, context=f"key {made.kid}"),
                secret_id=self._vault.secret_id,
                published_at=now,
                signs_from=now,
                verifies_until=None,
                retired_at=None,
            ),
        )
        await record(connection, Fact.KEY_CREATED, now=now, source=SYSTEM, reason=self._algorithm.value)

    def _open(self, key: StoredKey) -> bytes:
        try:
            return self._vault.open(key.private_sealed, context=f"key {key.kid}")
        except SealedValueError:
            raise KeysUnavailableError(
                "the signing key was sealed under another LATCHSTRING_SECRET: set that one"
            ) from None


def _signs_from(key: StoredKey) -> datetime:
    return key.signs_from


def _state(key: StoredKey, *, now: datetime) -> KeyState:
    return key_state(signs_from=key.signs_from, retired_at=key.retired_at, verifies_until=key.verifies_until, now=now)
