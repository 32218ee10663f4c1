"""Every error of an unavailable database: one exception, and the cause for the operator."""

import contextlib
from collections.abc import Iterator
from enum import StrEnum

from sqlalchemy import exc

from latchstring.errors import DatabaseUnavailableError
from latchstring.foundation.clock import stopwatch
from latchstring.foundation.condition import Condition
from latchstring.foundation.database.postgresql import (
    READ_ONLY,
    STANDBY,
    STATEMENTS_ARE_LOST,
    STATEMENTS_LOST,
    StandbyError,
)
from latchstring.foundation.measurements import Meter, Metric
from latchstring.foundation.spans import span


class Cause(StrEnum):
    """Why the database is unavailable: the `cause` of a log line."""

    DISK_FULL = "disk_full"
    LOCKED = "locked"
    NO_CONNECTION = "no_connection"
    NO_PERMISSION = "no_permission"
    NO_TABLES = "no_tables"
    OTHER = "other"
    POOL_EMPTY = "pool_empty"
    READ_ONLY = "read_only"
    STANDBY = "standby"
    STATEMENTS_LOST = "statements_lost"
    TIMED_OUT = "timed_out"
    TOO_MANY_CONNECTIONS = "too_many_connections"
    UNREACHABLE = "unreachable"


OWN_CAUSES = frozenset({Cause.POOL_EMPTY, Cause.NO_CONNECTION})
"""Causes that lie in this process: another one may have no failures."""

OWN_DISK_CAUSES = frozenset({Cause.DISK_FULL, Cause.READ_ONLY, Cause.UNREACHABLE})
"""Causes that lie in the disk of a SQLite file."""

REASONS = {
    Cause.DISK_FULL: "the database's disk is full",
    Cause.LOCKED: "another transaction holds a lock for too long",
    Cause.NO_CONNECTION: "no connection was opened or became free in time",
    Cause.NO_PERMISSION: "the database does not permit it to this role: grant it the rights on our tables",
    Cause.NO_TABLES: "the database has no tables yet: run latchstring migrate",
    Cause.OTHER: "the database reports an error",
    Cause.POOL_EMPTY: "all connections of the pool are in use",
    Cause.READ_ONLY: "the database is read-only",
    Cause.STANDBY: STANDBY,
    Cause.STATEMENTS_LOST: STATEMENTS_ARE_LOST,
    Cause.TIMED_OUT: "the database does not respond in time",
    Cause.TOO_MANY_CONNECTIONS: "the database has as many connections as it allows",
    Cause.UNREACHABLE: "the database can't be reached",
}

# PostgreSQL's codes (SQLSTATE); https://www.postgresql.org/docs/current/errcodes-appendix.html
_BY_SQLSTATE = {
    READ_ONLY: Cause.READ_ONLY,
    **dict.fromkeys(STATEMENTS_LOST, Cause.STATEMENTS_LOST),
    "40P01": Cause.LOCKED,
    "42501": Cause.NO_PERMISSION,
    "42P01": Cause.NO_TABLES,
    "53100": Cause.DISK_FULL,
    "53300": Cause.TOO_MANY_CONNECTIONS,
    "55P03": Cause.LOCKED,
    "57014": Cause.TIMED_OUT,
}
_BY_SQLITE_NAME = {
    "SQLITE_BUSY": Cause.LOCKED,
    "SQLITE_CANTOPEN": Cause.UNREACHABLE,
    "SQLITE_FULL": Cause.DISK_FULL,
    "SQLITE_LOCKED": Cause.LOCKED,
    "SQLITE_READONLY": Cause.READ_ONLY,
}
# libpq gives an error while connecting no code, but only PostgreSQL's own text.
_CONNECTIONS_USED_UP = ("too many clients", "too many connections", "remaining connection slots")


class NoConnectionError(TimeoutError):
    """No connection was opened, or became free, in time."""


