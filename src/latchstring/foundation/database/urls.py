"""Database URLs: which are accepted, their drivers and hosts."""

import re
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


def connect_arguments(url: sa.URL) -> dict[str, Any]:
    """Return the driver's options for a connection: bounded waits, and of several hosts the one that takes writes."""
    if url.get_backend_name() == "sqlite":
        return {}
    hosts = _number_of_hosts(url)
    # A host that drops packets would otherwise hold a connection attempt for minutes. With several, the next one must
    # get its turn in the time of one transaction. psycopg takes whole seconds, two at least.
    seconds = TIMEOUT_SECONDS / hosts
    timeout = {"connect_timeout": max(int(seconds), 2)} if url.drivername == _PSYCOPG else {"timeout": seconds}
    is_chosen = hosts == 1 or "target_session_attrs" in url.query
    return timeout if is_chosen else {**timeout, "target_session_attrs": "read-write"}


def _number_of_hosts(url: sa.URL) -> int:
    hosts = url.query.get("host", "")
    return len(hosts.split(",") if isinstance(hosts, str) else hosts)


_PSYCOPG = "postgresql+psycopg"
_DRIVERS = ("postgresql+asyncpg", _PSYCOPG, "sqlite+aiosqlite")
_DEFAULT_DRIVERS = {"sqlite": "aiosqlite", "postgres": "psycopg", "postgresql": "psycopg"}


def checked_url(database: str | Engine) -> sa.URL:
    """Return the URL of a database, with a driver.

    Raises:
        ConfigurationError: not the URL of a supported database.
    """
    if isinstance(database, sa.Engine):
        raise ConfigurationError("the engine must be an AsyncEngine: make it with create_async_engine")
    try:
        parsed = database.url if isinstance(database, AsyncEngine) else _parsed(database)
    except (exc.ArgumentError, ValueError):
        # `from None`: the text of the error holds the URL, and with it the password.
        raise ConfigurationError(
            "LATCHSTRING_DATABASE_URL must be a database URL, such as postgresql://user:password@host/name"
        ) from None
    if parsed.drivername in _DEFAULT_DRIVERS:
        backend = "sqlite" if parsed.drivername == "sqlite" else "postgresql"
        parsed = parsed.set(drivername=f"{backend}+{_DEFAULT_DRIVERS[parsed.drivername]}")
    if parsed.drivername not in _DRIVERS:
        supported = ", ".join(_DRIVERS)
        raise ConfigurationError(f"LATCHSTRING_DATABASE_URL must begin with one of {supported}")
    if parsed.get_backend_name() == "sqlite" and parsed.database in {None, "", ":memory:"}:
        raise ConfigurationError("LATCHSTRING_DATABASE_URL must name a file: connections don't share SQLite in memory")
    return parsed


# SQLAlchemy's own idea of a user and a password, and then hosts as libpq takes them.
_HOSTS = re.compile(
    r"(?P<before>postgres(?:ql)?(?:\+\w+)?://(?:[^:/@]*(?::[^@]*)?@)?)(?P<hosts>[^/?@]*,[^/?@]*)(?P<after>[/?].*|)"
)
_HOST = re.compile(r"(?:\[(?P<address>[^\[\]]+)\]|(?P<name>[^:\[\]]+))(?::(?P<port>\d*))?")


def _parsed(url: str) -> sa.URL:
    """Return a URL, also one with several hosts in libpq's form, which SQLAlchemy can't read."""
    several = _HOSTS.fullmatch(url)
    if several is None:
        return make_url(url)
    hosts = [_HOST.fullmatch(host) for host in several["hosts"].split(",")]
    if None in hosts:
        raise ValueError("not a host and a port")
    found = [(host["address"] or host["name"], host["port"] or "5432") for host in hosts if host is not None]
    names, ports = zip(*found, strict=True)
    one = make_url(several["before"] + several["after"])
    return one.update_query_dict({"host": ",".join(names), "port": ",".join(ports)})
