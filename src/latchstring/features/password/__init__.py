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

from functools import partial

from latchstring.core.feature import Core, FeatureParts, Tools
from latchstring.features.password.actions import Passwords
from latchstring.features.password.pages import password_pages, password_step_up
from latchstring.features.password.routes import password_grant, password_router
from latchstring.foundation.web.pages.translations import msgid

__all__ = ["PasswordFeature"]


class PasswordFeature:
    """Sign-in by password."""

    def build(self, tools: Tools, core: Core) -> FeatureParts:
        """Return the feature's parts."""
        passwords = Passwords(tools.database, tools.clock, tools.passwords, tools.limits, sign_in=core.sign_in)
        step_up = password_step_up(passwords, core.refresher, tools.web)
        return FeatureParts(
            name="password",
            router=password_router(passwords, core.refresher, core.signed_in_response, tools.web),
            pages=partial(password_pages, passwords, step_up),
            links=((msgid("Password"), "/account/password"),),
            step_up=step_up,
            grants={"password": password_grant(passwords)},
        )
