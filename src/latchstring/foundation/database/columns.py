"""Types of columns, the metadata of all tables, and an INSERT that does nothing on a conflict."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import sqlalchemy as sa

from latchstring.foundation.database.connection import Connection, is_postgresql

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql, sqlite
    from sqlalchemy.engine.interfaces import Dialect

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)
"""All tables. Each is named `latchstring_…`, because a host's database may have a `users` table of its own."""


class UtcDateTime(sa.types.TypeDecorator[datetime]):
    """An instant: accepted only with a time zone, returned in UTC, on every database."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: "Dialect") -> datetime | None:  # noqa: ARG002
        if value is None:
            return None
        # A naive time would mean another instant on each machine: expiries would be hours off.
        if value.tzinfo is None:
            raise ValueError("an instant needs a time zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: "Dialect") -> datetime | None:  # noqa: ARG002
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class _Xid8(sa.types.UserDefinedType[int]):
    """PostgreSQL's 64-bit transaction id; passed as text, which every driver supports."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        return "xid8"


# 64 bits: the older 32-bit `xid` wraps around, and entries of the revocation feed would be missed.
xid8 = sa.BigInteger().with_variant(_Xid8(), "postgresql")


# SQLite's INTEGER has 64 bits already; BIGINT there would only make Alembic copy the table.
bigint = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
"""An integer of 64 bits on both databases: for numbers that follow the clock, which pass 32 bits in 2038."""


def insert_or_ignore(connection: Connection, table: sa.Table) -> "postgresql.Insert | sqlite.Insert":
    """Return an INSERT into `table` that does nothing, instead of failing, if it violates a unique constraint."""
    # Imported here: a process that uses one database must not pay megabytes for the other's dialect.
    if is_postgresql(connection):
        from sqlalchemy.dialects.postgresql import insert as postgresql_insert  # noqa: PLC0415

        return postgresql_insert(table).on_conflict_do_nothing()
    from sqlalchemy.dialects.sqlite import insert as sqlite_insert  # noqa: PLC0415

    return sqlite_insert(table).on_conflict_do_nothing()
