"""Passwords: register with one, sign in with one, prove again who one is, change it.

    POST /register          hash (off the loop, no connection held) → insert user, hash and session in one transaction
    POST /login             count the try, read the hash → verify (equal work where there is none) → hand the proof to
                            core.sign_in
    POST /confirm           the same, and core.sign_in proves the caller's session anew
    POST /password/change   the same → the new hash in the old one's place; a new session in the place of all
    POST /token             what the grant `password` is worth

    /sign-up, /sign-in, /account/password, /account/confirm     the same as pages

The hash lives in this room's own table; a user without a row there has no password. bcrypt hashes as the tutorial
wrote them verify, and are replaced at the sign-in that proved them.
"""

from latchstring.core.feature import Core, Foundation, Room
from latchstring.features.password.actions import Passwords
from latchstring.features.password.pages import password_pages
from latchstring.features.password.routes import password_grant, password_router

__all__ = ["PasswordFeature"]


class PasswordFeature:
    """Sign-in by password."""

    def build(self, foundation: Foundation, core: Core) -> Room:
        """Return the room."""
        passwords = Passwords(
            foundation.database,
            foundation.clock,
            foundation.passwords,
            foundation.limits,
            sign_in=core.sign_in,
        )
        pages = core.page_edge
        return Room(
            name="password",
            router=password_router(passwords, core.sessions, core.signed_in_answer, foundation.edge),
            pages=password_pages(passwords, core.sessions, pages) if pages else None,
            grants={"password": password_grant(passwords)},
        )
