"""The revocation feed over HTTP: other services follow revocations without our database or a lookup per request.

    GET /revocations?after=CURSOR   the revocations since the cursor, for clients with a feed token

`latchstring feed-token create` makes such a token. `latchstring.verifier` is a client.
"""

from latchstring.core.feature import Core, FeatureParts, Tools
from latchstring.core.restore.stored import StoredData
from latchstring.features.revocation_feed.actions import FeedTokens
from latchstring.features.revocation_feed.routes import revocations_router

__all__ = ["RevocationFeedFeature"]

# Not voided: every service that follows the feed would refuse all tokens until it has a new one. And a feed token lets
# its holder read ids of ended sessions, and nobody in.
_STORED = StoredData(
    note="Feed tokens are as in the copy: compare `latchstring feed-token list`, and revoke those revoked since.",
)


class RevocationFeedFeature:
    """The revocation feed, for other services."""

    def build(self, tools: Tools, core: Core) -> FeatureParts:
        """Return the feature's parts."""
        tokens = FeedTokens(tools.database, tools.clock)
        return FeatureParts(
            name="revocations", router=revocations_router(core.feed, tokens, tools.web), stored=(_STORED,)
        )
