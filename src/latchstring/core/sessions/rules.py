"""Sessions, the lifetimes of their tokens, and what a presented refresh token means. Pure; time is an argument."""

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum, auto
from ipaddress import ip_address, ip_network
from typing import Self
from uuid import UUID

from latchstring.core.caller import Proven
from latchstring.core.tokens.rules import CLOCK_SKEW_SECONDS

TOLERATED_SKEW = timedelta(seconds=CLOCK_SKEW_SECONDS)
"""How far clocks may differ without a warning."""


@dataclass(frozen=True, slots=True)
class Client:
    """The client that refreshed a session, to detect a repeat from elsewhere. Holds no full IP address."""

    network: str | None
    """The IPv4 /24 or IPv6 /64 of the client address; None if that is unknown."""
    agent: str | None
    """A hash of the User-Agent, or of an empty string without one; None if nothing was kept."""

    @classmethod
    def of(cls, *, address: str | None, user_agent: str | None) -> Self:
        """Return the client of a request."""
        agent = hashlib.sha256((user_agent or "").encode("utf-8", "surrogatepass")).hexdigest()[:16]
        return cls(network=_network(address), agent=agent)

    def differs_from(self, other: "Client") -> bool:
        """Return whether network or User-Agent differ; what is unknown of either client does not count."""
        pairs = ((self.network, other.network), (self.agent, other.agent))
        return any(mine != theirs for mine, theirs in pairs if mine is not None and theirs is not None)


UNKNOWN_CLIENT = Client(network=None, agent=None)


@dataclass(frozen=True, slots=True)
class Session:
    """A session's row. Expiry times are whole seconds, as in the tokens."""

    id: UUID
    user_id: UUID
    epoch: int
    """The epoch it was created in. Signing everyone out begins the next one, and ends sessions of earlier ones."""
    created_at: datetime
    proven_at: datetime
    """When its user last proved who they are. For display only: tokens copy the proof of the token before."""
    methods: tuple[str, ...]
    """The methods that this client has proven. For display only: other clients' tokens may have fewer."""
    generation: int
    rotated_at: datetime
    """When this generation began. All times in its tokens follow from this, never from the time of signing."""
    expires_at: datetime
    """When the refresh token of this generation expires."""
    ends_at: datetime
    """The absolute expiry, however often the session is refreshed."""
    generation_access_expires_at: datetime
    """When the access token of this generation expires."""
    access_expires_at: datetime
    """When the last access token ever issued for the session expires."""
    refreshes: int
    """Number of refreshes since `refreshes_since`, including repeated responses."""
    refreshes_since: datetime
    revoked_at: datetime | None
    revoked_reason: str | None
    rotated_by: Client = UNKNOWN_CLIENT
    """The client that began this generation. Unknown for the first one, which no refresh token can repeat."""
    repeats: int = 0
    """Number of repeated responses since the session was created."""
    repeated_elsewhere_at: datetime | None = None
    """When a repeat last came from another network or browser than the rotation."""


@dataclass(frozen=True, slots=True)
class ListedSession:
    """A session in the list of its owner or an operator."""

    session: Session
    user_agent: str | None
    """The User-Agent of the client that created the session."""
    address: str | None
    """The IP address of that client."""


@dataclass(frozen=True, slots=True)
class EndedSession:
    """A session that a statement has just ended."""

    id: UUID
    access_expires_at: datetime
    """When the last access token ever issued for it expires."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """The next generation of a session."""

    session_id: UUID
    user_id: UUID
    now: datetime
    access_expiry: datetime
    refresh_expiry: datetime
    client: Client


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """The durations of the settings."""

    access: timedelta
    refresh: timedelta
    session: timedelta
    grace: timedelta

    def access_expiry(self, rotated_at: datetime) -> datetime:
        """Return when the access token of a generation expires, not regarding the session's absolute expiry."""
        return whole_seconds(rotated_at + self.access)

    def refresh_expiry(self, rotated_at: datetime) -> datetime:
        """Return when the refresh token of a generation expires, not regarding the session's absolute expiry."""
        return whole_seconds(rotated_at + self.refresh)

    def session_end(self, created_at: datetime) -> datetime:
        """Return the absolute expiry of a session."""
        return whole_seconds(created_at + self.session)


