"""The revocation feed over HTTP: other services follow revocations without our database or a lookup per request.

    GET /revocations?after=CURSOR   the revocations since the cursor, for clients with a feed token

`latchstring feed-token create` makes such a token. `latchstring.verifier` is a client.
"""

from latchstring.core.feature import Core, FeatureParts, Tools
from latchstring.features.revocation_feed.actions import FeedTokens
from latchstring.features.revocation_feed.routes import revocations_router

__all__ = ["RevocationFeedFeature"]


class RevocationFeedFeature:
    """The revocation feed, for other services."""

    def build(self, tools: Tools, core: Core) -> FeatureParts:
        """Return the feature's parts."""
        tokens = FeedTokens(tools.database, tools.clock)
        return FeatureParts(name="revocations", router=revocations_router(core.feed, tokens, tools.web))
