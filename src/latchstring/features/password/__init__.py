"""Passwords: register, sign in, confirm the session and change the password.

    POST /register          hash (off the event loop, no connection held) → insert user, hash and session in one
                            transaction
    POST /login             reserve a slot, read the hash → verify (equal work without a hash) → pass the proof to
                            core.sign_in
    POST /confirm           the same; core.sign_in then confirms the caller's session
    POST /password/change   the same → replace the hash; replace all sessions with a new one
    POST /token             sign in by the grant `password` (RFC 6749, section 4.3)

    /sign-up, /sign-in, /account/password, /account/confirm     the same as pages

Hashes are in a table of this package; a user without a row there has no password. The tutorial's bcrypt hashes are
verified, and replaced by Argon2id at the next successful sign-in.
"""

from functools import partial

from latchstring.core.feature import Core, FeatureParts, Tools
from latchstring.core.restore.stored import StoredData
from latchstring.features.password.actions import Passwords
from latchstring.features.password.pages import password_pages, password_step_up
from latchstring.features.password.routes import password_grant, password_router
from latchstring.foundation.web.pages.translations import msgid

__all__ = ["PasswordFeature"]

_STORED = StoredData(
    note="Passwords are as in the copy: one that was changed since, perhaps because others knew it, is valid again.",
)


class PasswordFeature:
    """Sign-in by password."""

    def build(self, tools: Tools, core: Core) -> FeatureParts:
        """Return the feature's parts."""
        passwords = Passwords(
            tools.database, tools.clock, tools.passwords, tools.limits, sign_in=core.sign_in, meter=tools.meter
        )
        step_up = password_step_up(passwords, core.refresher, tools.web)
        return FeatureParts(
            name="password",
            router=password_router(passwords, core.refresher, core.signed_in_response, tools.web),
            pages=partial(password_pages, passwords, step_up),
            links=((msgid("Password"), "/account/password"),),
            step_up=step_up,
            grants={"password": password_grant(passwords)},
            stored=(_STORED,),
        )
