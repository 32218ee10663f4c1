"""Prepare, rotate and retire signing keys, and maintain them while the service runs.

EnvironmentKeys  PEMs from the environment, which can only be changed there
DatabaseKeys     rows of the database; each action is one transaction, under one lock for all instances
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
    replacement_of_all,
    retirement,
    retirement_at_once,
    rotation,
    signing_key,
)
from latchstring.core.keys.settings import Algorithm
from latchstring.core.keys.store import StoredKey
from latchstring.errors import ConfigurationError
from latchstring.foundation.audit import record
from latchstring.foundation.clock import Clock, beyond_every_count
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
    """Which keys are made, and when."""

    algorithm: Algorithm | None
    """The algorithm of new keys; None: that of the signing key, RS256 for the first."""
    cache_life: timedelta
    """How long the published keys may be cached."""
    token_life: timedelta
    """The longest lifetime of a token issued here."""
    max_age: timedelta | None
    """The age at which a signing key is replaced; None: never."""


@dataclass(frozen=True, slots=True)
class KeyDraft:
    """A new key that is not in the database yet."""

    kid: str
    algorithm: Algorithm
    public_pem: str
    private_sealed: bytes


class Keys(Protocol):
    """The actions on keys, wherever the keys are stored."""

    async def prepare(self) -> None:
        """Make the first key if there is none. Called once, before the workers start."""
        ...

    async def maintain(self) -> None:
        """Rotate a key that is too old, and record lifetimes. Called once a minute by every worker."""
        ...

    async def rotate(self, *, source: Source, dry_run: bool = False) -> KeyChange | KeyConflict:
        """Publish a new key that will take over signing; return what changes, or why nothing does."""
        ...

    async def retire(self, kid: str, *, source: Source, dry_run: bool = False) -> KeyChange | KeyConflict:
        """Retire a key without ending a session: every token it signed is valid until it expires."""
        ...

    async def draft(self) -> KeyDraft:
        """Make a key, off the event loop and before any transaction, because it takes up to a second."""
        ...

    async def retire_at_once(
        self, connection: Connection, kid: str, draft: KeyDraft | None, *, source: Source
    ) -> KeyChange | KeyConflict:
        """End a stolen key, and all other keys, in the open transaction; without a draft, only return the plan."""
        ...

    async def draft_replacement(self) -> KeyDraft | None:
        """Make the key that replaces all others after a restore; None if keys can't be replaced by a command."""
        ...

    async def replace_all(self, connection: Connection, draft: KeyDraft | None, *, source: Source) -> KeyChange:
        """End every key of a restored database in the open transaction; the draft signs from now on."""
        ...


class EnvironmentKeys:
    """Keys from the environment. Each action that would change them raises ConfigurationError."""

    async def prepare(self) -> None:
        """Do nothing: the operator makes the keys."""

    async def maintain(self) -> None:
        """Do nothing: the operator rotates the keys."""

    async def rotate(self, *, source: Source, dry_run: bool = False) -> NoReturn:  # noqa: ARG002 -- the protocol's
        """Refuse, and name the variables to change."""
        raise ConfigurationError(
            "the keys come from the environment: rotate them there, in three deployments. 1: add the next public key "
            "to JWT_EXTRA_PUBLIC_KEYS. 2: put the next pair into JWT_PRIVATE_KEY and JWT_PUBLIC_KEY, and the present "
            "public key into JWT_EXTRA_PUBLIC_KEYS. 3: remove that one when its last token has expired"
        )

    async def retire(self, kid: str, *, source: Source, dry_run: bool = False) -> NoReturn:  # noqa: ARG002 -- likewise
        """Refuse, and name the variables to change."""
        self._refuse_to_retire()

    async def draft(self) -> NoReturn:
        """Refuse, and name the variables to change."""
        self._refuse_to_retire()

    async def retire_at_once(
        self,
        connection: Connection,  # noqa: ARG002 -- the protocol's
        kid: str,  # noqa: ARG002 -- likewise
        draft: KeyDraft | None,  # noqa: ARG002 -- likewise
        *,
        source: Source,  # noqa: ARG002 -- likewise
    ) -> NoReturn:
        """Refuse, and name the variables to change."""
        self._refuse_to_retire()

    async def draft_replacement(self) -> None:
        """Return None: the environment is not in the database, and so in no copy of it."""

    async def replace_all(
        self,
        connection: Connection,  # noqa: ARG002 -- the protocol's
        draft: KeyDraft | None,  # noqa: ARG002 -- likewise
        *,
        source: Source,  # noqa: ARG002 -- likewise
    ) -> KeyChange:
        """Change nothing."""
        return KeyChange(changed=())

    def _refuse_to_retire(self) -> NoReturn:
        raise ConfigurationError(
            "the keys come from the environment: remove the key from JWT_EXTRA_PUBLIC_KEYS or, if it is the signing "
            "key, put another pair into JWT_PRIVATE_KEY and JWT_PUBLIC_KEY; each instance refuses its tokens after "
            "its next restart"
        )


