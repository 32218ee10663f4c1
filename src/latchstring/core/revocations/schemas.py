"""The revocation feed in responses."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from latchstring.core.revocations.rules import Revocation, RevocationKind
from latchstring.foundation.web.openapi import example


class FeedEntry(BaseModel):
    """A revocation of a session, of a user's tokens below a claims version, or of everyone's below an epoch."""

    model_config = ConfigDict(from_attributes=True)

    kind: RevocationKind
    session_id: UUID | None
    user_id: UUID | None
    below_version: int | None
    """For `user` compared with the claim `ver`; for `everyone` with the claim `epoch`, 0 if the token has none."""
    reason: str
    expires_at: datetime
    """When the entry may be dropped."""

    def revocation(self) -> Revocation:
        """Return the entry as a value for `RevokedSet`."""
        return Revocation(**dict(self))


class FeedPageResponse(BaseModel):
    """A page of the revocation feed."""

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
    resync: bool = Field(
        description="Whether this page begins the whole feed again. Drop earlier entries once the last page is read."
    )
    more: bool = Field(description="Whether to request the next page at once, because entries are missing.")
    entries: list[FeedEntry]
    retired_keys: list[str] = Field(description="The `kid`s of keys whose tokens must be refused.")
