"""One kind of failure for every way in which a database can be unavailable."""

import contextlib
from collections.abc import Iterator

from sqlalchemy import exc

from latchstring.errors import DatabaseUnavailableError

_UNDEFINED_TABLE = "42P01"  # PostgreSQL's; SQLite says so as of anything that is away


def is_disconnection(error: Exception) -> bool:
    """Tell whether an error means that the database is gone."""
    return isinstance(error, exc.DBAPIError) and error.connection_invalidated


@contextlib.contextmanager
def failures_translated() -> Iterator[None]:
    """Raise DatabaseUnavailableError in place of whatever says that the database is unavailable."""
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
