"""Every error of the package and the closed list of refusal codes.

    LatchstringError
    ├── ConfigurationError        settings are wrong: refuse to start, exit code 3
    ├── RefusedError              no: with the code that says why
    ├── SubscriberError           an application's own code failed inside a transaction: nothing was changed
    └── UnavailableError          try again later: 503 with Retry-After
        ├── DatabaseUnavailableError
        ├── HashQueueFullError
        ├── KeysUnavailableError
        └── RevocationsUnknownError

A refusal (wrong password, expired token) is not an error: inside the package it is a value that carries a
`Code`, so that what was recorded about it commits. The HTTP web turns the code into a problem document.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar


class Code(StrEnum):
    """The stable `code` of every refusal; clients may switch on it, so a name is never changed or reused."""

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
    """The outcome of an action that says no, and why."""

    code: Code
    retry_after_seconds: float | None = None
    """Where waiting helps: how long."""


class LatchstringError(Exception):
    """The base of every exception the package raises on purpose."""


class ConfigurationError(LatchstringError):
    """The settings are weak, incomplete or contradict each other. The message says what to set; it holds no value."""


class RefusedError(LatchstringError):
    """A refusal, for code that is called and not asked over HTTP."""

    def __init__(self, code: Code) -> None:
        super().__init__(code.value)
        self.code = code
        """Why: from the closed list."""


class SubscriberError(LatchstringError):
    """A subscriber failed inside the transaction it took part in, which is undone. The cause is what it raised."""


class UnavailableError(LatchstringError):
    """Something the answer depends on is away for now. Nobody is let in; the client may try again."""

    code: ClassVar[Code]


class DatabaseUnavailableError(UnavailableError):
    """The database did not answer, or not in time."""

    code = Code.DATABASE_UNAVAILABLE


class HashQueueFullError(UnavailableError):
    """More passwords wait to be hashed than the queue may hold."""

    code = Code.HASH_QUEUE_FULL


class KeysUnavailableError(UnavailableError):
    """This process has not read the signing keys yet."""

    code = Code.KEYS_UNAVAILABLE


class RevocationsUnknownError(UnavailableError):
    """This process has not been able to follow revocations for longer than the allowed lag."""

    code = Code.REVOCATIONS_UNKNOWN