@dataclass(frozen=True, slots=True)
class RefreshLimit:
    """How often one session may be refreshed per window. A window begins with the first refresh after the last one."""

    times: int
    window: timedelta

    def is_reached(self, session: Session, *, now: datetime) -> bool:
        """Return whether the session has used all refreshes of the current window."""
        return session.refreshes >= self.times and now < session.refreshes_since + self.window

    def wait(self, session: Session, *, now: datetime) -> timedelta:
        """Return the time until the next window may begin."""
        return session.refreshes_since + self.window - now


PASSWORD_ALONE = ("pwd",)
"""The method behind tokens of version 0.1.0, which had no other."""


def proven_before_claims(session: Session) -> Proven:
    """Return the proof behind a refresh token of version 0.1.0, which names none: its session's sign-in."""
    # The time of creation and not of the row's last proof, which may be another client's (decision 23).
    return Proven(int(session.created_at.timestamp()), PASSWORD_ALONE)


def is_from_the_future(session: Session, *, now: datetime) -> bool:
    """Return whether an instance whose clock is ahead began this generation. Its tokens are not valid here yet."""
    return session.rotated_at - now > TOLERATED_SKEW


class ReuseVerdict(StrEnum):
    """What it means that a refresh token did not win the rotation."""

    REPEATED = auto()
    """The previous generation, within the grace: another tab, or a response that was lost."""
    REPEATED_ELSEWHERE = auto()
    """The same from another network or browser than the rotation: perhaps a thief who follows each refresh."""
    REUSED = auto()
    """A stolen copy: the session must be revoked."""
    CLOCKS_DIFFER = auto()
    """The previous generation, rotated in the future by this instance's clock: not theft, but refused."""
    EXPIRED = auto()
    ENDED = auto()
    TOO_OFTEN = auto()
    """More refreshes than the limit allows. The session stays active."""


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
    """Return what a refresh token of `generation` means, after the conditional UPDATE has not accepted it.

    Args:
        session: the row as it is.
        epoch: the epoch in force; sessions of earlier ones have ended.
        generation: the generation in the token.
        now: the current time.
        grace: how long the previous generation gets the same response again.
        limit: how often the session may be refreshed; None without a limit.
        client: the client that presents the token.
    """
    if session.revoked_at is not None or session.epoch < epoch:
        return ReuseVerdict.ENDED
    if now >= session.expires_at:
        return ReuseVerdict.EXPIRED
    is_previous = generation == session.generation - 1 and bool(grace) and now - session.rotated_at <= grace
    if is_previous and is_from_the_future(session, now=now):
        # Rotated by an instance whose clock is ahead. A response here would lengthen the grace by the difference.
        return ReuseVerdict.CLOCKS_DIFFER
    # Before the checks for reuse: a client that refreshes too often is not a thief.
    if (is_previous or generation == session.generation) and limit and limit.is_reached(session, now=now):
        return ReuseVerdict.TOO_OFTEN
    if generation >= session.generation:
        # A generation that this database never had (it was restored from a backup), or the row has changed meanwhile.
        return ReuseVerdict.ENDED
    if not is_previous:
        return ReuseVerdict.REUSED
    return ReuseVerdict.REPEATED_ELSEWHERE if client.differs_from(session.rotated_by) else ReuseVerdict.REPEATED


def whole_seconds(instant: datetime) -> datetime:
    """Return `instant` without its fraction. Tokens have whole seconds, and the row must agree with them."""
    return instant.replace(microsecond=0)


def session_id_from(text: str) -> UUID | None:
    """Return the session id in `text`; None if it is not in canonical form."""
    # `UUID` also accepts braces, `urn:uuid:` and missing hyphens. One spelling per session, in logs and in the trail.
    try:
        session_id = UUID(text)
    except ValueError:
        return None
    return session_id if str(session_id) == text else None


# Providers give each customer an IPv6 /64 or more, so that single addresses change all the time (GHSA-p6v2-xcpg-h6xw).
_KEPT_OF_IPV4, _KEPT_OF_IPV6 = 24, 64


def _network(address: str | None) -> str | None:
    if address is None:
        return None
    parsed = ip_address(address)
    kept = _KEPT_OF_IPV6 if parsed.version == 6 else _KEPT_OF_IPV4  # noqa: PLR2004 -- the protocol's own number
    return str(ip_network((parsed, kept), strict=False))
