"""Connections to PostgreSQL: what is behind one, before the pool takes it.

    a pooler     runs each transaction on another connection of its own, and a prepared statement stays in one of them
    a standby    lags behind: a session that it shows may have ended, so it must decide nothing
    hosts        are tried one after the other, in the time that one transaction has

`prepare_postgresql` applies this to an engine of our own. An application's engine is its own to configure, and
`statements_lost_by_pooler` finds out whether it has to.
"""

import asyncio
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine.interfaces import Dialect

from latchstring.errors import DatabaseUnavailableError
from latchstring.foundation.database.connection import TIMEOUT_SECONDS, Connection
from latchstring.foundation.database.settings import PreparedStatements

# PostgreSQL's error codes. https://www.postgresql.org/docs/current/errcodes-appendix.html
READ_ONLY: Final = "25006"
STATEMENTS_LOST: Final = frozenset({"26000", "42P05"})
"""A prepared statement does not exist, or exists already: it was prepared on another connection of a pooler."""

STATEMENTS_ARE_LOST = (
    "a connection pooler loses prepared statements: set LATCHSTRING_DATABASE_PREPARED_STATEMENTS to auto or off; on an "
    "engine of your own, connect_args to {'prepare_threshold': None} (psycopg) or {'statement_cache_size': 0} (asyncpg)"
)
STANDBY = "the database is a standby: the URL must lead to the primary server"


class StandbyError(DatabaseUnavailableError):
    """The database is a standby."""

    def __init__(self) -> None:
        super().__init__(STANDBY)


def prepare_postgresql(engine: sa.Engine, *, prepared_statements: PreparedStatements) -> None:
    """Check each new connection of an engine: no standby, and no prepared statements behind a pooler."""
    prepares = prepared_statements != "off"

    # Instead of the engine's own connecting: the driver's options depend on what is found, and SQLAlchemy's first
    # statements on a connection would be prepared already.
    def connect(dialect: Dialect, _record: object, arguments: list[Any], options: dict[str, Any]) -> object:
        nonlocal prepares
        does_prepare = prepares  # another connection, which is opened meanwhile, may meet the pooler first
        opened = _opened(dialect, arguments, options | _options(dialect, prepares=does_prepare))
        if not _checked(dialect, opened) or not does_prepare or prepared_statements == "on":
            return opened
        # asyncpg takes the option only when it connects. From now on the engine connects with it at once.
        prepares = False
        _end(dialect, opened)
        opened = _opened(dialect, arguments, options | _options(dialect, prepares=False))
        _checked(dialect, opened)
        return opened

    event.listen(engine, "do_connect", connect)


async def statements_lost_by_pooler(connection: Connection) -> bool:
    """Return whether the connection prepares statements although it leads through a pooler."""
    if connection.dialect.name != "postgresql":
        return False
    driver: Any = (await connection.get_raw_connection()).driver_connection
    if connection.dialect.driver == "psycopg":
        return driver.prepare_threshold is not None and (await _behind_psycopg(driver))[0]
    behind_pooler, _ = await _behind_asyncpg(driver)
    # With its cache of statements off, asyncpg gives none a name.
    return behind_pooler and bool((await driver.prepare("SELECT 1")).get_name())


def _options(dialect: Dialect, *, prepares: bool) -> dict[str, Any]:
    if prepares:
        return {}
    # asyncpg then sends a statement and its parameters at once. SQLAlchemy keeps the description of its result, and
    # nothing else, so that its own cache does no harm.
    return {"prepare_threshold": None} if dialect.driver == "psycopg" else {"statement_cache_size": 0}


def _opened(dialect: Dialect, arguments: list[Any], options: dict[str, Any]) -> Any:  # noqa: ANN401 -- SQLAlchemy's adapter
    hosts = options.get("host")
    if dialect.driver == "psycopg" or not isinstance(hosts, list):
        return dialect.connect(*arguments, **options)
    # asyncpg's timeout is for all hosts together: one that drops packets would use it up.
    for host, port in zip(hosts[:-1], options["port"], strict=False):
        try:
            return dialect.connect(*arguments, **options | {"host": host, "port": port})
        except Exception:  # noqa: BLE001, S112 -- whatever it is, the next host may do
            continue
    return dialect.connect(*arguments, **options | {"host": hosts[-1], "port": options["port"][-1]})


def _checked(dialect: Dialect, opened: Any) -> bool:  # noqa: ANN401 -- SQLAlchemy's adapter
    """Return whether a new connection leads through a pooler; close it, and raise, if it leads to a standby."""
    try:
        look = _behind_psycopg if dialect.driver == "psycopg" else _behind_asyncpg
        behind_pooler, is_standby = opened.run_async(look)
    except BaseException as error:
        _end(dialect, opened)
        # Below SQLAlchemy nothing translates the driver's own errors.
        if isinstance(error, Exception):
            raise ConnectionError("the database ended a new connection") from error
        raise
    if is_standby:
        _end(dialect, opened)
        raise StandbyError
    return bool(behind_pooler)


def _end(dialect: Dialect, opened: Any) -> None:  # noqa: ANN401 -- SQLAlchemy's adapter
    # Without a word to the server, which may hang.
    if dialect.driver == "psycopg":
        opened.close()
    else:
        opened.driver_connection.terminate()


# A pooler gives a client a process number of its own, because it has no server for it yet. (It is a guess: one in four
# billion is right by chance, and `off` says so for certain.)


async def _behind_psycopg(connection: Any) -> tuple[bool, bool]:  # noqa: ANN401 -- the driver need not be installed
    was_autocommit = connection.autocommit
    await connection.set_autocommit(True)  # one trip instead of three
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            cursor = await connection.execute("SELECT pg_backend_pid(), pg_is_in_recovery()", prepare=False)
            process, is_standby = await cursor.fetchone()
    finally:
        await connection.set_autocommit(was_autocommit)
    return process != connection.info.backend_pid, is_standby


async def _behind_asyncpg(connection: Any) -> tuple[bool, bool]:  # noqa: ANN401 -- the driver need not be installed
    # `execute` without parameters is the one thing that asyncpg does not prepare. It returns how many rows there were.
    async def holds(condition: str) -> bool:
        return bool(await connection.execute(f"SELECT WHERE {condition}") == "SELECT 1")

    async with asyncio.timeout(TIMEOUT_SECONDS):
        is_direct = await holds(f"pg_backend_pid() = {connection.get_server_pid():d}")
        return not is_direct, await holds("pg_is_in_recovery()")
