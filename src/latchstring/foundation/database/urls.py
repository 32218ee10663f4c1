"""Database URLs: which are accepted, and their drivers."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from latchstring.errors import ConfigurationError
from latchstring.foundation.database.connection import TIMEOUT_SECONDS, Engine


def postgresql_url(*, user: str, password: str, server: str, port: int, database: str) -> str:
    """Return the URL of a PostgreSQL database, with each part escaped."""
    url = sa.URL.create("postgresql+psycopg", user, password, server, port, database)
    return url.render_as_string(hide_password=False)


# A host that drops packets would otherwise hold a connection attempt for minutes.
CONNECT_ARGUMENTS: dict[str, dict[str, Any]] = {
    "sqlite+aiosqlite": {},
    "postgresql+psycopg": {"connect_timeout": int(TIMEOUT_SECONDS)},
    "postgresql+asyncpg": {"timeout": TIMEOUT_SECONDS},
}


_DEFAULT_DRIVERS = {"sqlite": "aiosqlite", "postgres": "psycopg", "postgresql": "psycopg"}


def checked_url(database: str | Engine) -> sa.URL:
    """Return the URL of a database, with a driver.

    Raises:
        ConfigurationError: not the URL of a supported database.
    """
    if isinstance(database, sa.Engine):
        raise ConfigurationError("the engine must be an AsyncEngine: make it with create_async_engine")
    try:
        parsed = database.url if isinstance(database, AsyncEngine) else make_url(database)
    except (exc.ArgumentError, ValueError):
        # `from None`: the text of the error holds the URL, and with it the password.
        raise ConfigurationError(
            "LATCHSTRING_DATABASE_URL must be a database URL, such as postgresql://user:password@host/name"
        ) from None
    if parsed.drivername in _DEFAULT_DRIVERS:
        backend = "sqlite" if parsed.drivername == "sqlite" else "postgresql"
        parsed = parsed.set(drivername=f"{backend}+{_DEFAULT_DRIVERS[parsed.drivername]}")
    if parsed.drivername not in CONNECT_ARGUMENTS:
        supported = ", ".join(sorted(CONNECT_ARGUMENTS))
        raise ConfigurationError(f"LATCHSTRING_DATABASE_URL must begin with one of {supported}")
    if parsed.get_backend_name() == "sqlite" and parsed.database in {None, "", ":memory:"}:
        raise ConfigurationError("LATCHSTRING_DATABASE_URL must name a file: connections don't share SQLite in memory")
    return parsed
