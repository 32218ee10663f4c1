"""`latchstring restored`, as an operator uses it after restoring a backup."""

import base64
import json
import shutil
import sqlite3
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from subprocess import CompletedProcess

import httpx2
import pytest

from latchstring.apps.cli import main
from latchstring.apps.cli.output import Exit
from tests.support.backends import ON_SQLITE
from tests.support.backups import backup_of, put_back, sqlite_path
from tests.support.forge import new_key, private_pem
from tests.support.hang import sleep_until
from tests.support.process import CHEAP_HASH, NO_LIMITS, ServerProcess, latchstring
from tests.support.service import PASSWORD, SECRET, credentials, registration

ENDS = "signs everyone out"


@dataclass(frozen=True)
class Installation:
    """A working folder with the variables that an operator has set there."""

    folder: Path
    variables: Mapping[str, str]

    def run(self, *arguments: str, **variables: str) -> "CompletedProcess[str]":
        done = latchstring(*arguments, cwd=self.folder, variables={**self.variables, **variables})
        for said in (done.stdout, done.stderr):
            assert "Traceback" not in said
            assert SECRET not in said
        return done


@pytest.fixture
def installation(database_url: str, tmp_path: Path) -> Installation:
    variables = {"LATCHSTRING_DATABASE_URL": database_url, "LATCHSTRING_SECRET": SECRET}
    return Installation(tmp_path, {**variables, **CHEAP_HASH, **NO_LIMITS})


@pytest.fixture
def served(installation: Installation) -> Iterator[ServerProcess]:
    with ServerProcess(installation.folder, variables=installation.variables, workers=2) as server:
        yield server


def status(server: ServerProcess, token: str) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    return httpx2.get(f"{server.url}/api/dashboard", headers=headers).status_code


def is_refused(server: ServerProcess, token: str) -> bool:
    """Returns whether whichever worker is asked refuses a token, eight times."""
    return [status(server, token) for _ in range(8)] == [401] * 8


@ON_SQLITE  # on PostgreSQL: tests/drills/test_restore.py
def test_a_server_that_runs_follows(
    installation: Installation, served: ServerProcess, database_url: str, tmp_path: Path
) -> None:
    """A user of after the copy is let in until the command has run; then everyone of the copy signs in anew."""
    with served.client() as ada, served.client() as eve:
        assert ada.post("/api/auth/register", json=registration()).status_code == 201
        copy = backup_of(database_url, tmp_path)
        assert eve.post("/api/auth/register", json=registration("eve@example.com")).status_code == 201
        put_back(database_url, copy)
        assert status(served, eve.cookies["access_token"]) == 200
        done = installation.run("restored", "--yes", "--json")
        assert (done.returncode, ENDS in done.stderr) == (Exit.DONE, True)
        result = json.loads(done.stdout)
        for browser in (ada, eve):
            sleep_until(partial(is_refused, served, browser.cookies["access_token"]))
            assert browser.post("/api/auth/refresh").status_code == 401
        assert ada.post("/api/auth/login", json=credentials()).status_code == 200
        assert eve.post("/api/auth/login", json=credentials("eve@example.com")).status_code == 400
        token = ada.cookies["access_token"]
        sleep_until(lambda: [status(served, token) for _ in range(8)] == [200] * 8)
    keys = {key["kid"]: key["state"] for key in json.loads(installation.run("keys", "list", "--json").stdout)}
    assert keys == {**dict.fromkeys(result["ended_keys"], "gone"), result["new_key"]: "active"}
    again = json.loads(installation.run("restored", "--yes", "--json").stdout)
    assert again["epoch"] > result["epoch"]
    assert again["ended_keys"] == [result["new_key"]]


@ON_SQLITE
def test_what_it_prints(installation: Installation) -> None:
    """The epoch, each key, and what a copy can't know, of core and of the server's features."""
    done = installation.run("restored", "--yes")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("epoch ")
    assert [line.split()[0] for line in lines] == ["epoch", "new", "key", *["-"] * 4]
    said = done.stdout
    for word in ("Users", "roles", "deletions", "disablings", "Passwords", "feed-token list", "audit trail"):
        assert word in said
    assert ENDS in done.stderr


