"""Profile: the signed-in user sees who they are, and changes their names.

GET   /me   the user, read from the database
PATCH /me   other names, the user again
/account    the same as a page
"""

from latchstring.core.feature import Core, Foundation, Room
from latchstring.features.profile.pages import profile_pages
from latchstring.features.profile.routes import profile_router

__all__ = ["ProfileFeature"]


class ProfileFeature:
    """The signed-in user's own page."""

    def build(self, foundation: Foundation, core: Core) -> Room:
        """Return the room."""
        pages = profile_pages(core.accounts, core.page_edge) if core.page_edge else None
        return Room(name="profile", router=profile_router(core.accounts, foundation.edge), pages=pages)
