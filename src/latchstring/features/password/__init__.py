"""Passwords: register with one, sign in with one.

    POST /register   hash (off the loop, no connection held) → insert user, hash and session in one transaction
    POST /login      read the hash → verify (equal work where there is none) → hand the proof to core.sign_in

The hash lives in this room's own table; a user without a row there has no password. bcrypt hashes as the tutorial
wrote them verify, and are replaced at the sign-in that proved them.
"""

from latchstring.core.feature import Core, Foundation, Room
from latchstring.features.password.actions import Passwords
from latchstring.features.password.routes import password_router

__all__ = ["PasswordFeature"]


class PasswordFeature:
    """Sign-in by password."""

    def build(self, foundation: Foundation, core: Core) -> Room:
        """Return the room."""
        passwords = Passwords(foundation.database, foundation.clock, foundation.passwords, core.sign_in)
        return Room(name="password", router=password_router(passwords, core.signed_in_answer, foundation.edge))
