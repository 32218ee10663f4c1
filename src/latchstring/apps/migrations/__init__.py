"""The schema's history, inside the package: one line of revisions, run from code, in a version table of our own.

Alembic is imported only when there is something to do: a start on a current schema reads one row.
"""

import asyncio
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import sqlalchemy as sa

from latchstring.errors import DatabaseUnavailableError
from latchstring.foundation.database import Database

if TYPE_CHECKING:
    from alembic.config import Config

VERSION_TABLE = "latchstring_schema_version"
HEAD = "0003"
"""The newest revision; the suite compares it with the files."""

_LOCK_ID = 0x6C61_7463_6873_7472  # "latchstr": of several instances that start at once, one migrates

# Alembic's `op` is global to the process: two coroutines that migrate at once would mix. A lock belongs to its loop.
_locks: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


async def schema_revision(database: Database) -> str | None:
    """Return the revision the database is at; None before the first.

    Raises:
        DatabaseUnavailableError: the database is away.
    """

    def read(connection: sa.Connection) -> str | None:
        if not sa.inspect(connection).has_table(VERSION_TABLE):
            return None
        revision: str | None = connection.scalar(sa.text(f"SELECT version_num FROM {VERSION_TABLE}"))  # noqa: S608 -- a constant
        return revision

    async with database.reading() as connection:
        return await connection.run_sync(read)


async def schema_is_current(database: Database) -> bool:
    """Tell whether nothing is left to migrate.

    Raises:
        DatabaseUnavailableError: the database is away.
    """
    return await schema_revision(database) == HEAD


async def upgrade(database: Database) -> None:
    """Bring the schema to the newest revision; many may run it at once.

    Raises:
        DatabaseUnavailableError: the database is away, or its schema is of a newer version than this.
    """
    from alembic import command  # noqa: PLC0415 -- only when there is something to migrate
    from alembic.util import CommandError  # noqa: PLC0415 -- only when there is something to migrate

    def run(connection: sa.Connection) -> None:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:id)"), {"id": _LOCK_ID})
        command.upgrade(_config(connection), "head")

    lock = _locks.setdefault(asyncio.get_running_loop(), asyncio.Lock())
    try:
        async with lock, database.engine.begin() as connection:
            await connection.run_sync(run)
    except (sa.exc.OperationalError, sa.exc.InterfaceError, OSError) as error:
        raise DatabaseUnavailableError("the database is away") from error
    except CommandError:
        revision = await schema_revision(database)
        raise DatabaseUnavailableError(
            f"the schema is at {revision}, which this version does not know: a newer one made it"
        ) from None


def _config(connection: sa.Connection) -> "Config":
    from alembic.config import Config  # noqa: PLC0415 -- only when there is something to migrate

    config = Config()
    config.set_main_option("script_location", "latchstring:apps/migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config
