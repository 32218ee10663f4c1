"""Events of accounts, sessions and keys. Each is a row of the audit trail, and the object that subscribers get.

    Event
    ├── UserEvent      UserRegistered+ · UserRenamed+ · UserDisabled · UserEnabled+ · UserDeleted · SessionsEnded
    │   │             PasswordUpgraded
    │   ├── RoleEvent      RoleGranted+ · RoleWithdrawn
    │   └── SessionEvent   SessionCreated+ · SessionProven+ · SessionEnded · RefreshTokenReused
    │                     RefreshRepeatedElsewhere · PasswordChanged
    ├── KeyEvent       KeyCreated · KeyRetired · KeyRetiredAtOnce
    └── EveryoneSignedOut · SignInRefused · SecretChanged · FeedTokenCreated · FeedTokenRevoked

    + also a GrantingEvent

No event holds a password, a token or a hash. Events that take access away must stand whatever a subscriber does, so
only events that grant something can be joined from inside their transaction.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar
from uuid import UUID

from latchstring.annotations import InstanceOnly


@dataclass(frozen=True, slots=True)
class Source(InstanceOnly):
    """The origin of an action: a visitor's request, the application's code, the operator, or the system itself."""

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
    """An event, committed with the transaction that records it."""

    name: ClassVar[str]
    """The event's name in the audit trail."""
    remark: ClassVar[str | None] = None
    """The field that the audit trail stores as the reason."""

    at: datetime
    source: Source


# Only these can be undone by a subscriber. Were a sign-out or a withdrawn role among them, a full disk in the host's
# table would keep a thief signed in (decision 16).
class GrantingEvent(Event):
    """An event that grants something. A subscriber inside its transaction may fail, and so undo it."""


@dataclass(frozen=True, kw_only=True)
class UserEvent(Event):
    """An event of a user."""

    user_id: UUID


@dataclass(frozen=True, kw_only=True)
class SessionEvent(UserEvent):
    """An event of a session and its user."""

    session_id: UUID


@dataclass(frozen=True, kw_only=True)
class RoleEvent(UserEvent):
    """An event of a user's role."""

    remark: ClassVar[str | None] = "role"
    role: str


@dataclass(frozen=True, kw_only=True)
class KeyEvent(Event):
    """An event of a signing key."""

    remark: ClassVar[str | None] = "kid"
    kid: str


# --- users -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class UserRegistered(UserEvent, GrantingEvent):
    """A user signed up or was created."""

    name: ClassVar[str] = "user.registered"
    email: str
    first_name: str
    last_name: str


class UserRenamed(UserEvent, GrantingEvent):
    """A user's names were changed."""

    name = "user.renamed"


class UserDisabled(UserEvent):
    """A user was disabled, and every session ended."""

    name = "user.disabled"


class UserEnabled(UserEvent, GrantingEvent):
    """A disabled user was enabled, and may sign in again."""

    name = "user.enabled"


class UserDeleted(UserEvent):
    """A user was deleted, and every session ended."""

    name = "user.deleted"


class RoleGranted(RoleEvent, GrantingEvent):
    """A role was granted to a user."""

    name = "role.granted"


class RoleWithdrawn(RoleEvent):
    """A role was withdrawn from a user."""

    name = "role.withdrawn"


@dataclass(frozen=True, kw_only=True)
class PasswordChanged(SessionEvent):
    """A user changed the password. Every session ended, and the one that changed it was replaced by a new one."""

    name: ClassVar[str] = "password.changed"
    remark: ClassVar[str | None] = "replaced_session_id"
    replaced_session_id: UUID
    """The session that changed the password; `session_id` is the new one in its place."""


class PasswordUpgraded(UserEvent):
    """A user's password hash was replaced by one with the present algorithm and parameters."""

    name = "password.upgraded"


@dataclass(frozen=True, kw_only=True)
class SignInRefused(Event):
    """A sign-in failed."""

    name: ClassVar[str] = "sign_in.refused"
    remark: ClassVar[str | None] = "method"
    user_id: UUID | None
    """None if there is no such user."""
    method: str
    """The method of the attempt: an `amr` value of RFC 8176."""


# --- sessions --------------------------------------------------------------------------------------------------------


class SessionCreated(SessionEvent, GrantingEvent):
    """A user signed in."""

    name = "session.created"


@dataclass(frozen=True, kw_only=True)
class SessionProven(SessionEvent, GrantingEvent):
    """A user confirmed their identity within a session."""

    name: ClassVar[str] = "session.proven"
    remark: ClassVar[str | None] = "method"
    method: str
    """An `amr` value of RFC 8176."""


@dataclass(frozen=True, kw_only=True)
class SessionEnded(SessionEvent):
    """A session was ended before it expired."""

    name: ClassVar[str] = "session.ended"
    remark: ClassVar[str | None] = "reason"
    reason: str
    """`logout`, `operator`, `password_changed`, `refresh_repeated_elsewhere`, `revoked`, `signed_in_again` or
    `too_many`."""


class RefreshTokenReused(SessionEvent):
    """A replaced refresh token was presented, so a copy exists. The session was ended."""

    name = "session.refresh_reused"


class RefreshRepeatedElsewhere(SessionEvent):
    """Within the grace, a refresh was repeated from another network or browser than the first one.

    A phone that changed its network does that; so does a thief who shares the session.
    """

    name = "session.refresh_repeated_elsewhere"


@dataclass(frozen=True, kw_only=True)
class SessionsEnded(UserEvent):
    """Every session of a user was ended."""

    name: ClassVar[str] = "sessions.ended"
    remark: ClassVar[str | None] = "reason"
    reason: str


@dataclass(frozen=True, kw_only=True)
class EveryoneSignedOut(Event):
    """Every session of every user was ended."""

    name: ClassVar[str] = "everyone.signed_out"
    remark: ClassVar[str | None] = "reason"
    reason: str
    """`operator`, or `restored`: the database was restored from a backup."""


# --- keys ------------------------------------------------------------------------------------------------------------


class KeyCreated(KeyEvent):
    """A signing key was published."""

    name = "key.created"


class KeyRetired(KeyEvent):
    """A key was retired. It verifies until its last token has expired."""

    name = "key.retired"


class KeyRetiredAtOnce(KeyEvent):
    """A key was retired at once. Every token it signed is refused."""

    name = "key.retired_at_once"


@dataclass(frozen=True, kw_only=True)
class SecretChanged(Event):
    """The keys were sealed again under another secret."""

    name: ClassVar[str] = "secret.changed"
    remark: ClassVar[str | None] = "secret_id"
    secret_id: str
    """Identifies the new secret without revealing it."""


class FeedTokenCreated(Event):
    """A token for the revocation feed was created for another service."""

    name = "feed_token.created"


class FeedTokenRevoked(Event):
    """A token for the revocation feed was revoked."""

    name = "feed_token.revoked"
