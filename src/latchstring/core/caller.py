"""Who is asking, and how and when they proved it."""

from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Caller:
    """The bearer of a valid access token, known from its claims alone: nothing was read to make this."""

    user_id: UUID
    session_id: UUID
    claims_version: int
    epoch: int
    """How often everyone had been signed out when the session was opened."""
    roles: tuple[str, ...]
    methods: tuple[str, ...]
    """How the user proved who they are, as `amr` values of RFC 8176: `pwd`, …"""
    proven_at_unix: int
    """When they did, in seconds since 1970."""
    issued_at_unix: int
    expires_at_unix: int

    @property
    def proven_at(self) -> datetime:
        """When the user last proved who they are."""
        return datetime.fromtimestamp(self.proven_at_unix, UTC)
