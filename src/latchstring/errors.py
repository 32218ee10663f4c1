"""Every error of the package and the closed list of refusal codes.

    LatchstringError
    ├── ConfigurationError        settings are wrong: the process must not start (exit code 3)
    ├── RefusedError              a refusal as an exception, with its code
    ├── SubscriberError           a subscriber failed inside a transaction: nothing was changed
    └── UnavailableError          try again later: 503 with Retry-After
        ├── DatabaseUnavailableError
        ├── HashQueueFullError
        ├── KeysUnavailableError
        └── RevocationsUnknownError

A refusal (wrong password, expired token) is not an error. Inside the package it is a value, `Refused`, with a `Code`,
so that the event recorded about it commits. Routes turn the code into a problem document (RFC 9457).
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar


class Code(StrEnum):
    """The stable `code` of every refusal. Clients may switch on it, so a code is never renamed or reused."""

    # Alphabetical. Each code has its status and sentence in `foundation.web.problem`, and a row in docs/errors.md.
    BODY_TIMEOUT = "body_timeout"
    BODY_TOO_LARGE = "body_too_large"
    CLAIMS_CHANGED = "claims_changed"
    CREDENTIALS_CONFLICT = "credentials_conflict"
    DATABASE_UNAVAILABLE = "database_unavailable"
    DUPLICATE_COOKIE = "duplicate_cookie"
    EMAIL_TAKEN = "email_taken"
    FEED_TOKEN_REQUIRED = "feed_token_required"  # noqa: S105 -- a code, not a credential
    HASH_QUEUE_FULL = "hash_queue_full"
    INSUFFICIENT_USER_AUTHENTICATION = "insufficient_user_authentication"
    INTERNAL_ERROR = "internal_error"
    INVALID_AUTHORIZATION_HEADER = "invalid_authorization_header"
    INVALID_CLIENT = "invalid_client"
    # One code for an unknown email, a wrong password and a disabled user: two would tell who has an account.
    INVALID_CREDENTIALS = "invalid_credentials"
    INVALID_SCOPE = "invalid_scope"
    INVALID_TOKEN = "invalid_token"  # noqa: S105 -- a code, not a credential
    KEYS_UNAVAILABLE = "keys_unavailable"
    MALFORMED_JSON = "malformed_json"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    MISSING_REFRESH_TOKEN = "missing_refresh_token"  # noqa: S105 -- a code, not a credential
    MISSING_TOKEN = "missing_token"  # noqa: S105 -- a code, not a credential
    NEXT_NOT_ALLOWED = "next_not_allowed"
    NOT_FOUND = "not_found"
    ORIGIN_NOT_ALLOWED = "origin_not_allowed"
    PASSWORDS_DO_NOT_MATCH = "passwords_do_not_match"
    REFRESH_TOKEN_REUSED = "refresh_token_reused"  # noqa: S105 -- a code, not a credential
    REVOCATIONS_UNKNOWN = "revocations_unknown"
    ROLE_REQUIRED = "role_required"
    SESSION_ENDED = "session_ended"
    # The same for another user's session as for one that does not exist: ids must not be probed.
    SESSION_NOT_FOUND = "session_not_found"
    TOKEN_EXPIRED = "token_expired"  # noqa: S105 -- a code, not a credential
    TOO_MANY_REQUESTS = "too_many_requests"
    UNSUPPORTED_GRANT_TYPE = "unsupported_grant_type"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    USER_GONE = "user_gone"
    USER_NOT_FOUND = "user_not_found"
    VALIDATION_FAILED = "validation_failed"


@dataclass(frozen=True, slots=True)
class Refused:
    """The outcome of an action that refuses, with the reason."""

    # A value and not an exception: an exception would roll back the audit row of the refused sign-in, or of the theft.
    code: Code
    retry_after_seconds: float | None = None
    """How long to wait, in seconds, if waiting helps."""


class LatchstringError(Exception):
    """The base class of every exception the package raises on purpose."""


class ConfigurationError(LatchstringError):
    """The settings are weak, incomplete or contradictory. The message says what to set, and contains no value."""

    # No value: messages end up in logs, and the rejected value may be a secret or a database URL with a password.


class RefusedError(LatchstringError):
    """A refusal raised to Python callers; over HTTP a refusal is a problem document."""

    def __init__(self, code: Code) -> None:
        super().__init__(code.value)
        self.code = code
        """The reason, from the closed list."""


class SubscriberError(LatchstringError):
    """A subscriber failed inside its event's transaction, which is rolled back. `__cause__` is its exception."""


class UnavailableError(LatchstringError):
    """Something the response depends on is unavailable. Every caller is refused (503); the client may try again."""

    # Fail closed: an outage must never let in a session that has ended, and never sign anybody out (401) either.

    code: ClassVar[Code]


class DatabaseUnavailableError(UnavailableError):
    """The database did not respond, or not in time."""

    code = Code.DATABASE_UNAVAILABLE


class HashQueueFullError(UnavailableError):
    """The queue of passwords waiting to be hashed is full."""

    code = Code.HASH_QUEUE_FULL


class KeysUnavailableError(UnavailableError):
    """This process has not read the signing keys yet."""

    code = Code.KEYS_UNAVAILABLE


class RevocationsUnknownError(UnavailableError):
    """This process has not read the revocation feed for longer than the allowed lag (5 s by default)."""

    code = Code.REVOCATIONS_UNKNOWN
