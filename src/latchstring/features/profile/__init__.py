"""Profile: the signed-in user reads their own account and changes their names.

    GET   /me   return the user, read from the database
    PATCH /me   change names, return the user
    /account    the same as a page

A feature and not part of `core/accounts`: its routes need the guard, which is above accounts, and an application may
want to replace them.
"""

from functools import partial

from latchstring.core.feature import Core, FeatureParts, Tools
from latchstring.features.profile.pages import profile_pages
from latchstring.features.profile.routes import profile_router
from latchstring.foundation.web.pages.translations import msgid

__all__ = ["ProfileFeature"]


class ProfileFeature:
    """Routes and a page with the signed-in user's own account."""

    def build(self, tools: Tools, core: Core) -> FeatureParts:
        """Return the feature's parts."""
        return FeatureParts(
            name="profile",
            router=profile_router(core.users, tools.web),
            pages=partial(profile_pages, core.users),
            links=((msgid("Account"), "/account"),),
        )
