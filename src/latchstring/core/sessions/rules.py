"""What a session is, how long its tokens live, and what a presented refresh token means. Pure; time is passed in."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum, auto
from uuid import UUID

REVOCATION_MARGIN = timedelta(seconds=60)
"""How much longer than the last token a revocation is remembered: instances' clocks differ."""


class EndReason(StrEnum):
    """Why sessions ended."""

    LOGOUT = "logout"
    REFRESH_REUSED = "refresh_reused"
    USER_DISABLED = "user_disabled"
    USER_DELETED = "user_deleted"


@dataclass(frozen=True, slots=True)
class Session:
    """A session's row. Times of expiry are whole seconds, as in the tokens."""

    id: UUID
    user_id: UUID
    created_at: datetime
    proven_at: datetime
    methods: tuple[str, ...]
    generation: int
    rotated_at: datetime
    """When this generation began; every time in its tokens follows from here, never from the moment of signing."""
    expires_at: datetime
    """When the refresh token of this generation expires."""
    ends_at: datetime
    """The absolute end."""
    access_expires_at: datetime
    """When the last access token ever issued for this session expires."""
    revoked_at: datetime | None
    revoked_reason: str | None


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """The settings' durations."""

    access: timedelta
    refresh: timedelta
    session: timedelta
    grace: timedelta

    def access_expiry(self, rotated_at: datetime) -> datetime:
        """Return when an access token of a generation begun at `rotated_at` expires, the session's end left aside."""
        return whole_seconds(rotated_at + self.access)

    def refresh_expiry(self, rotated_at: datetime) -> datetime:
        """Return when its refresh token does."""
        return whole_seconds(rotated_at + self.refresh)

    def session_end(self, created_at: datetime) -> datetime:
        """Return when a session opened at `created_at` ends for good."""
        return whole_seconds(created_at + self.session)


def access_token_expiry(session: Session, lifetimes: Lifetimes) -> datetime:
    """Return the expiry of this generation's access token.

    Never later than what the row has promised, even when the setting grew since: revocations are forgotten by it.
    """
    return min(lifetimes.access_expiry(session.rotated_at), session.ends_at, session.access_expires_at)


class Presented(StrEnum):
    """What a refresh token that did not win the rotation turned out to be."""

    REPEATED = auto()
    """The previous generation, within the grace: another tab, or an answer that was lost."""
    REUSED = auto()
    """A copy: the session must end."""
    EXPIRED = auto()
    ENDED = auto()


def judge(session: Session, *, generation: int, now: datetime, grace: timedelta) -> Presented:
    """Tell what presenting `generation` means, now that the row did not take it as the current one."""
    if session.revoked_at is not None:
        return Presented.ENDED
    if now >= session.expires_at:
        return Presented.EXPIRED
    if generation >= session.generation:
        # From a future this database never saw (it was restored from a copy), or the row changed under our feet.
        return Presented.ENDED
    if generation == session.generation - 1 and grace and now - session.rotated_at <= grace:
        return Presented.REPEATED
    return Presented.REUSED


def whole_seconds(instant: datetime) -> datetime:
    """Return `instant` without its fraction: tokens know whole seconds only, and the row must agree with them."""
    return instant.replace(microsecond=0)
