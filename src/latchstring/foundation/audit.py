"""The audit trail: each event is a row, written in the transaction of the change that it records.

Either both are committed or neither is. Subscribers are notified at the end of that transaction, or after it.
"""

import sqlalchemy as sa

from latchstring.foundation.clock import new_id
from latchstring.foundation.database import Connection, UtcDateTime, metadata, recorded_events
from latchstring.foundation.events import Event

USER_AGENT_MAX_LENGTH = 512

audit = sa.Table(
    "latchstring_audit",
    metadata,
    sa.Column("id", sa.Uuid(), primary_key=True),
    sa.Column("at", UtcDateTime(), nullable=False),
    # The event's name. The column keeps the name that it got in the first migration.
    sa.Column("fact", sa.String(64), nullable=False),
    sa.Column("reason", sa.String(64)),
    # No foreign keys: the trail must outlive the users and sessions that it records.
    sa.Column("user_id", sa.Uuid(), index=True),
    sa.Column("session_id", sa.Uuid()),
    sa.Column("actor", sa.String(16), nullable=False),
    sa.Column("address", sa.String(64)),
    sa.Column("user_agent", sa.String(USER_AGENT_MAX_LENGTH)),
    sa.Column("request_id", sa.String(64)),
)

_INSERT = audit.insert()


async def record(connection: Connection, event: Event) -> None:
    """Write one event in the open transaction, and note it for the subscribers."""
    source = event.source
    await connection.execute(
        _INSERT,
        {
            "id": new_id(event.at),
            "at": event.at,
            "fact": event.name,
            "reason": None if event.remark is None else str(getattr(event, event.remark)),
            "user_id": getattr(event, "user_id", None),
            "session_id": getattr(event, "session_id", None),
            "actor": source.actor,
            "address": source.address,
            "user_agent": source.user_agent,
            "request_id": source.request_id,
        },
    )
    recorded_events(connection).append(event)
