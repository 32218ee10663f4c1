"""The schema's history, inside the package: one line of revisions, run from code, in a version table of our own.

Alembic is imported only when there is something to do: a start on a current schema reads one row.
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
HEAD = "0004"
"""The newest revision; the suite compares it with the files."""

_LOCK_ID = 0x6C61_7463_6873_7472  # "latchstr": of several instances that start at once, one migrates

# Alembic's `op` is global to the process: two coroutines that migrate at once would mix.
_migration_lock = LoopLock()


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


def alembic_include_name(name: str | None, kind: str, _parents: Mapping[str, str | None]) -> bool:
    """Leave our tables out of a host's own Alembic: pass it to `context.configure` as `include_name`.

    Without it, autogenerate finds tables in the database that the host's models do not have, and proposes to drop them.
    """
    return kind != "table" or not (name or "").startswith(TABLE_PREFIX)


async def schema_drift(database: Database) -> list[str]:
    """Return in what our tables differ from what this version expects; nothing, where all is as it should be.

    Raises:
        DatabaseUnavailableError: the database is away.
    """
    from alembic.autogenerate import compare_metadata  # noqa: PLC0415 -- only for who asks
    from alembic.migration import MigrationContext  # noqa: PLC0415 -- only for who asks

    def ours(name: str | None, kind: str, parents: Mapping[str, str | None]) -> bool:
        return kind != "table" or (not alembic_include_name(name, kind, parents) and name != VERSION_TABLE)

    def differences(connection: sa.Connection) -> list[str]:
        options = {"compare_type": True, "compare_server_default": True, "include_name": ours}
        with warnings.catch_warnings():
            # SQLAlchemy can't reflect it, and need not.
            warnings.filterwarnings("ignore", "Did not recognize type 'xid8'", sa.exc.SAWarning)
            found = compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
        return [_in_words(difference) for difference in found]

    revision = await schema_revision(database)
    if revision != HEAD:
        return [f"it is at {revision or 'nothing yet'}, and {HEAD} is the newest: run latchstring migrate"]
    async with database.reading() as connection:
        return await connection.run_sync(differences)


def _in_words(difference: Any) -> str:  # noqa: ANN401 -- Alembic's own tuples, in several shapes
    if isinstance(difference, list):
        return "; ".join(_in_words(each) for each in difference)
    verb, *what = difference
    named = [getattr(each, "name", each) for each in what if isinstance(each, str | sa.schema.SchemaItem)]
    return f"{verb} {' '.join(str(name) for name in named)}"


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

    try:
        async with _migration_lock, database.engine.begin() as connection:
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
    config.set_main_option("script_location", "latchstring:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config
