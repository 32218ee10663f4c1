"""The database: one engine, two ways in, and the types of our columns.

    async with database.transaction() as connection:   a write: commits at the end, or nothing happened
    async with database.reading() as connection:       single statements, each seeing what is committed

Who listens hears of the facts that a transaction recorded, at its end and after it.

SQLite has one writer. In this process the writers queue on a lock instead of spinning on the file, and each write
begins with BEGIN IMMEDIATE, so that a transaction that has read never finds, too late, that it may not write.
Whatever way the database is away (refused, hung, gone in the middle), callers see DatabaseUnavailableError.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol, cast

import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.util import await_only, greenlet_spawn

from latchstring.errors import ConfigurationError, DatabaseUnavailableError
from latchstring.foundation.facts import Fact
from latchstring.foundation.locks import LoopLock
from latchstring.foundation.sqlite import OneTripConnection, connect

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql, sqlite
    from sqlalchemy.engine.interfaces import DBAPIConnection, Dialect

__all__ = [
    "Connection",
    "Database",
    "Engine",
    "Listener",
    "UtcDateTime",
    "insert_or_ignore",
    "is_disconnection",
    "is_postgresql",
    "lock_each",
    "lock_exclusively",
    "lock_if_free",
    "metadata",
    "noted_facts",
    "postgresql_url",
    "xid8",
]

Connection = AsyncConnection
"""A connection inside `transaction()` or `reading()`; actions hand it to stores and never look inside."""

Engine = AsyncEngine
"""An application's own engine, to be shared."""

TIMEOUT_SECONDS = 5.0
"""How long one transaction may take, waiting for a connection included, before the caller is told 503."""
_POOL_SIZE = 8
_WAL_ATTEMPTS = 25

SQLITE_LOCK_SECONDS = TIMEOUT_SECONDS / 2
"""How long of it a write waits for this process's other writers, and then again for another process's."""

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)
"""All our tables; each is called `latchstring_…`, because a host's database has a `users` of its own."""


class UtcDateTime(sa.types.TypeDecorator[datetime]):
    """An instant. Goes in only with a time zone, comes out in UTC, on every database."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: "Dialect") -> datetime | None:  # noqa: ARG002
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("an instant needs a time zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: "Dialect") -> datetime | None:  # noqa: ARG002
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class _Xid8(sa.types.UserDefinedType[int]):
    """PostgreSQL's 64-bit transaction id; it travels as text, which every driver knows."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        return "xid8"


xid8 = sa.BigInteger().with_variant(_Xid8(), "postgresql")


class Listener(Protocol):
    """Who hears of the facts of a transaction."""

    async def tell_inside(self, facts: Sequence[Fact], connection: Connection) -> None:
        """Hear of them while the transaction is open; raise to undo it all."""
        ...

    def tell_after(self, facts: Sequence[Fact]) -> None:
        """Hear of them once they are committed."""
        ...


