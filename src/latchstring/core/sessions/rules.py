"""What a session is, how long its tokens live, and what a presented refresh token means. Pure; time is passed in."""

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum, auto
from ipaddress import ip_address, ip_network
from typing import Self
from uuid import UUID

from latchstring.core.caller import Proven

MAX_CLOCK_SKEW = timedelta(hours=1)
"""More than instances' clocks ever differ: what ended by itself no longer ago may live by another one."""

TOLERATED_SKEW = timedelta(seconds=5)
"""How far the clocks of honest instances differ; the same that tokens are allowed (`CLOCK_SKEW_SECONDS`)."""


@dataclass(frozen=True, slots=True)
class Client:
    """What is kept of who refreshed a session, to tell whether a repeat came from elsewhere: no address in full."""

    network: str | None
    """The IPv4 /24 or IPv6 /64; None where the address is not known."""
    agent: str | None
    """A hash of the User-Agent, of an empty one where none was sent; None where nothing was kept."""

    @classmethod
    def of(cls, *, address: str | None, user_agent: str | None) -> Self:
        """Return what is kept of a request."""
        agent = hashlib.sha256((user_agent or "").encode("utf-8", "surrogatepass")).hexdigest()[:16]
        return cls(network=_network(address), agent=agent)

    def differs_from(self, other: "Client") -> bool:
        """Tell whether both are known, and are not the same network and browser."""
        pairs = ((self.network, other.network), (self.agent, other.agent))
        return any(mine != theirs for mine, theirs in pairs if mine is not None and theirs is not None)


UNKNOWN_CLIENT = Client(network=None, agent=None)


@dataclass(frozen=True, slots=True)
class Session:
    """A session's row. Times of expiry are whole seconds, as in the tokens."""

    id: UUID
    user_id: UUID
    epoch: int
    """Rises for everyone's new sessions when everyone is signed out."""
    created_at: datetime
    proven_at: datetime
    """When its user last proved who they are. A record only: tokens copy their proof from the token before."""
    methods: tuple[str, ...]
    """What the client that did so has proven. A record only: other clients may hold tokens that say less."""
    generation: int
    rotated_at: datetime
    """When this generation began; every time in its tokens follows from here, never from the moment of signing."""
    expires_at: datetime
    """When the refresh token of this generation expires."""
    ends_at: datetime
    """The absolute end."""
    generation_access_expires_at: datetime
    """When the access token of this generation expires."""
    access_expires_at: datetime
    """When the last access token ever issued for this session expires."""
    refreshes: int
    """How often it was refreshed since `refreshes_since`, repeated answers included."""
    refreshes_since: datetime
    revoked_at: datetime | None
    revoked_reason: str | None
    rotated_by: Client = UNKNOWN_CLIENT
    """Who began this generation; of the first one nothing is kept, since nobody can repeat it."""
    repeats: int = 0
    """How often a refresh was answered again, in all its life."""
    repeated_elsewhere_at: datetime | None = None
    """When that last happened for another network or browser than the one that had rotated."""


@dataclass(frozen=True, slots=True)
class ListedSession:
    """A session as its owner, or an operator, sees it in a list."""

    session: Session
    user_agent: str | None
    """Of whoever opened it."""
    address: str | None


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


@dataclass(frozen=True, slots=True)
class RefreshLimit:
    """How often one session may be refreshed within a window; the next begins with the first refresh after it."""

    times: int
    window: timedelta

    def is_reached(self, session: Session, *, now: datetime) -> bool:
        """Tell whether the session has had as many refreshes as it may have for now."""
        return session.refreshes >= self.times and now < session.refreshes_since + self.window

    def wait(self, session: Session, *, now: datetime) -> timedelta:
        """Return how long it is until the next window may begin."""
        return session.refreshes_since + self.window - now


PASSWORD_ALONE = ("pwd",)
"""What tokens of version 0.1.0 were proven with: it knew nothing else."""


def proven_before_claims(session: Session) -> Proven:
    """Return the proof behind a refresh token of version 0.1.0, which names none: the sign-in of its session."""
    return Proven(int(session.created_at.timestamp()), PASSWORD_ALONE)


def is_from_the_future(session: Session, *, now: datetime) -> bool:
    """Tell whether an instance whose clock is ahead began this generation: no token of it is valid here yet."""
    return session.rotated_at - now > TOLERATED_SKEW


class ReuseVerdict(StrEnum):
    """What a refresh token that did not win the rotation turned out to be."""

    REPEATED = auto()
    """The previous generation, within the grace: another tab, or a response that was lost."""
    REPEATED_ELSEWHERE = auto()
    """The same, from another network or browser than the one that rotated: perhaps a thief's shadow."""
    REUSED = auto()
    """A copy: the session must end."""
    CLOCKS_DIFFER = auto()
    """The previous generation, rotated in the future of this instance's clock: no theft, and no answer."""
    EXPIRED = auto()
    ENDED = auto()
    TOO_OFTEN = auto()
    """More often than the limit allows; the session goes on."""


def judge(
    session: Session,
    *,
    epoch: int,
    generation: int,
    now: datetime,
    grace: timedelta,
    limit: RefreshLimit | None,
    client: Client = UNKNOWN_CLIENT,
) -> ReuseVerdict:
    """Tell what presenting `generation` means, now that the row did not take it as the current one.

    Args:
        session: the row as it is.
        epoch: the epoch in force; whatever was opened in an earlier one has ended.
        generation: what the token says.
        now: the time.
        grace: how long the previous generation is answered again.
        limit: how often the session may be refreshed, if it is limited.
        client: who presents it.
    """
    if session.revoked_at is not None or session.epoch < epoch:
        return ReuseVerdict.ENDED
    if now >= session.expires_at:
        return ReuseVerdict.EXPIRED
    is_previous = generation == session.generation - 1 and bool(grace) and now - session.rotated_at <= grace
    if is_previous and is_from_the_future(session, now=now):
        # An instance whose clock is ahead rotated it. Were this one to answer, the grace would last as long again.
        return ReuseVerdict.CLOCKS_DIFFER
    # Asked before anything else of a token that is no copy: a client that asks too often is no thief.
    if (is_previous or generation == session.generation) and limit and limit.is_reached(session, now=now):
        return ReuseVerdict.TOO_OFTEN
    if generation >= session.generation:
        # From a future this database never saw (it was restored from a copy), or the row changed under our feet.
        return ReuseVerdict.ENDED
    if not is_previous:
        return ReuseVerdict.REUSED
    return ReuseVerdict.REPEATED_ELSEWHERE if client.differs_from(session.rotated_by) else ReuseVerdict.REPEATED


def whole_seconds(instant: datetime) -> datetime:
    """Return `instant` without its fraction: tokens know whole seconds only, and the row must agree with them."""
    return instant.replace(microsecond=0)


def session_id_from(text: str) -> UUID | None:
    """Return the id that a visitor named, if it is spelled as ours are."""
    try:
        session_id = UUID(text)
    except ValueError:
        return None
    return session_id if str(session_id) == text else None


_KEPT_OF_IPV4, _KEPT_OF_IPV6 = 24, 64


def _network(address: str | None) -> str | None:
    if address is None:
        return None
    parsed = ip_address(address)
    kept = _KEPT_OF_IPV6 if parsed.version == 6 else _KEPT_OF_IPV4  # noqa: PLR2004 -- the protocol's own number
    return str(ip_network((parsed, kept), strict=False))
