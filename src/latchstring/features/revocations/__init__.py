"""Revocations: other services follow what has ended, without a lookup per request and without our database.

GET /revocations?after=CURSOR   what is new since, for whoever shows a feed token

`latchstring feed-token create` makes such a token; `latchstring.verifier` is a follower.
"""

from latchstring.core.feature import Core, Foundation, Room
from latchstring.features.revocations.actions import FeedTokens
from latchstring.features.revocations.routes import revocations_router

__all__ = ["RevocationsFeature"]


class RevocationsFeature:
    """The revocation feed, for other services."""

    def build(self, foundation: Foundation, core: Core) -> Room:
        """Return the room."""
        tokens = FeedTokens(foundation.database, foundation.clock)
        return Room(name="revocations", router=revocations_router(core.feed, tokens, foundation.edge))
