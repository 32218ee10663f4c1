"""A revocation: what it ends, its reason, and the code the caller gets. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from uuid import UUID

from latchstring.errors import Code
from latchstring.foundation.clock import MAX_CLOCK_SKEW

REVOCATION_MARGIN = timedelta(seconds=60)
"""How much longer than the last token a revocation is kept in memory: the clocks of instances differ."""

REVOCATION_RETENTION = timedelta(days=1)
"""How much longer it stays in the database: a clock that is far ahead must not delete what other instances need."""

# Epochs are never pruned (decision 9): they are compared as numbers, and there are as many as there were emergencies.
NEVER = datetime(9000, 1, 1, tzinfo=UTC)
"""The expiry of an entry that begins an epoch."""

EVERYONE = "everyone"
"""The kind of entry that begins an epoch."""


class RevocationReason(StrEnum):
    """Why a session ended, or why its access tokens are out of date."""

    CLAIMS_CHANGED = "claims_changed"
    """The user's roles changed. The session stays active; a refresh gives a token with the new roles."""
    LOGOUT = "logout"
    OPERATOR = "operator"
    PASSWORD_CHANGED = "password_changed"  # noqa: S105 -- a reason, not a password
    REFRESH_REPEATED_ELSEWHERE = "refresh_repeated_elsewhere"
    """A refresh was repeated from another network or browser, and `refresh_repeated_elsewhere` is `end`."""
    REFRESH_REUSED = "refresh_reused"
    RESTORED = "restored"
    """The database was restored from an older copy of itself."""
    REVOKED = "revoked"
    """Its user ended it from the list of sessions."""
    SIGNED_IN_AGAIN = "signed_in_again"
    """Its browser signed in again (ASVS 5.0, 7.2.4)."""
    TOO_MANY = "too_many"
    """It was the oldest session when its user signed in beyond the limit of sessions."""
    USER_DELETED = "user_deleted"
    USER_DISABLED = "user_disabled"


def next_epoch(stored: int, *, reason: RevocationReason, now: datetime) -> int:
    """Return the number of the next epoch, which is never one that was given before.

    Args:
        stored: the epoch in force.
        reason: why it begins.
        now: the time.
    """
    # A number that follows the clock, so that a restored copy, which lacks the newest ones, can be taken past all of
    # them: an hour ahead, because one of them may have been given by a clock that was ahead. It is compared as a number
    # all the same, and never with a token's time (decisions 9 and 28).
    ahead = MAX_CLOCK_SKEW if reason is RevocationReason.RESTORED else timedelta()
    return max(stored + 1, int((now + ahead).timestamp()))


def refusal_after(reason: str) -> Code:
    """Map a revocation's reason to the code the caller gets."""
    # A text and not the enumeration: during a rolling update a newer instance may write a reason unknown here, and an
    # unknown reason must still refuse.
    match reason:
        case RevocationReason.USER_DELETED:
            return Code.USER_NOT_FOUND
        case RevocationReason.CLAIMS_CHANGED:
            return Code.CLAIMS_CHANGED
        case _:
            return Code.SESSION_ENDED


class RevocationKind(StrEnum):
    """What a revocation ends."""

    SESSION = "session"
    USER = "user"
    EVERYONE = EVERYONE


@dataclass(frozen=True, slots=True)
class Revocation:
    """One entry of the feed: a session, a user's tokens below a claims version, or everyone's below an epoch."""

    kind: RevocationKind
    session_id: UUID | None
    user_id: UUID | None
    below_version: int | None
    reason: str
    """A `RevocationReason`, or a reason that a newer version of this package wrote."""
    expires_at: datetime
    """When the last token that it revokes has expired."""


@dataclass(frozen=True, slots=True)
class FeedPage:
    """A page of the feed, for a service that has no access to the database."""

    cursor: str
    """The cursor for the next request."""
    resync: bool
    """Whether this page is the first of the whole feed, which replaces everything read before."""
    more: bool
    """Whether there is another page now."""
    entries: Sequence[Revocation]
    retired_keys: Sequence[str]
    """The `kid`s of keys that were retired at once."""
