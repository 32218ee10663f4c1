"""Events: what happened to an account, a session or a key. Each is a row of the audit trail, and what subscribers hear.

    Event
    ├── UserEvent      UserRegistered+ · UserRenamed+ · UserDisabled · UserEnabled+ · UserDeleted · SessionsEnded
    │   │             PasswordUpgraded
    │   ├── RoleEvent      RoleGranted+ · RoleWithdrawn
    │   └── SessionEvent   SessionCreated+ · SessionProven+ · SessionEnded · RefreshTokenReused
    │                     RefreshRepeatedElsewhere · PasswordChanged
    ├── KeyEvent       KeyCreated · KeyRetired · KeyRetiredAtOnce
    └── EveryoneSignedOut · SignInRefused · SecretChanged · FeedTokenCreated · FeedTokenRevoked

    + and a GrantingEvent

No event holds a password, a token or a hash. Events that take something away must stand whatever a subscriber does, so
that only giving ones can be joined from inside their transaction.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar
from uuid import UUID

from latchstring.annotations import InstanceOnly


@dataclass(frozen=True, slots=True)
class Source(InstanceOnly):
    """Where an action came from: a visitor's request, the application's own code, or the operator's command line."""

    actor: str
    """`visitor`, `application`, `operator` or `system`."""
    address: str | None = None
    user_agent: str | None = None
    request_id: str | None = None


APPLICATION = Source(actor="application")
OPERATOR = Source(actor="operator")
SYSTEM = Source(actor="system")


@dataclass(frozen=True, kw_only=True)
class Event(InstanceOnly):
    """Something that happened, and is committed or will be with the transaction that recorded it."""

    name: ClassVar[str]
    """What the trail calls it."""
    remark: ClassVar[str | None] = None
    """The field that the trail keeps as the reason."""

    at: datetime
    source: Source


class GrantingEvent(Event):
    """A event that gives: where it can't be given whole, it isn't."""


@dataclass(frozen=True, kw_only=True)
class UserEvent(Event):
    """It speaks of a user."""

    user_id: UUID


@dataclass(frozen=True, kw_only=True)
class SessionEvent(UserEvent):
    """It speaks of a session, and whose it is."""

    session_id: UUID


@dataclass(frozen=True, kw_only=True)
class RoleEvent(UserEvent):
    """It speaks of a role."""

    remark: ClassVar[str | None] = "role"
    role: str


@dataclass(frozen=True, kw_only=True)
class KeyEvent(Event):
    """It speaks of a signing key."""

    remark: ClassVar[str | None] = "kid"
    kid: str


# --- users -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class UserRegistered(UserEvent, GrantingEvent):
    """There is a new user, who signed up or was created."""

    name: ClassVar[str] = "user.registered"
    email: str
    first_name: str
    last_name: str


class UserRenamed(UserEvent, GrantingEvent):
    """A user's names are other ones now."""

    name = "user.renamed"


class UserDisabled(UserEvent):
    """A user is shut out, and every session has ended."""

    name = "user.disabled"


class UserEnabled(UserEvent, GrantingEvent):
    """A user who was shut out may sign in again."""

    name = "user.enabled"


class UserDeleted(UserEvent):
    """A user is gone for good, and every session has ended."""

    name = "user.deleted"


class RoleGranted(RoleEvent, GrantingEvent):
    """A user has one role more."""

    name = "role.granted"


class RoleWithdrawn(RoleEvent):
    """A user has one role less."""

    name = "role.withdrawn"


@dataclass(frozen=True, kw_only=True)
class PasswordChanged(SessionEvent):
    """A user has another password. Every session has ended, and the one that changed it was replaced."""

    name: ClassVar[str] = "password.changed"
    remark: ClassVar[str | None] = "replaced_session_id"
    replaced_session_id: UUID
    """The session that changed the password; `session_id` is the new one in its place."""


class PasswordUpgraded(UserEvent):
    """The same password is kept as a better hash."""

    name = "password.upgraded"


@dataclass(frozen=True, kw_only=True)
class SignInRefused(Event):
    """Somebody did not prove to be whom they said they are."""

    name: ClassVar[str] = "sign_in.refused"
    remark: ClassVar[str | None] = "method"
    user_id: UUID | None
    """None, where there is no such user."""
    method: str
    """How they tried: an `amr` value of RFC 8176."""


# --- sessions --------------------------------------------------------------------------------------------------------


class SessionCreated(SessionEvent, GrantingEvent):
    """A user has signed in."""

    name = "session.created"


@dataclass(frozen=True, kw_only=True)
class SessionProven(SessionEvent, GrantingEvent):
    """A user has proved anew, within a session, who they are."""

    name: ClassVar[str] = "session.proven"
    remark: ClassVar[str | None] = "method"
    method: str
    """An `amr` value of RFC 8176."""


@dataclass(frozen=True, kw_only=True)
class SessionEnded(SessionEvent):
    """One session has ended before its time."""

    name: ClassVar[str] = "session.ended"
    remark: ClassVar[str | None] = "reason"
    reason: str
    """`logout`, `operator`, `password_changed`, `refresh_repeated_elsewhere`, `revoked`, `signed_in_again` or
    `too_many`."""


class RefreshTokenReused(SessionEvent):
    """An old refresh token was shown: somebody has a copy. The session has ended."""

    name = "session.refresh_reused"


class RefreshRepeatedElsewhere(SessionEvent):
    """Within the grace a refresh was repeated from another network or browser than the one that had rotated.

    A telephone that changed its network does that; so does a thief who shares the session.
    """

    name = "session.refresh_repeated_elsewhere"


@dataclass(frozen=True, kw_only=True)
class SessionsEnded(UserEvent):
    """Every session of a user has ended."""

    name: ClassVar[str] = "sessions.ended"
    remark: ClassVar[str | None] = "reason"
    reason: str


@dataclass(frozen=True, kw_only=True)
class EveryoneSignedOut(Event):
    """Every session of every user has ended."""

    name: ClassVar[str] = "everyone.signed_out"
    remark: ClassVar[str | None] = "reason"
    reason: str


# --- keys ------------------------------------------------------------------------------------------------------------


class KeyCreated(KeyEvent):
    """A signing key is published."""

    name = "key.created"


class KeyRetired(KeyEvent):
    """A key ends when its last token has expired."""

    name = "key.retired"


class KeyRetiredAtOnce(KeyEvent):
    """A key has ended, and every token it signed."""

    name = "key.retired_at_once"


@dataclass(frozen=True, kw_only=True)
class SecretChanged(Event):
    """The keys are sealed under another secret."""

    name: ClassVar[str] = "secret.changed"
    remark: ClassVar[str | None] = "secret_id"
    secret_id: str
    """Names the secret without revealing it."""


class FeedTokenCreated(Event):
    """Another service may follow the revocation feed."""

    name = "feed_token.created"


class FeedTokenRevoked(Event):
    """It may no longer."""

    name = "feed_token.revoked"
