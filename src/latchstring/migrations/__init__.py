"""The schema's migrations, run from code: a linear Alembic history with a version table of its own.

Alembic is imported only if a migration is due: a start on a current schema reads one row.
"""

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from latchstring.errors import DatabaseUnavailableError
from latchstring.foundation.database import Database, metadata
from latchstring.foundation.loop_lock import LoopLock

if TYPE_CHECKING:
    from alembic.config import Config

TABLE_PREFIX = "latchstring_"
VERSION_TABLE = "latchstring_schema_version"
HEAD = "0005"
"""The newest revision; a test compares it with the files."""

_LOCK_ID = 0x6C61_7463_6873_7472  # "latchstr": if several instances start at once, one migrates and the others wait

# Alembic's `op` is global to the process: two migrations at once would run on each other's connection.
_migration_lock = LoopLock()


async def schema_revision(database: Database) -> str | None:
    """Return the database's revision; None if it has no schema of ours yet.

    Raises:
        DatabaseUnavailableError: the database is unavailable.
    """

    def read(connection: sa.Connection) -> str | None:
        # Looked up first: on PostgreSQL a query of a missing table is an error, also in the server's log.
        if not sa.inspect(connection).has_table(VERSION_TABLE):
            return None
        revision: str | None = connection.scalar(sa.text(f"SELECT version_num FROM {VERSION_TABLE}"))  # noqa: S608 -- a constant
        return revision

    async with database.reading() as connection:
        return await connection.run_sync(read)


async def schema_is_current(database: Database) -> bool:
    """Return whether the schema is at the newest revision.

    Raises:
        DatabaseUnavailableError: the database is unavailable.
    """
    return await schema_revision(database) == HEAD


def alembic_include_name(name: str | None, kind: str, _parents: Mapping[str, str | None]) -> bool:
    """Exclude our tables from a host's own Alembic: pass this to `context.configure` as `include_name`.

    Without it, autogenerate proposes to drop our tables, because the host's models do not have them.
    """
    return kind != "table" or not (name or "").startswith(TABLE_PREFIX)


async def schema_drift(database: Database) -> list[str]:
    """Return how our tables differ from those that this version expects; an empty list if they do not.

    Raises:
        DatabaseUnavailableError: the database is unavailable.
    """
    from alembic.autogenerate import compare_metadata  # noqa: PLC0415 -- only when a check is asked for
    from alembic.migration import MigrationContext  # noqa: PLC0415 -- only when a check is asked for

    def ours(name: str | None, kind: str, parents: Mapping[str, str | None]) -> bool:
        return kind != "table" or (not alembic_include_name(name, kind, parents) and name != VERSION_TABLE)

    def differences(connection: sa.Connection) -> list[str]:
        options = {"compare_type": True, "compare_server_default": True, "include_name": ours}
        with warnings.catch_warnings():
            # SQLAlchemy can't reflect this type of PostgreSQL, and does not need to here.
            warnings.filterwarnings("ignore", "Did not recognize type 'xid8'", sa.exc.SAWarning)
            found = compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
        return [_in_words(difference) for difference in found]

    revision = await schema_revision(database)
    if revision != HEAD:
        return [f"the schema is at {revision or 'no revision'}, and {HEAD} is the newest: run latchstring migrate"]
    async with database.reading() as connection:
        return await connection.run_sync(differences)


def _in_words(difference: Any) -> str:  # noqa: ANN401 -- Alembic's own tuples, in several shapes
    if isinstance(difference, list):
        return "; ".join(_in_words(each) for each in difference)
    verb, *what = difference
    named = [getattr(each, "name", each) for each in what if isinstance(each, str | sa.schema.SchemaItem)]
    return f"{verb} {' '.join(str(name) for name in named)}"


async def upgrade(database: Database) -> None:
    """Migrate the schema to the newest revision. Safe to run in many processes at once.

    Raises:
        DatabaseUnavailableError: the database is unavailable, or its schema is of a newer version of this package.
    """
    from alembic import command  # noqa: PLC0415 -- only when there is something to migrate
    from alembic.util import CommandError  # noqa: PLC0415 -- only when there is something to migrate

    def run(connection: sa.Connection) -> None:
        # On SQLite the write transaction that is open here already excludes all others.
        if connection.dialect.name == "postgresql":
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:id)"), {"id": _LOCK_ID})
        command.upgrade(_config(connection), "head")

    try:
        async with _migration_lock, database.engine.begin() as connection:
            await connection.run_sync(run)
    except (sa.exc.OperationalError, sa.exc.InterfaceError, OSError) as error:
        raise DatabaseUnavailableError("the database is unavailable") from error
    # An unknown revision: during a rolling update, or after a rollback, an older version must not touch a newer schema.
    except CommandError:
        revision = await schema_revision(database)
        raise DatabaseUnavailableError(
            f"the schema is at {revision}, which this version does not know: install the newer version that made it"
        ) from None


def _config(connection: sa.Connection) -> "Config":
    from alembic.config import Config  # noqa: PLC0415 -- only when there is something to migrate

    config = Config()
    config.set_main_option("script_location", "latchstring:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config
