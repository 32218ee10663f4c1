"""What can be done with keys: prepare, rotate, retire, and tend while the service runs.

EnvironmentKeys      PEMs from the environment: changed where they come from, and only there
DatabaseKeys   rows of the database; each verb is one transaction, under one lock for all keys of all instances
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import NoReturn, Protocol

from latchstring.core.keys import store
from latchstring.core.keys.key_set import make_private_pem, public_pem, token_key
from latchstring.core.keys.ring import seal_context
from latchstring.core.keys.rotation import (
    KeyChange,
    KeyConflict,
    KeyDates,
    is_due,
    living_longer,
    publication_lead,
    retirement,
    retirement_at_once,
    rotation,
    signing_key,
)
from latchstring.core.keys.settings import Algorithm
from latchstring.core.keys.store import StoredKey
from latchstring.errors import ConfigurationError
from latchstring.foundation.audit import record
from latchstring.foundation.clock import Clock
from latchstring.foundation.database import Connection, Database, lock_exclusively
from latchstring.foundation.events import (
    SYSTEM,
    KeyCreated,
    KeyRetired,
    KeyRetiredAtOnce,
    SecretChanged,
    Source,
)
from latchstring.foundation.vault import SealedValueError, Vault

LOCK = "latchstring_keys"

_CHECK_CONTEXT = "secret-check"
_CHECK_TEXT = b"latchstring"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KeyPolicy:
    """How keys are made, and when."""

    algorithm: Algorithm | None
    """Of new keys; None: that of the key that signs, RS256 for the first."""
    cache_life: timedelta
    """How long the published keys may be cached."""
    token_life: timedelta
    """How long the longest-lived token lives that is issued here."""
    max_age: timedelta | None
    """After which a signing key is replaced; None: never."""


@dataclass(frozen=True, slots=True)
class KeyDraft:
    """A new key that nobody has heard of yet."""

    kid: str
    algorithm: Algorithm
    public_pem: str
    private_sealed: bytes


class Keys(Protocol):
    """The verbs, wherever the keys are."""

    async def prepare(self) -> None:
        """Make what is missing: run before the workers start, by whoever serves."""
        ...

    async def maintain(self) -> None:
        """See that no key grows too old, nor ends before its tokens: run once a minute by every worker."""
        ...

    async def rotate(self, *, source: Source, dry_run: bool = False) -> KeyChange | KeyConflict:
        """Publish a new key that will take over the signing; return what changes, or why nothing does."""
        ...

    async def retire(self, kid: str, *, source: Source, dry_run: bool = False) -> KeyChange | KeyConflict:
        """End a key calmly: every token it signed holds until it expires."""
        ...

    async def draft(self) -> KeyDraft:
        """Make a key, off the event loop and before any transaction: that takes up to a second."""
        ...

    async def retire_at_once(
        self, connection: Connection, kid: str, draft: KeyDraft | None, *, source: Source
    ) -> KeyChange | KeyConflict:
        """End a key that was stolen, and all others with it, in the open transaction; without a draft, only tell."""
        ...


class EnvironmentKeys:
    """Keys that the environment gave."""

    async def prepare(self) -> None:
        """Do nothing: they are made elsewhere."""

    async def maintain(self) -> None:
        """Do nothing: likewise."""

    async def rotate(self, *, source: Source, dry_run: bool = False) -> NoReturn:  # noqa: ARG002 -- the protocol's
        """Say which variables to change."""
        raise ConfigurationError(
            "the keys come from the environment: rotate them there, in three roll-outs. 1: the next public key into "
            "JWT_EXTRA_PUBLIC_KEYS. 2: the next pair into JWT_PRIVATE_KEY and JWT_PUBLIC_KEY, the present public key "
            "into JWT_EXTRA_PUBLIC_KEYS. 3: that one out again, when its last token has expired"
        )

    async def retire(self, kid: str, *, source: Source, dry_run: bool = False) -> NoReturn:  # noqa: ARG002 -- likewise
        """Say which variables to change."""
        self._refuse_to_retire()

    async def draft(self) -> NoReturn:
        """Say which variables to change."""
        self._refuse_to_retire()

    async def retire_at_once(
        self,
        connection: Connection,  # noqa: ARG002 -- the protocol's
        kid: str,  # noqa: ARG002 -- likewise
        draft: KeyDraft | None,  # noqa: ARG002 -- likewise
        *,
        source: Source,  # noqa: ARG002 -- likewise
    ) -> NoReturn:
        """Say which variables to change."""
        self._refuse_to_retire()

    def _refuse_to_retire(self) -> NoReturn:
        raise ConfigurationError(
            "the keys come from the environment: take the key out of JWT_EXTRA_PUBLIC_KEYS, or, where it signs, put "
            "another pair into JWT_PRIVATE_KEY and JWT_PUBLIC_KEY; each instance refuses its tokens from its next "
            "start on"
        )


class DatabaseKeys:
    """Keys that the database holds."""

    def __init__(self, database: Database, vault: Vault, clock: Clock, *, policy: KeyPolicy) -> None:
        self._database = database
        self._vault = vault
        self._clock = clock
        self._policy = policy

    async def prepare(self) -> None:
        """Check the secret, seal anew what the previous one sealed, and make or rotate to the key that is wanted.

        A key of another algorithm than the settings' goes on signing until one of theirs has been published as long as
        in any rotation.

        Raises:
            ConfigurationError: the database's keys were sealed under another secret.
        """
        async with self._database.reading() as connection:
            wants_key = self._wants_key(await store.all_keys(connection))
        draft = await self.draft() if wants_key else None
        async with self._database.transaction() as connection:
            await lock_exclusively(connection, LOCK)
            await self._check_secret(connection)
            keys = await store.all_keys(connection)
            if draft is not None and self._wants_key(keys):
                await self._make_wanted(connection, keys, draft)
        await self._note_lives()

    async def maintain(self) -> None:
        """Note how long tokens and caches live here, and rotate the key that has signed for long enough.

        Raises:
            UnavailableError: the database was away; the next time will do.
        """
        await self._note_lives()
        if self._policy.max_age is None:
            return
        async with self._database.reading() as connection:
            due = is_due(await store.all_keys(connection), now=self._clock.now(), max_age=self._policy.max_age)
        if due and isinstance(await self.rotate(source=SYSTEM), KeyChange):
            _log.info("the signing key has its age: the next one is published, and will sign when every cache has it")

    async def rotate(self, *, source: Source, dry_run: bool = False) -> KeyChange | KeyConflict:
        """Publish a new key that will take over the signing; return what changes, or why nothing does."""
        draft = None if dry_run else await self.draft()
        async with self._database.transaction() as connection:
            await self._lock(connection)
            keys, now = await store.all_keys(connection), self._clock.now()
            plan = rotation(keys, now=now, lead=self._lead(keys))
            return await self._carried_out(connection, plan, draft, event=KeyRetired, source=source)

    async def retire(self, kid: str, *, source: Source, dry_run: bool = False) -> KeyChange | KeyConflict:
        """End a key calmly: every token it signed holds until it expires."""
        draft = None if dry_run else await self.draft()
        async with self._database.transaction() as connection:
            await self._lock(connection)
            keys, now = await store.all_keys(connection), self._clock.now()
            plan = retirement(keys, kid, now=now, lead=self._lead(keys))
            return await self._carried_out(connection, plan, draft, event=KeyRetired, source=source)

    async def draft(self) -> KeyDraft:
        """Make a key, off the event loop."""
        async with self._database.reading() as connection:
            keys = await store.all_keys(connection)
        return await asyncio.to_thread(self._new_draft, self._algorithm(keys))

    async def retire_at_once(
        self, connection: Connection, kid: str, draft: KeyDraft | None, *, source: Source
    ) -> KeyChange | KeyConflict:
        """End a key that was stolen, and all others with it, in the open transaction; without a draft, only tell."""
        await self._lock(connection)
        plan = retirement_at_once(await store.all_keys(connection), kid, now=self._clock.now())
        return await self._carried_out(connection, plan, draft, event=KeyRetiredAtOnce, source=source)

    async def _lock(self, connection: Connection) -> None:
        """Let nobody else change keys, and refuse to seal one under a secret that the others do not go by."""
        await lock_exclusively(connection, LOCK)
        if self._vault.secret_id not in await store.secret_checks(connection):
            raise ConfigurationError(
                "LATCHSTRING_SECRET is not the one this database's keys are sealed under: set that one, or, if it is "
                "to be changed, run latchstring migrate first"
            )

    async def _carried_out(
        self,
        connection: Connection,
        plan: KeyChange | KeyConflict,
        draft: KeyDraft | None,
        *,
        event: type[KeyRetired | KeyRetiredAtOnce],
        source: Source,
    ) -> KeyChange | KeyConflict:
        """Write what is planned; without a draft it is only told."""
        if isinstance(plan, KeyConflict) or draft is None:
            return plan
        now = self._clock.now()
        await store.update_dates(connection, plan.changed)
        for key in plan.changed:
            if key.retired_at is not None:
                await record(connection, event(at=now, source=source, kid=key.kid))
        if plan.new_signs_from is None:
            return plan
        await self._publish(connection, draft, signs_from=plan.new_signs_from, now=now, source=source)
        return replace(plan, new_kid=draft.kid)

    async def _publish(
        self, connection: Connection, draft: KeyDraft, *, signs_from: datetime, now: datetime, source: Source
    ) -> None:
        await store.insert_key(
            connection,
            StoredKey(
                kid=draft.kid,
                algorithm=draft.algorithm,
                public_pem=draft.public_pem,
                private_sealed=draft.private_sealed,
                secret_id=self._vault.secret_id,
                published_at=now,
                signs_from=signs_from,
                retired_at=None,
                verifies_until=None,
                token_life=self._policy.token_life,
                cache_life=self._policy.cache_life,
            ),
        )
        await record(connection, KeyCreated(at=now, source=source, kid=draft.kid))

    def _new_draft(self, algorithm: Algorithm) -> KeyDraft:
        while True:
            pem = make_private_pem(algorithm)
            made = token_key(pem, algorithm, name="the new key", is_our_own=True)
            # One name of 64 begins with a hyphen, and would be taken for an option by `keys retire`, in an emergency.
            if not made.kid.startswith("-"):
                break
        sealed = self._vault.seal(pem, context=seal_context(made.kid))
        return KeyDraft(kid=made.kid, algorithm=algorithm, public_pem=public_pem(made), private_sealed=sealed)

    def _algorithm(self, keys: Sequence[KeyDates]) -> Algorithm:
        if self._policy.algorithm is not None:
            return self._policy.algorithm
        signing = signing_key(keys, now=self._clock.now())
        return Algorithm.RS256 if signing is None else signing.algorithm

    def _lead(self, keys: Sequence[KeyDates]) -> timedelta:
        return publication_lead(keys, cache_life=self._policy.cache_life)

    def _wants_key(self, keys: Sequence[KeyDates]) -> bool:
        """Tell whether there is no key, or the last one is of another algorithm than the settings'."""
        wanted = self._algorithm(keys)
        return not any(key.algorithm is wanted for key in keys if key.retired_at is None)

    async def _make_wanted(self, connection: Connection, keys: Sequence[KeyDates], draft: KeyDraft) -> None:
        now = self._clock.now()
        if signing_key(keys, now=now) is None:
            await self._publish(connection, draft, signs_from=now, now=now, source=SYSTEM)
            return
        plan = rotation(keys, now=now, lead=self._lead(keys))
        if isinstance(plan, KeyChange):
            await self._carried_out(connection, plan, draft, event=KeyRetired, source=SYSTEM)
            _log.info("a key for %s is published, and signs from %s", draft.algorithm, plan.new_signs_from)
        else:
            _log.warning("no key for %s is made: %s; start again when it is over", draft.algorithm, plan)

    async def _note_lives(self) -> None:
        async with self._database.reading() as connection:
            if not self._living_longer(await store.all_keys(connection)):
                return
        async with self._database.transaction() as connection:
            await lock_exclusively(connection, LOCK)
            await store.update_dates(connection, self._living_longer(await store.all_keys(connection)))

    def _living_longer(self, keys: Sequence[KeyDates]) -> tuple[KeyDates, ...]:
        policy = self._policy
        return living_longer(keys, now=self._clock.now(), token_life=policy.token_life, cache_life=policy.cache_life)

    async def _check_secret(self, connection: Connection) -> None:
        checks = await store.secret_checks(connection)
        if self._vault.secret_id in checks:
            self._opened(checks[self._vault.secret_id], context=_CHECK_CONTEXT)
            return
        # Another secret's mark: the previous one's, or one that this instance does not know.
        for sealed in checks.values():
            self._opened(sealed, context=_CHECK_CONTEXT)
        for key in await store.all_keys(connection):
            pem = self._opened(key.private_sealed, context=seal_context(key.kid))
            sealed = self._vault.seal(pem, context=seal_context(key.kid))
            await store.update_seal(connection, key.kid, private_sealed=sealed, secret_id=self._vault.secret_id)
        now = self._clock.now()
        sealed = self._vault.seal(_CHECK_TEXT, context=_CHECK_CONTEXT)
        await store.replace_secret_check(connection, secret_id=self._vault.secret_id, check_sealed=sealed, now=now)
        if checks:
            await record(connection, SecretChanged(at=now, source=SYSTEM, secret_id=self._vault.secret_id))

    def _opened(self, sealed: bytes, *, context: str) -> bytes:
        try:
            return self._vault.unseal(sealed, context=context)
        except SealedValueError:
            raise ConfigurationError(
                "LATCHSTRING_SECRET is not the one this database's keys were sealed under: set that one, or name it in "
                "LATCHSTRING_PREVIOUS_SECRET to have them sealed anew"
            ) from None