@ON_SQLITE
def test_it_asks(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a terminal and without --yes nothing is changed, and the exit code is 2."""
    before = installation.run("keys", "list").stdout
    done = installation.run("restored")
    assert (done.returncode, done.stdout) == (Exit.USAGE, "")
    assert "--yes" in done.stderr
    monkeypatch.chdir(installation.folder)
    for name, value in installation.variables.items():
        monkeypatch.setenv(name, value)
    for answer, code in (("n\n", Exit.FAILED), ("y\n", Exit.DONE)):
        terminal = StringIO(answer)
        monkeypatch.setattr(terminal, "isatty", lambda: True)
        monkeypatch.setattr(sys, "argv", ["latchstring", "restored"])
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", terminal)
            with pytest.raises(SystemExit) as end:
                main()
        assert end.value.code == code
        assert "Was the database restored from a backup" in capsys.readouterr().err
        assert (installation.run("keys", "list").stdout == before) is (code is Exit.FAILED)


@ON_SQLITE
def test_keys_of_the_environment(installation: Installation) -> None:
    """They stay; which variables to change is said."""
    pem = base64.b64encode(private_pem(new_key("P-256"))).decode()
    given = {"JWT_PRIVATE_KEY": pem, "JWT_ALGORITHM": "ES256"}
    done = installation.run("restored", "--yes", **given)
    assert done.returncode == Exit.DONE
    assert {"JWT_PRIVATE_KEY", "JWT_PUBLIC_KEY", "JWT_EXTRA_PUBLIC_KEYS"} <= set(done.stdout.replace(",", "").split())
    result = json.loads(installation.run("restored", "--yes", "--json", **given).stdout)
    assert (result["ended_keys"], result["new_key"]) == ([], None)


@ON_SQLITE
def test_what_can_t_be_done(installation: Installation, tmp_path: Path) -> None:
    """Another secret is a matter of configuration, an older schema one of `migrate`; nothing is changed."""
    before = installation.run("keys", "list").stdout
    done = installation.run("restored", "--yes", LATCHSTRING_SECRET="another secret, as long as it has to be")
    assert (done.returncode, done.stdout) == (Exit.CONFIGURATION, "")
    assert "LATCHSTRING_SECRET" in done.stderr
    done = installation.run("restored", "--yes", LATCHSTRING_DATABASE_URL=f"sqlite:///{tmp_path}/empty.db")
    assert (done.returncode, "latchstring migrate" in done.stderr) == (Exit.FAILED, True)
    assert installation.run("keys", "list").stdout == before


@ON_SQLITE
def test_a_copy_whose_secret_is_lost(installation: Installation) -> None:
    """As docs/operations.md says: without its keys the database takes any secret."""
    other = {"LATCHSTRING_SECRET": "another secret, as long as it has to be"}
    assert installation.run("migrate", **other).returncode == Exit.CONFIGURATION
    with closing(sqlite3.connect(sqlite_path(installation.variables["LATCHSTRING_DATABASE_URL"]))) as connection:
        connection.executescript("DELETE FROM latchstring_keys; DELETE FROM latchstring_secrets;")
    assert installation.run("migrate", **other).returncode == Exit.DONE
    assert installation.run("restored", "--yes", **other).returncode == Exit.DONE


HOST = """
from fastapi import FastAPI
from latchstring import Auth

app = FastAPI()
Auth("sqlite:///prepared.db", secret={secret!r}).install(app)
"""


def test_an_application_of_ones_own(sqlite_template: Path, tmp_path: Path) -> None:
    """`--app`: its database and keys, whatever the environment says."""
    shutil.copy(sqlite_template, tmp_path / "prepared.db")
    (tmp_path / "shop.py").write_text(HOST.format(secret=SECRET))
    here = Installation(tmp_path, {})
    first = json.loads(here.run("--app", "shop:app", "restored", "--yes", "--json").stdout)
    assert first["new_key"] is not None
    second = json.loads(here.run("--app", "shop:app", "restored", "--yes", "--json").stdout)
    assert (second["ended_keys"], second["epoch"] > first["epoch"]) == ([first["new_key"]], True)
    assert PASSWORD not in str(second)


@ON_SQLITE
def test_the_doctor_names_it(installation: Installation) -> None:
    assert "after restoring a backup, run latchstring restored" in installation.run("doctor").stdout