def cause_of(error: Exception) -> Cause:
    """Return why the database is unavailable."""
    if isinstance(error, exc.DBAPIError):
        return _cause_in_driver(error)
    if isinstance(error, exc.TimeoutError):
        return Cause.POOL_EMPTY
    if isinstance(error, NoConnectionError):
        return Cause.NO_CONNECTION
    return Cause.TIMED_OUT if isinstance(error, TimeoutError) else Cause.UNREACHABLE


def _cause_in_driver(error: exc.DBAPIError) -> Cause:
    sqlstate = getattr(error.orig, "sqlstate", None)
    if sqlstate is not None and sqlstate in _BY_SQLSTATE:
        return _BY_SQLSTATE[sqlstate]
    # An extended name begins with the plain one: SQLITE_READONLY_DBMOVED.
    name = getattr(error.orig, "sqlite_errorname", "")
    for beginning, cause in _BY_SQLITE_NAME.items():
        if name.startswith(beginning):
            return cause
    if "no such table" in str(error.orig):  # SQLite has no code of its own for it
        return Cause.NO_TABLES
    if any(words in str(error.orig) for words in _CONNECTIONS_USED_UP):
        return Cause.TOO_MANY_CONNECTIONS
    # Connecting failed, or the connection was lost.
    is_lost = error.connection_invalidated or (sqlstate is None and not name)
    return Cause.UNREACHABLE if is_lost else Cause.OTHER


def is_disconnection(error: Exception) -> bool:
    """Return whether an error means that the connection to the database was lost."""
    return isinstance(error, exc.DBAPIError) and error.connection_invalidated


@contextlib.contextmanager
def transaction_watched(condition: Condition, meter: Meter) -> Iterator[None]:
    """Time a transaction, put it into a span, and translate its failures."""
    began = stopwatch()
    try:
        with span("latchstring.transaction"), failures_translated(condition):
            yield
    finally:
        meter.observe(Metric.TRANSACTION, stopwatch() - began)


@contextlib.contextmanager
def failures_translated(condition: Condition | None = None) -> Iterator[None]:
    """Raise DatabaseUnavailableError in place of every error that means the database is unavailable.

    Args:
        condition: is told of each such failure, and of each success.

    Raises:
        DatabaseUnavailableError: the database is unavailable, did not respond in time, or has no tables yet.
    """
    try:
        yield
    except exc.DBAPIError as error:
        # Integrity, data and syntax errors come from a working database: they are bugs, and must not look like an
        # outage, for which clients would try again.
        if (
            isinstance(error, exc.IntegrityError | exc.DataError | exc.ProgrammingError)
            and not error.connection_invalidated
            and cause_of(error) not in {Cause.NO_PERMISSION, Cause.NO_TABLES, Cause.STATEMENTS_LOST}
        ):
            raise _without_values(error) from None
        raise _unavailable(error, condition) from error
    except StandbyError:
        if condition is not None:
            condition.fails(Cause.STANDBY, reason=STANDBY)
        raise
    # A full pool, our own timeout and a refused connection: 503 for each, never 200 and never 401.
    except (exc.TimeoutError, TimeoutError, OSError) as error:
        raise _unavailable(error, condition) from error
    if condition is not None:
        condition.works()


def _without_values(error: exc.DBAPIError) -> exc.DBAPIError:
    """Return the same error without any value: it ends up in a log, and the values are hashes and emails."""
    # Besides the parameters, PostgreSQL quotes the row in its DETAIL, and a constraint's message may quote a value.
    code = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "sqlite_errorname", None) or "no code"
    return type(error)(error.statement, None, Exception(f"{type(error.orig).__name__}, {code}"), hide_parameters=True)


def _unavailable(error: Exception, condition: Condition | None) -> DatabaseUnavailableError:
    cause = cause_of(error)
    if condition is not None:
        condition.fails(cause, reason=REASONS[cause])
    return DatabaseUnavailableError(REASONS[cause])
