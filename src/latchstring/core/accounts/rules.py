"""Users, role names, and the canonical form of an email. Pure."""

import re
import string
import unicodedata
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from email_validator import EmailNotValidError, validate_email

from latchstring.annotations import InstanceOnly

# RFC 5321, section 4.5.3.1.3: a path has at most 256 octets, two of which are its angle brackets.
EMAIL_MAX_LENGTH = 254
NAME_MAX_LENGTH = 100
ROLE_MAX_LENGTH = 32
MAX_ROLES = 24
"""Every access token lists all of a user's roles, and has to fit into a cookie."""

# No spaces, commas or quotes: role names are printed in logs, command lines and claims as they are.
_ROLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]*", re.ASCII)

_ASCII_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


@dataclass(frozen=True, slots=True)
class User(InstanceOnly):
    """A user, without any credential."""

    id: UUID
    email: str
    """The canonical email. Mail is sent to no other spelling."""
    first_name: str
    last_name: str
    created_at: datetime
    email_verified: bool
    disabled_at: datetime | None
    security_version: int
    """Rises when earlier proofs must not create a session any more: password change, disabling, enabling."""
    claims_version: int
    """Rises when access tokens issued earlier must be refused: role change, disabling, all sessions revoked."""
    roles: tuple[str, ...]

    @property
    def is_disabled(self) -> bool:
        """Whether the user has been disabled, and can't sign in."""
        return self.disabled_at is not None


class InvalidRoleError(ValueError):
    """The role name is malformed, or the user already has the maximum number of roles."""


def with_role(roles: tuple[str, ...], role: str) -> tuple[str, ...]:
    """Return the roles with one more, sorted; unchanged if the role is already among them.

    Raises:
        InvalidRoleError: the name is malformed, or the user already has `MAX_ROLES` roles.
    """
    if len(role) > ROLE_MAX_LENGTH or _ROLE.fullmatch(role) is None:
        raise InvalidRoleError(
            f"a role name must begin with a letter or digit and have at most {ROLE_MAX_LENGTH} letters, digits and _.:-"
        )
    if role in roles:
        return roles
    # Refused here, by the operator's command, and not at the user's next sign-in, whose cookie would be too large.
    if len(roles) >= MAX_ROLES:
        raise InvalidRoleError(f"a user can have at most {MAX_ROLES} roles: withdraw one first")
    return tuple(sorted((*roles, role)))


class InvalidEmailError(ValueError):
    """The text is not a valid email. The message never repeats the text."""


def canonical_email(text: str) -> str:
    """Return the form in which an email is stored and compared: NFC, IDNA, ASCII lower case.

    Raises:
        InvalidEmailError: not a valid email.
    """
    try:
        parts = validate_email(
            unicodedata.normalize("NFC", text.strip()),
            check_deliverability=False,
            strict=True,
            # Allows the reserved domain .test, which can never receive mail.
            test_environment=True,
        )
    except (EmailNotValidError, UnicodeError):
        # Without the cause: the library's message quotes the text, and input is never echoed or logged.
        raise InvalidEmailError("must be a valid email") from None
    # Only ASCII letters are lowered. Unicode case rules map the dotless i to `i`, and would give two people one account
    # (CVE-2019-19844). The database's `lower()` is not used either: it differs between databases.
    canonical = f"{parts.local_part}@{parts.ascii_domain}".translate(_ASCII_LOWER)
    if len(canonical) > EMAIL_MAX_LENGTH:
        raise InvalidEmailError("must be a valid email")
    return canonical
