"""Sessions in answers."""

from datetime import datetime
from typing import Literal, Self
from uuid import UUID

from pydantic import BaseModel, Field

from latchstring.core.sessions.rules import ListedSession


class SessionResponse(BaseModel):
    """A session, as its owner sees it; never a token."""

    id: UUID = Field(description="The `sid` of its tokens.")
    created_at: datetime
    last_used_at: datetime = Field(description="When it was last refreshed; what a token is used for is not noted.")
    expires_at: datetime = Field(description="When it ends, unless it is refreshed before.")
    user_agent: str | None = Field(description="Of the client that signed in.")
    ip: str | None = Field(description="The address that client came from.")
    current: bool = Field(description="Whether it is the one that asks.")
    methods: list[str] = Field(description="How the user proved who they are: `amr` values of RFC 8176.")

    @classmethod
    def of(cls, listed: ListedSession, *, current_id: UUID) -> Self:
        """Return what may be shown of a session."""
        session = listed.session
        return cls(
            id=session.id,
            created_at=session.created_at,
            last_used_at=session.rotated_at,
            expires_at=session.expires_at,
            user_agent=listed.user_agent,
            ip=listed.address,
            current=session.id == current_id,
            methods=list(session.methods),
        )


class SignedOutResponse(BaseModel):
    """Signed out: whatever was shown is worth nothing from now on."""

    status: Literal["success"] = "success"
