"""The revocation feed in responses."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from latchstring.core.revocations.rules import Revocation, RevocationKind
from latchstring.foundation.web.openapi import example


class FeedEntry(BaseModel):
    """What has ended: a session, a user's tokens below a claims version, or everyone's below an epoch."""

    model_config = ConfigDict(from_attributes=True)

    kind: RevocationKind
    session_id: UUID | None
    user_id: UUID | None
    below_version: int | None
    """With `user`, of the claim `ver`; with `everyone`, of the claim `epoch`, which is 0 where it is not there."""
    reason: str
    expires_at: datetime
    """When it may be forgotten."""

    def revocation(self) -> Revocation:
        """Return it as the memory of what has ended takes it."""
        return Revocation(**dict(self))


class FeedPageResponse(BaseModel):
    """A part of the revocation feed."""

    model_config = example(
        {
            "cursor": "812",
            "resync": False,
            "more": False,
            "entries": [],
            "retired_keys": [],
        }
    ) | ConfigDict(from_attributes=True)

    cursor: str
    resync: bool = Field(description="Everything is told anew, from this page on: forget what you knew.")
    more: bool = Field(description="Ask on at once: you do not know everything yet.")
    entries: list[FeedEntry]
    retired_keys: list[str] = Field(description="`kid`s of keys of which no token may be taken any more.")
