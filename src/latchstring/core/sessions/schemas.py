"""Sessions in responses."""

from datetime import datetime
from typing import Literal, Self
from uuid import UUID

from pydantic import BaseModel, Field

from latchstring.core.sessions.rules import ListedSession
from latchstring.foundation.web.openapi import example


class SessionResponse(BaseModel):
    """A session, as its owner sees it. Never includes a token."""

    model_config = example(
        {
            "id": "01a20ab4-9a92-7632-bd4a-562e58e1cd52",
            "created_at": "2026-11-23T23:18:57.938658Z",
            "last_used_at": "2026-11-23T23:41:07.118201Z",
            "expires_at": "2026-11-24T00:41:07Z",
            "user_agent": "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
            "ip": "203.0.113.7",
            "current": True,
            "methods": ["pwd"],
            # Not null, although it usually is: FastAPI would leave a null out of the OpenAPI document's example.
            "repeated_elsewhere_at": "2026-11-23T23:41:09.204417Z",
        }
    )

    id: UUID = Field(description="The `sid` of its tokens.")
    created_at: datetime
    last_used_at: datetime = Field(description="When it was last refreshed. Other requests are not recorded.")
    expires_at: datetime = Field(description="When it expires, unless it is refreshed before.")
    user_agent: str | None = Field(description="The User-Agent of the client that signed in.")
    ip: str | None = Field(description="The IP address of the client that signed in.")
    current: bool = Field(description="Whether it is the caller's own session.")
    methods: list[str] = Field(description="How the user proved who they are: `amr` values (RFC 8176).")
    repeated_elsewhere_at: datetime | None = Field(
        description="When a refresh was last repeated from another network or browser: a changed network, or a thief."
    )

    @classmethod
    def of(cls, listed: ListedSession, *, current_id: UUID) -> Self:
        """Return the fields of a session that its owner may see."""
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
            repeated_elsewhere_at=session.repeated_elsewhere_at,
        )


class SignedOutResponse(BaseModel):
    """Signed out: the sessions of all tokens in the request have been revoked."""

    status: Literal["success"] = "success"
