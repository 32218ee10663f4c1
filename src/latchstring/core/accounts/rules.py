"""What a user is, and when two e-mail addresses are the same."""

import re
import string
import unicodedata
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from email_validator import EmailNotValidError, validate_email

from latchstring.annotations import InstanceOnly

EMAIL_MAX_LENGTH = 254
NAME_MAX_LENGTH = 100
ROLE_MAX_LENGTH = 32
MAX_ROLES = 24
"""All of them ride in every access token, which a cookie must hold."""

_ROLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]*", re.ASCII)

_ASCII_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


@dataclass(frozen=True, slots=True)
class User(InstanceOnly):
    """A user, without anything that proves who it is."""

    id: UUID
    email: str
    """The canonical address; mail goes here and nowhere else."""
    first_name: str
    last_name: str
    created_at: datetime
    email_verified: bool
    disabled_at: datetime | None
    security_version: int
    """Rises when a proof made before must not open a session any more: password change, disabling."""
    claims_version: int
    """Rises when access tokens issued before must not be believed any more: roles changed, disabling, deletion."""
    roles: tuple[str, ...]

    @property
    def is_disabled(self) -> bool:
        """Whether the operator has shut this user out."""
        return self.disabled_at is not None


class InvalidRoleError(ValueError):
    """The text is no name of a role, or one role more than a user may have."""


def with_role(roles: tuple[str, ...], role: str) -> tuple[str, ...]:
    """Return the roles and one more; the same, where it is among them.

    Raises:
        InvalidRoleError: no name, or too many.
    """
    if len(role) > ROLE_MAX_LENGTH or _ROLE.fullmatch(role) is None:
        raise InvalidRoleError(
            f"a role's name has at most {ROLE_MAX_LENGTH} letters, digits and _.:- and begins with one of the first two"
        )
    if role in roles:
        return roles
    if len(roles) >= MAX_ROLES:
        raise InvalidRoleError(f"a user has at most {MAX_ROLES} roles")
    return tuple(sorted((*roles, role)))


class InvalidEmailError(ValueError):
    """The text is no e-mail address; the message says why, without repeating it."""


def canonical_email(text: str) -> str:
    """Return the one form in which an address is stored and compared: NFC, IDNA, ASCII lower case.

    Only ASCII letters are lowered: Unicode case rules would make the dotless i and `i` one letter, and two people one
    account (CVE-2019-19844). The database's own `lower()` differs between databases and is never asked.

    Raises:
        InvalidEmailError: not an address.
    """
    try:
        parts = validate_email(
            unicodedata.normalize("NFC", text.strip()),
            check_deliverability=False,
            strict=True,
            # Allows the reserved name .test, which can't receive mail and harms nobody.
            test_environment=True,
        )
    except (EmailNotValidError, UnicodeError):
        raise InvalidEmailError("must be an e-mail address") from None
    canonical = f"{parts.local_part}@{parts.ascii_domain}".translate(_ASCII_LOWER)
    if len(canonical) > EMAIL_MAX_LENGTH:
        raise InvalidEmailError("must be an e-mail address")
    return canonical
