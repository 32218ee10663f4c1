"""Translates every error of an unavailable database into one exception."""

import contextlib
from collections.abc import Iterator

from sqlalchemy import exc

from latchstring.errors import DatabaseUnavailableError

_UNDEFINED_TABLE = "42P01"  # PostgreSQL's code; SQLite reports a missing table as an OperationalError


def is_disconnection(error: Exception) -> bool:
    """Return whether an error means that the connection to the database was lost."""
    return isinstance(error, exc.DBAPIError) and error.connection_invalidated


@contextlib.contextmanager
def failures_translated() -> Iterator[None]:
    """Raise DatabaseUnavailableError in place of every error that means the database is unavailable.

    Raises:
        DatabaseUnavailableError: the database is unavailable, did not respond in time, or has no tables yet.
    """
    try:
        yield
    except exc.DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) == _UNDEFINED_TABLE:
            raise DatabaseUnavailableError("the database has no tables yet: run latchstring migrate") from error
        # Integrity, data and syntax errors come from a working database: they are bugs, and must not look like an
        # outage, for which clients would try again.
        if isinstance(error, exc.IntegrityError | exc.DataError | exc.ProgrammingError) and not (
            error.connection_invalidated
        ):
            raise
        raise DatabaseUnavailableError("the database is unavailable") from error
    # A full pool, our own timeout and a refused connection: 503 for each, never 200 and never 401.
    except (exc.TimeoutError, TimeoutError, OSError) as error:
        raise DatabaseUnavailableError("the database is unavailable") from error
