"""What a restored copy of the database brings back: each kind of data is voided, or the operator is told."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from latchstring.foundation.database import Connection
from latchstring.foundation.events import Source

Void = Callable[[Connection, Source], Awaitable[None]]
"""Ends something in the transaction that ends every session."""


@dataclass(frozen=True, slots=True)
class StoredData:
    """Something that a package stores, in view of a restored copy of the database.

    Every package that stores something which can be revoked, used up or replaced declares it, in `FeatureParts.stored`
    or in `STORED_BY_CORE`. Otherwise a restore brings back what was ended after the copy was taken.
    """

    note: str | None = None
    """A sentence for the operator: what stays as in the copy, and what to do about it."""
    void: Void | None = None


STORED_BY_CORE = (
    StoredData(
        note="Users, roles, deletions and disablings are as in the copy: repeat those made since.",
    ),
    # Sessions and keys need no entry: `Restore` ends them itself. Slots of limits expire by themselves within a window.
    StoredData(note="The audit trail ends where the copy was taken: what happened since is not in it."),
)
"""What the packages of `core` and `foundation` store."""

ENVIRONMENT_KEYS = (
    "The keys come from the environment and stay in use: the new epoch alone ends every session. If one of them may be "
    "known to others, put another pair into JWT_PRIVATE_KEY and JWT_PUBLIC_KEY, remove the old public key from "
    "JWT_EXTRA_PUBLIC_KEYS, and restart every instance."
)
"""The note where no command can replace the keys."""
