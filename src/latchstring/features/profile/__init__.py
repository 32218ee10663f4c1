"""Profile: the signed-in user sees who they are, and changes their names.

GET   /me   the user, read from the database
PATCH /me   other names, the user again
/account    the same as a page
"""

from functools import partial

from latchstring.core.feature import Core, FeatureParts, Tools
from latchstring.features.profile.pages import profile_pages
from latchstring.features.profile.routes import profile_router
from latchstring.foundation.web.pages.translations import msgid

__all__ = ["ProfileFeature"]


class ProfileFeature:
    """The signed-in user's own page."""

    def build(self, tools: Tools, core: Core) -> FeatureParts:
        """Return the feature's parts."""
        return FeatureParts(
            name="profile",
            router=profile_router(core.users, tools.web),
            pages=partial(profile_pages, core.users),
            links=((msgid("Account"), "/account"),),
        )
