"""T7: no value that was sent, or made of one, is in a log, also where a statement fails that should not."""

import sqlite3
from pathlib import Path

import psycopg
import pytest

from tests.support.hang import sleep_until
from tests.support.process import CHEAP_HASH, NO_LIMITS, ServerProcess
from tests.support.service import PASSWORD, SECRET, registration

EMAIL = "margaret.hamilton@example.com"
SENT = [EMAIL, "margaret.hamilton", "Margaretta", "Hamiltonia", PASSWORD, "$argon2"]

# The message of the constraint quotes the row, as PostgreSQL's DETAIL does by itself.
BREAK_ON_POSTGRESQL = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE EXCEPTION 'row % is refused', NEW USING ERRCODE = '23514', DETAIL = 'The row is ' || NEW; END $$;
    CREATE TRIGGER refuse BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION refuse();
"""
BREAK_ON_SQLITE = "CREATE TRIGGER refuse BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'refused'); END"


@pytest.mark.parametrize("table", ["latchstring_users", "latchstring_passwords", "latchstring_sessions"])
def test_a_statement_that_fails(table: str, database_url: str, tmp_path: Path) -> None:
    """A broken constraint of whichever table: 500, and the log has the statement and no value."""
    if database_url.startswith("sqlite"):
        with sqlite3.connect(database_url.removeprefix("sqlite:///")) as connection:
            connection.execute(BREAK_ON_SQLITE.format(table=table))
    else:
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute(BREAK_ON_POSTGRESQL.format(table=table).encode())
    variables = {**CHEAP_HASH, **NO_LIMITS, "LATCHSTRING_DATABASE_URL": database_url, "LATCHSTRING_SECRET": SECRET}
    with ServerProcess(tmp_path, variables=variables) as server, server.client() as client:
        names = {"first_name": "Margaretta", "last_name": "Hamiltonia"}
        answer = client.post("/api/auth/register", json=registration(EMAIL, **names))
        assert answer.status_code == 500
        sleep_until(lambda: "INSERT INTO" in server.words())
        server.stop()
        said = server.words()
    assert [value for value in SENT if value in said or value in answer.text] == []
