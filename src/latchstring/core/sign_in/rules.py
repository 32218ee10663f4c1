"""Proofs of identity, and whether one is enough. Pure."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from latchstring.core.accounts.rules import User
from latchstring.errors import Code, Refused


class Method(StrEnum):
    """How a user proved who they are: `amr` values of RFC 8176."""

    PASSWORD = "pwd"  # noqa: S105 -- the name RFC 8176 gives it


@dataclass(frozen=True, slots=True)
class Proof:
    """What a sign-in method found out: at `proven_at`, this user proved who they are by this method."""

    user: User
    """The user as read when the proof was checked."""
    method: Method
    proven_at: datetime


def admit(proof: Proof, *, user_now: User | None) -> User | Refused:
    """Return the user as it is now if the proof is enough; otherwise the refusal.

    A proof is void once the user is deleted or disabled, or the password has changed since (`security_version`).

    Args:
        proof: the proof, with the user as read when it was checked.
        user_now: the user's row as it is now, locked; None if the user has been deleted.
    """
    # Checking a password takes time, and the account may change meanwhile. One code for every reason, as for a wrong
    # password: the response must not reveal that an account exists (CVE-2021-29621, Flask-AppBuilder).
    if user_now is None or user_now.is_disabled or user_now.security_version != proof.user.security_version:
        return Refused(Code.INVALID_CREDENTIALS)
    return user_now