class Database:
    """Short transactions, bounded waits, one kind of failure; on an engine of its own, or on an application's.

    An application's engine lends its pool, and stays as it is. On SQLite it lends its file's address: what a connection
    there must be told before we can use it would hold for the application's own statements, too.
    """

    def __init__(self, database: str | Engine, *, listener: Listener | None = None) -> None:
        self.url = _checked_url(database)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._is_lent = isinstance(database, AsyncEngine) and not self.is_sqlite
        self.engine = database if isinstance(database, AsyncEngine) and self._is_lent else self._own_engine()
        self._writing = self.engine.execution_options(**_POSTGRESQL_OPTIONS) if self._is_lent else self.engine
        self._reading = self.engine.execution_options(
            **({_READING: True} if self.is_sqlite else {"isolation_level": "AUTOCOMMIT"})
        )
        self._listener = listener
        self._writer = LoopLock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing: set[asyncio.Task[None]] = set()
        if self.is_sqlite:
            event.listen(self.engine.sync_engine, "connect", _prepare_sqlite)
            event.listen(self.engine.sync_engine, "begin", _begin_sqlite)

    def _own_engine(self) -> AsyncEngine:
        try:
            return create_async_engine(
                self.url,
                # No overflow: connections beyond the pool would be opened and closed again at every busy moment.
                pool_size=_POOL_SIZE,
                max_overflow=0,
                pool_timeout=TIMEOUT_SECONDS,
                connect_args=_CONNECT_ARGUMENTS[self.url.drivername],
                **({"async_creator": self._connect_sqlite} if self.is_sqlite else _POSTGRESQL_OPTIONS),
            )
        except ModuleNotFoundError as error:
            raise ConfigurationError(
                f"the database driver {error.name} is not installed: pip install 'latchstring[postgres]'"
            ) from None

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Open a write transaction; it commits when the block ends and rolls back when the block raises.

        Raises:
            DatabaseUnavailableError: the database is away or did not answer within five seconds.
        """
        facts: list[Fact] = []
        with _failures_translated():
            async with (
                asyncio.timeout(TIMEOUT_SECONDS),
                self._turn_to_write(),
                self._connected(self._writing) as connection,
                connection.begin(),
            ):
                _sync(connection).execution_options(**{_FACTS: facts})
                yield connection
                if self._listener is not None and facts:
                    await self._listener.tell_inside(facts, connection)
        if self._listener is not None and facts:
            self._listener.tell_after(facts)

    @contextlib.asynccontextmanager
    async def reading(self) -> AsyncIterator[Connection]:
        """Open a connection for single statements; nothing is held between two of them but the connection.

        Raises:
            DatabaseUnavailableError: the database is away or did not answer within five seconds.
        """
        with _failures_translated():
            async with asyncio.timeout(TIMEOUT_SECONDS), self._connected(self._reading) as connection:
                yield connection

    async def read_one(self, statement: sa.Select[Any], parameters: Mapping[str, object]) -> sa.Row[Any] | None:
        """Run one statement and return its only row, or None: `reading()` for the hottest question there is.

        On SQLite everything from the pool and back happens in one greenlet, at two thirds of the cost.

        Raises:
            DatabaseUnavailableError: the database is away or did not answer within five seconds.
        """
        if not self.is_sqlite:
            async with self.reading() as connection:
                result = await connection.execute(statement, parameters)
                return cast("sa.Row[Any] | None", result.one_or_none())

        def read() -> sa.Row[Any] | None:
            with self._reading.sync_engine.connect() as connection:
                row: sa.Row[Any] | None = connection.execute(statement, parameters).one_or_none()
                return row

        with _failures_translated():
            async with asyncio.timeout(TIMEOUT_SECONDS):
                row: sa.Row[Any] | None = await greenlet_spawn(read)
                return row

    async def close(self) -> None:
        """Close every connection of ours."""
        await asyncio.gather(*self._closing, return_exceptions=True)
        if not self._is_lent:
            await self.engine.dispose()

    @contextlib.asynccontextmanager
    async def _turn_to_write(self) -> AsyncIterator[None]:
        if not self.is_sqlite:
            yield
            return
        # Half of the time is for the writers of this process, half for SQLite to wait for another one's.
        async with asyncio.timeout(SQLITE_LOCK_SECONDS):
            await self._writer.acquire()
        try:
            yield
        finally:
            self._writer.release()

    def _connected(self, engine: AsyncEngine) -> contextlib.AbstractAsyncContextManager[Connection]:
        return engine.connect() if self.is_sqlite else self._connected_whole(engine)

    @contextlib.asynccontextmanager
    async def _connected_whole(self, engine: AsyncEngine) -> AsyncIterator[Connection]:
        self._leave_a_loop_that_is_gone()
        # In a task of its own: whoever is cut off while SQLAlchemy connects would lose a connection that nobody holds.
        opening = asyncio.create_task(_opened(engine))
        try:
            connection = await asyncio.shield(opening)
        except asyncio.CancelledError:
            closing = asyncio.create_task(_close_when_open(opening))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
            raise
        try:
            yield connection
        finally:
            await asyncio.shield(asyncio.create_task(connection.close()))

    def _leave_a_loop_that_is_gone(self) -> None:
        # Its connections can't be used in another one, nor be closed there.
        loop = asyncio.get_running_loop()
        if self._loop is not None and self._loop is not loop and self._loop.is_closed() and not self._is_lent:
            self.engine.sync_engine.dispose(close=False)
        self._loop = loop

    async def _connect_sqlite(self) -> OneTripConnection:
        (location,), options = self.engine.dialect.create_connect_args(self.url)
        return await connect(location, **options)


async def _opened(engine: AsyncEngine) -> Connection:
    return await engine.connect()


async def _close_when_open(opening: "asyncio.Task[Connection]") -> None:
    with contextlib.suppress(Exception):
        await (await opening).close()


def noted_facts(connection: Connection) -> list[Fact]:
    """Return the facts that this transaction has recorded so far, to be added to."""
    facts: list[Fact] = _sync(connection).get_execution_options()[_FACTS]
    return facts


def _sync(connection: Connection) -> sa.Connection:
    if connection.sync_connection is None:
        raise RuntimeError("the connection is not open")
    return connection.sync_connection


def is_disconnection(error: Exception) -> bool:
    """Tell whether an error means that the database is gone."""
    return isinstance(error, exc.DBAPIError) and error.connection_invalidated


def is_postgresql(connection: Connection) -> bool:
    """Tell which of our two databases this is."""
    return connection.dialect.name == "postgresql"


def postgresql_url(*, user: str, password: str, server: str, port: int, database: str) -> str:
    """Return the URL of a PostgreSQL database; whatever characters the parts hold, they stay in their parts."""
    url = sa.URL.create("postgresql+psycopg", user, password, server, port, database)
    return url.render_as_string(hide_password=False)


async def lock_exclusively(connection: Connection, purpose: str) -> None:
    """Let no other instance past this line for the same purpose until the transaction ends."""
    if is_postgresql(connection):
        # SQLite needs nothing: there, a write transaction is alone already.
        await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext(purpose))))


async def lock_if_free(connection: Connection, purpose: str) -> bool:
    """Take the lock of `lock_exclusively` where nobody has it; tell whether it was taken."""
    if not is_postgresql(connection):
        return True
    taken = await connection.scalar(sa.select(sa.func.pg_try_advisory_xact_lock(sa.func.hashtext(purpose))))
    return bool(taken)


async def lock_each(connection: Connection, purposes: Sequence[str]) -> None:
    """Take several such locks, in the order given; numbers of 64 bits, so that two purposes hardly ever share one."""
    if is_postgresql(connection):
        locks = [sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(purpose, 0)) for purpose in purposes]
        await connection.execute(sa.select(*locks))


def insert_or_ignore(connection: Connection, table: sa.Table) -> "postgresql.Insert | sqlite.Insert":
    """Return an INSERT into `table` that does nothing, instead of failing, where a unique constraint forbids it."""
    # Imported here: a process on one database has no use for the megabytes of the other's dialect.
    if is_postgresql(connection):
        from sqlalchemy.dialects.postgresql import insert as postgresql_insert  # noqa: PLC0415

        return postgresql_insert(table).on_conflict_do_nothing()
    from sqlalchemy.dialects.sqlite import insert as sqlite_insert  # noqa: PLC0415

    return sqlite_insert(table).on_conflict_do_nothing()


_UNDEFINED_TABLE = "42P01"  # PostgreSQL's; SQLite says so as of anything that is away

# Our own execution options of SQLAlchemy: what a connection is used for, and what its transaction recorded.
_READING = "latchstring_reading"
_FACTS = "latchstring_facts"

_CONNECT_ARGUMENTS: dict[str, dict[str, Any]] = {
    "sqlite+aiosqlite": {},
    "postgresql+psycopg": {"connect_timeout": int(TIMEOUT_SECONDS)},
    "postgresql+asyncpg": {"timeout": TIMEOUT_SECONDS},
}


# Whatever a server's default is: a statement that waited for another transaction has to see what that one did.
_POSTGRESQL_OPTIONS: dict[str, Any] = {"isolation_level": "READ COMMITTED"}

_DEFAULT_DRIVERS = {"sqlite": "aiosqlite", "postgres": "psycopg", "postgresql": "psycopg"}


def _checked_url(database: str | Engine) -> sa.URL:
    if isinstance(database, sa.Engine):
        raise ConfigurationError("the engine must be an AsyncEngine: make it with create_async_engine")
    try:
        parsed = database.url if isinstance(database, AsyncEngine) else make_url(database)
    except (exc.ArgumentError, ValueError):
        raise ConfigurationError(
            "LATCHSTRING_DATABASE_URL must be a database URL, such as postgresql://user:password@host/name"
        ) from None
    if parsed.drivername in _DEFAULT_DRIVERS:
        backend = "sqlite" if parsed.drivername == "sqlite" else "postgresql"
        parsed = parsed.set(drivername=f"{backend}+{_DEFAULT_DRIVERS[parsed.drivername]}")
    if parsed.drivername not in _CONNECT_ARGUMENTS:
        known = ", ".join(sorted(_CONNECT_ARGUMENTS))
        raise ConfigurationError(f"LATCHSTRING_DATABASE_URL must begin with one of {known}")
    if parsed.get_backend_name() == "sqlite" and parsed.database in {None, "", ":memory:"}:
        raise ConfigurationError("LATCHSTRING_DATABASE_URL must name a file: connections don't share SQLite in memory")
    return parsed


@contextlib.contextmanager
def _failures_translated() -> Iterator[None]:
    try:
        yield
    except exc.DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) == _UNDEFINED_TABLE:
            raise DatabaseUnavailableError("the database has no tables yet: run latchstring migrate") from error
        # Integrity, data and syntax errors are answers of a living database: bugs of ours, to be seen as such.
        if isinstance(error, exc.IntegrityError | exc.DataError | exc.ProgrammingError) and not (
            error.connection_invalidated
        ):
            raise
        raise DatabaseUnavailableError("the database is away") from error
    except (exc.TimeoutError, TimeoutError, OSError) as error:
        raise DatabaseUnavailableError("the database is away") from error


def _prepare_sqlite(dbapi_connection: "DBAPIConnection", _record: object) -> None:
    connection = cast("Any", dbapi_connection)
    connection.isolation_level = None  # the driver must not begin transactions behind our back
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={int(SQLITE_LOCK_SECONDS * 1000)}")
    _switch_to_wal(cursor)
    cursor.execute("PRAGMA foreign_keys=ON")
    # A sign-out that was answered must survive a power cut: every commit reaches the disk.
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


def _switch_to_wal(cursor: Any) -> None:  # noqa: ANN401 -- the driver's cursor
    # Of several instances that open a new file at once, SQLite refuses all but one, and does not wait as elsewhere.
    for _ in range(_WAL_ATTEMPTS):
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            await_only(asyncio.sleep(SQLITE_LOCK_SECONDS / _WAL_ATTEMPTS))
        else:
            return
    cursor.execute("PRAGMA journal_mode=WAL")


def _begin_sqlite(connection: sa.Connection) -> None:
    if not connection.get_execution_options().get(_READING):
        connection.exec_driver_sql("BEGIN IMMEDIATE")