class DatabaseKeys:
    """Keys from the database, private halves sealed under the secret."""

    def __init__(self, database: Database, vault: Vault, clock: Clock, *, policy: KeyPolicy) -> None:
        self._database = database
        self._vault = vault
        self._clock = clock
        self._policy = policy

    async def prepare(self) -> None:
        """Check the secret, re-seal keys of the previous one, and make a key of the configured algorithm if none signs.

        If the configured algorithm has changed, the present key signs until the new one has been published for as long
        as in any rotation.

        Raises:
            ConfigurationError: the database's keys were sealed under another secret.
        """
        async with self._database.reading() as connection:
            wants_key = self._wants_key(await store.all_keys(connection))
        # Before the transaction: an RSA key takes up to a second, in which SQLite's one writer would be held.
        draft = await self.draft() if wants_key else None
        async with self._database.transaction() as connection:
            await lock_exclusively(connection, LOCK)
            await self._check_secret(connection)
            keys = await store.all_keys(connection)
            # Asked again under the lock: another instance that starts at the same time may have made the key.
            if draft is not None and self._wants_key(keys):
                await self._make_wanted(connection, keys, draft)
        await self._record_lifetimes()

    async def maintain(self) -> None:
        """Record this process's lifetimes of tokens and caches; rotate a signing key that has reached its maximum age.

        Raises:
            UnavailableError: the database is unavailable; the next call will do the work.
        """
        await self._record_lifetimes()
        if self._policy.max_age is None:
            return
        async with self._database.reading() as connection:
            due = is_due(await store.all_keys(connection), now=self._clock.now(), max_age=self._policy.max_age)
        if due and isinstance(await self.rotate(source=SYSTEM), KeyChange):
            _log.info("the signing key reached its maximum age: the next key is published, and signs in a while")

    async def rotate(self, *, source: Source, dry_run: bool = False) -> KeyChange | KeyConflict:
        """Publish a new key that will take over signing; return what changes, or why nothing does."""
        draft = None if dry_run else await self.draft()
        async with self._database.transaction() as connection:
            await self._lock(connection)
            keys, now = await store.all_keys(connection), self._clock.now()
            plan = rotation(keys, now=now, lead=self._lead(keys))
            return await self._carried_out(connection, plan, draft, event=KeyRetired, source=source)

    async def retire(self, kid: str, *, source: Source, dry_run: bool = False) -> KeyChange | KeyConflict:
        """Retire a key without ending a session: every token it signed is valid until it expires."""
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
        """End a stolen key, and all other keys, in the open transaction; without a draft, only return the plan."""
        # In the caller's transaction, which also begins the epoch: with the stolen key a thief can make a refresh
        # token for any session, and exchange it for an honest pair unless every session ends too (decision 14).
        await self._lock(connection)
        plan = retirement_at_once(await store.all_keys(connection), kid, now=self._clock.now())
        return await self._carried_out(connection, plan, draft, event=KeyRetiredAtOnce, source=source)

    async def draft_replacement(self) -> KeyDraft | None:
        """Make the key that replaces all others after a restore, off the event loop."""
        return await self.draft()

    async def replace_all(self, connection: Connection, draft: KeyDraft | None, *, source: Source) -> KeyChange:
        """End every key of a restored database in the open transaction; the draft signs from now on."""
        await self._lock(connection)
        now = self._clock.now()
        plan = replacement_of_all(await store.all_keys(connection), now=now)
        await self._carried_out(connection, plan, draft, event=KeyRetiredAtOnce, source=source)
        if draft is None:
            return plan
        # A revision may have been given before, after the copy was taken: a worker that has read the keys of that time
        # would take them for these, and go on signing with them.
        await store.raise_revision(connection, draft.kid, at_least=beyond_every_count(now))
        return replace(plan, new_kid=draft.kid)

    async def _lock(self, connection: Connection) -> None:
        await lock_exclusively(connection, LOCK)
        # No worker could unseal a key that this process seals under another secret than theirs.
        if self._vault.secret_id not in await store.secret_checks(connection):
            raise ConfigurationError(
                "LATCHSTRING_SECRET is not the one this database's keys are sealed under: set that one or, to change "
                "it, run latchstring migrate first"
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
        """Write the planned change; without a draft (a dry run), only return it."""
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
            # One thumbprint of 64 begins with a hyphen. In an emergency `keys retire` would take it for an option.
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
        """Return whether no key of the configured algorithm signs or will sign."""
        wanted = self._algorithm(keys)
        return not any(key.algorithm is wanted for key in keys if key.retired_at is None)

    async def _make_wanted(self, connection: Connection, keys: Sequence[KeyDates], draft: KeyDraft) -> None:
        now = self._clock.now()
        if signing_key(keys, now=now) is None:
            # The first key signs at once: no cache holds a response without it.
            await self._publish(connection, draft, signs_from=now, now=now, source=SYSTEM)
            return
        plan = rotation(keys, now=now, lead=self._lead(keys))
        if isinstance(plan, KeyChange):
            await self._carried_out(connection, plan, draft, event=KeyRetired, source=SYSTEM)
            _log.info("a key for %s is published, and signs from %s", draft.algorithm, plan.new_signs_from)
        else:
            _log.warning("no key for %s is made: %s; restart when it is over", draft.algorithm, plan)

    async def _record_lifetimes(self) -> None:
        # Recorded in the keys' rows by the processes that issue tokens: a rotation from a shell with other settings
        # would otherwise retire a key before its tokens, or sign before the caches have the new key.
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
            # The id is a short hash of the secret; only unsealing proves that the secret is the same.
            self._unsealed(checks[self._vault.secret_id], context=_CHECK_CONTEXT)
            return
        # The check value is another secret's: the previous one's, or one that this instance does not have.
        for sealed in checks.values():
            self._unsealed(sealed, context=_CHECK_CONTEXT)
        for key in await store.all_keys(connection):
            pem = self._unsealed(key.private_sealed, context=seal_context(key.kid))
            sealed = self._vault.seal(pem, context=seal_context(key.kid))
            await store.update_seal(connection, key.kid, private_sealed=sealed, secret_id=self._vault.secret_id)
        now = self._clock.now()
        sealed = self._vault.seal(_CHECK_TEXT, context=_CHECK_CONTEXT)
        await store.replace_secret_check(connection, secret_id=self._vault.secret_id, check_sealed=sealed, now=now)
        if checks:
            await record(connection, SecretChanged(at=now, source=SYSTEM, secret_id=self._vault.secret_id))

    def _unsealed(self, sealed: bytes, *, context: str) -> bytes:
        try:
            return self._vault.unseal(sealed, context=context)
        except SealedValueError:
            raise ConfigurationError(
                "LATCHSTRING_SECRET is not the one this database's keys were sealed under: set that one, or put it in "
                "LATCHSTRING_PREVIOUS_SECRET to have the keys sealed again under the new one"
            ) from None
