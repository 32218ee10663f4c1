"""After a restore: end every session and every key of the restored copy."""

from collections.abc import Sequence
from dataclasses import dataclass

from latchstring.core.keys.actions import Keys
from latchstring.core.restore.stored import ENVIRONMENT_KEYS, STORED_BY_CORE, StoredData
from latchstring.core.revocations.rules import RevocationReason
from latchstring.core.sessions.actions import Sessions
from latchstring.foundation.database import Database
from latchstring.foundation.events import Source


@dataclass(frozen=True, slots=True)
class Restored:
    """What was ended after a restore, and what can't be known."""

    epoch: int
    """The epoch that has begun: sessions and tokens of a lower one are refused."""
    ended_keys: tuple[str, ...]
    """The `kid`s of the keys that have ended."""
    new_key: str | None
    """The `kid` of the key that signs from now on; None if the keys come from the environment."""
    notes: tuple[str, ...]
    """Sentences for the operator: what is as in the copy, and what to do about it."""


class Restore:
    """The step after restoring a backup. `stored` is what the features store."""

    def __init__(self, database: Database, sessions: Sessions, keys: Keys, *, stored: Sequence[StoredData]) -> None:
        self._database = database
        self._sessions = sessions
        self._keys = keys
        self._stored = (*STORED_BY_CORE, *stored)

    async def restored(self, *, source: Source) -> Restored:
        """End every session, token and key of before, and return what can't be known.

        Running it again ends what began since the last time.

        Raises:
            ConfigurationError: the keys in the database are sealed under another secret.
            DatabaseUnavailableError: the database is unavailable.
        """
        draft = await self._keys.draft_replacement()
        async with self._database.transaction() as connection:
            # Keys that were retired or stolen after the copy was taken sign and verify again: all of them end. Then the
            # epoch, in the same transaction, as when a key is retired at once (decision 14).
            change = await self._keys.replace_all(connection, draft, source=source)
            # Not announced in this process: an epoch is applied together with the new keys, which the next poll reads.
            begun = await self._sessions.begin_epoch(connection, reason=RevocationReason.RESTORED, source=source)
            for stored in self._stored:
                if stored.void is not None:
                    await stored.void(connection, source)
        notes = [stored.note for stored in self._stored if stored.note is not None]
        return Restored(
            epoch=begun.below_version or 0,
            ended_keys=tuple(key.kid for key in change.changed),
            new_key=change.new_kid,
            notes=tuple(notes if draft is not None else [*notes, ENVIRONMENT_KEYS]),
        )
