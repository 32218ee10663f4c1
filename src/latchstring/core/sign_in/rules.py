"""Proofs of identity, and whether one is enough. Pure."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from latchstring.core.accounts.rules import User
from latchstring.errors import Code, Refused


class Method(StrEnum):
    """How someone proved who they are: `amr` values of RFC 8176."""

    PASSWORD = "pwd"  # noqa: S105 -- the name RFC 8176 gives it


@dataclass(frozen=True, slots=True)
class Proof:
    """Someone showed, at `proven_at`, that they are `user` as it was then."""

    user: User
    method: Method
    proven_at: datetime


def admit(proof: Proof, *, user_now: User | None) -> User | Refused:
    """Return the user whom the proof lets in, as it is now, or the refusal.

    Checking a password takes time, and the account may change meanwhile: a proof given before the password was
    changed or the user disabled is worth nothing. Whoever is turned away hears nothing of the reason.
    """
    if user_now is None or user_now.is_disabled or user_now.security_version != proof.user.security_version:
        return Refused(Code.INVALID_CREDENTIALS)
    return user_now
