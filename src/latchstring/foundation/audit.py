"""The audit trail: what happened to an account or a session, written in the transaction of the change itself.

Either both are there or neither is. A fact never holds a password, a token, a hash or what a visitor typed.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import sqlalchemy as sa

from latchstring.foundation.clock import new_id
from latchstring.foundation.database import Connection, UtcDateTime, metadata


class Fact(StrEnum):
    """The kinds of facts."""

    EVERYONE_SIGNED_OUT = "everyone.signed_out"
    FEED_TOKEN_CREATED = "feed_token.created"  # noqa: S105 -- as below
    FEED_TOKEN_REVOKED = "feed_token.revoked"  # noqa: S105 -- as below
    KEY_CREATED = "key.created"
    KEY_RETIRED = "key.retired"
    KEY_RETIRED_AT_ONCE = "key.retired_at_once"
    PASSWORD_CHANGED = "password.changed"  # noqa: S105 -- as below
    PASSWORD_UPGRADED = "password.upgraded"  # noqa: S105 -- a name, not a password
    SECRET_CHANGED = "secret.changed"  # noqa: S105 -- as below
    SESSION_ENDED = "session.ended"
    SESSION_OPENED = "session.opened"
    SESSION_PROVEN = "session.proven"
    SESSION_REFRESH_REUSED = "session.refresh_reused"
    SESSIONS_ENDED = "sessions.ended"
    SIGN_IN_REFUSED = "sign_in.refused"
    USER_DELETED = "user.deleted"
    USER_DISABLED = "user.disabled"
    USER_ENABLED = "user.enabled"
    USER_REGISTERED = "user.registered"
    USER_RENAMED = "user.renamed"


@dataclass(frozen=True, slots=True)
class Source:
    """Where an action came from: a visitor's request, or the operator's command line."""

    actor: str
    """`visitor`, `operator` or `system`."""
    address: str | None = None
    user_agent: str | None = None
    request_id: str | None = None


OPERATOR = Source(actor="operator")
SYSTEM = Source(actor="system")

USER_AGENT_MAX_LENGTH = 512

audit = sa.Table(
    "latchstring_audit",
    metadata,
    sa.Column("id", sa.Uuid(), primary_key=True),
    sa.Column("at", UtcDateTime(), nullable=False),
    sa.Column("fact", sa.String(64), nullable=False),
    sa.Column("reason", sa.String(64)),
    # No foreign keys: the trail outlives what it speaks of.
    sa.Column("user_id", sa.Uuid(), index=True),
    sa.Column("session_id", sa.Uuid()),
    sa.Column("actor", sa.String(16), nullable=False),
    sa.Column("address", sa.String(64)),
    sa.Column("user_agent", sa.String(USER_AGENT_MAX_LENGTH)),
    sa.Column("request_id", sa.String(64)),
)

_INSERT = audit.insert()


async def record(
    connection: Connection,
    fact: Fact,
    *,
    now: datetime,
    source: Source,
    user_id: UUID | None = None,
    session_id: UUID | None = None,
    reason: str | None = None,
) -> None:
    """Write one fact into the open transaction."""
    await connection.execute(
        _INSERT,
        {
            "id": new_id(now),
            "at": now,
            "fact": fact.value,
            "reason": reason,
            "user_id": user_id,
            "session_id": session_id,
            "actor": source.actor,
            "address": source.address,
            "user_agent": source.user_agent,
            "request_id": source.request_id,
        },
    )
