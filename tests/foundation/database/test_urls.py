"""Database URLs, with one host and with several."""

import pytest
from sqlalchemy.engine import make_url

from latchstring.errors import ConfigurationError
from latchstring.foundation.database import Database
from latchstring.foundation.database.connection import TIMEOUT_SECONDS
from latchstring.foundation.database.urls import checked_url, connect_arguments

PLAIN = [
    "postgresql+psycopg://ada@localhost/db?application_name=a,b",
    "postgresql+psycopg://ada:pass@localhost:5432/db?options=-c%20search_path=a,b",
    "postgresql+psycopg://ada:a,b@localhost/db",
    "postgresql+asyncpg://localhost/db?host=one:5432&host=two:5433",
    "sqlite+aiosqlite:////a,b@c,d.db",
]


@pytest.mark.parametrize("url", PLAIN)
def test_a_url_that_sqlalchemy_reads_is_left_alone(url: str) -> None:
    """A comma elsewhere separates no hosts."""
    assert checked_url(url) == make_url(url)


@pytest.mark.parametrize(
    ("hosts", "host", "port"),
    [
        ("one:5433,two:5434", "one,two", "5433,5434"),
        ("one,two:5434,three", "one,two,three", "5432,5434,5432"),
        ("pg_1,pg_2", "pg_1,pg_2", "5432,5432"),
        ("[::1]:5433,[fe80::2]", "::1,fe80::2", "5433,5432"),
    ],
)
def test_libpq_s_form_of_several_hosts(hosts: str, host: str, port: str) -> None:
    """What people paste from a provider's page works with both drivers."""
    for scheme in ("postgresql", "postgres", "postgresql+asyncpg"):
        url = checked_url(f"{scheme}://ada:p%40ss,word@{hosts}/db?sslmode=require")
        assert (url.username, url.password, url.database, url.host) == ("ada", "p@ss,word", "db", None)
        assert dict(url.query) == {"host": host, "port": port, "sslmode": "require"}
        _, options = url.get_dialect()().create_connect_args(url)
        if scheme == "postgresql+asyncpg":
            assert (options["host"], options["port"]) == (host.split(","), [int(each) for each in port.split(",")])
        else:
            assert (options["host"], options["port"]) == (host, port)


@pytest.mark.parametrize("hosts", ["one,,two", ",", "one:x,two"])
def test_a_host_that_is_missing(hosts: str) -> None:
    """A typing error is a sentence, without the password."""
    url = f"postgresql://ada:secret@{hosts}/db"
    with pytest.raises(ConfigurationError) as refused:
        checked_url(url)
    assert "LATCHSTRING_DATABASE_URL" in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+asyncpg://ada:secret@/db?host=one&host=two",
        "postgresql://ada:secret@/db?host=one:1&host=two:2&port=3",
        "postgresql://ada:secret@/db?host=one,two,three&port=1,2",
    ],
)
def test_hosts_in_a_form_that_no_driver_takes(url: str) -> None:
    """The sentence shows the form that works, without the password."""
    with pytest.raises(ConfigurationError, match="one:5432,two:5432") as refused:
        Database(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
@pytest.mark.parametrize("hosts", ["one:1", "one:1,two:2", "one:1,two:2,three:3"])
def test_every_host_gets_its_turn(driver: str, hosts: str) -> None:
    """All but the last may say nothing, and the last is still asked within the time of one transaction."""
    arguments = connect_arguments(checked_url(f"postgresql+{driver}://{hosts}/db"))
    number = hosts.count(",") + 1
    seconds = arguments["connect_timeout" if driver == "psycopg" else "timeout"]
    assert seconds * (number - 1) < TIMEOUT_SECONDS
    assert seconds <= TIMEOUT_SECONDS
    assert arguments.get("target_session_attrs") == (None if number == 1 else "read-write")


def test_what_the_url_says_of_sessions_is_kept() -> None:
    """SQLAlchemy lets our options win over the URL's."""
    url = checked_url("postgresql://one:1,two:2/db?target_session_attrs=primary")
    assert "target_session_attrs" not in connect_arguments(url)
