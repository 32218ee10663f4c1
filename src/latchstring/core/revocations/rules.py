"""What a revocation is: whom it means, why, and what the caller hears. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from uuid import UUID

from latchstring.errors import Code

REVOCATION_MARGIN = timedelta(seconds=60)
"""How much longer than the last token a revocation is remembered: instances' clocks differ."""

REVOCATION_RETENTION = timedelta(days=1)
"""How much longer it stays in the database: a clock that is far ahead must not delete what others still need."""

NEVER = datetime(9000, 1, 1, tzinfo=UTC)
"""When an epoch is forgotten."""

EVERYONE = "everyone"
"""The kind of entry that begins an epoch."""


class RevocationReason(StrEnum):
    """Why sessions ended, or what tokens say is out of date."""

    CLAIMS_CHANGED = "claims_changed"
    """The user has other roles: the session lives, and its next token says so."""
    LOGOUT = "logout"
    OPERATOR = "operator"
    PASSWORD_CHANGED = "password_changed"  # noqa: S105 -- a reason, not a password
    REFRESH_REPEATED_ELSEWHERE = "refresh_repeated_elsewhere"
    """A refresh was repeated from another network or browser, where the settings say that this ends the session."""
    REFRESH_REUSED = "refresh_reused"
    REVOKED = "revoked"
    """By its owner, from the list of sessions."""
    SIGNED_IN_AGAIN = "signed_in_again"
    """Its browser signed in once more (ASVS 5.0, 7.2.4)."""
    TOO_MANY = "too_many"
    """The oldest, when its user signed in once more than the limit of sessions allows."""
    USER_DELETED = "user_deleted"
    USER_DISABLED = "user_disabled"


def refusal_after(reason: str) -> Code:
    """Return what a caller hears of whom the feed says so."""
    match reason:
        case RevocationReason.USER_DELETED:
            return Code.USER_NOT_FOUND
        case RevocationReason.CLAIMS_CHANGED:
            return Code.CLAIMS_CHANGED
        case _:
            return Code.SESSION_ENDED


class RevocationKind(StrEnum):
    """Whom a revocation means."""

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
    """An `RevocationReason`, or one that a newer version of this package wrote."""
    expires_at: datetime
    """When no token it speaks of can be presented any more."""


@dataclass(frozen=True, slots=True)
class FeedPage:
    """A part of the feed, for a follower that has no database of ours."""

    cursor: str
    """To ask on from."""
    resync: bool
    """Whether everything is told anew, beginning with this page."""
    more: bool
    """Whether the next page is there already."""
    entries: Sequence[Revocation]
    retired_keys: Sequence[str]
    """Those that were retired at once."""
