"""The command line as an operator or a script uses it: real processes, both databases."""

import base64
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import httpx2
import jwt
import pytest
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from latchstring.apps.cli import main
from latchstring.apps.cli.app import app
from latchstring.apps.cli.output import Exit
from tests.support.forge import new_key, private_pem, public_pem
from tests.support.hang import sleep_until
from tests.support.pgbouncer import pooler
from tests.support.postgres import Postgres
from tests.support.process import CHEAP_HASH, COMMAND, ServerProcess, clean_environment, latchstring
from tests.support.service import PASSWORD, SECRET, credentials, registration

_Row = TypeVar("_Row")
_Result = TypeVar("_Result")

EMAIL = "grace@example.com"
NAMES = ("--first-name", "Grace", "--last-name", "Hopper")


@dataclass(frozen=True)
class Installation:
    """A working folder with the variables that an operator has set there."""

    folder: Path
    variables: Mapping[str, str]

    def run(
        self, *arguments: str, code: Exit = Exit.DONE, stdin: str = "", variables: Mapping[str, str] | None = None
    ) -> str:
        """Runs one command that must exit with `code`, and returns what it said on its proper channel.

        The result is on stdout and nothing else is; a refusal is words on stderr, never a traceback.
        """
        done = latchstring(*arguments, cwd=self.folder, variables={**self.variables, **(variables or {})}, stdin=stdin)
        assert done.returncode == code, done.stderr
        for said in (done.stdout, done.stderr):
            assert "Traceback" not in said
            assert PASSWORD not in said
            assert SECRET not in said
        silent, speaking = (done.stderr, done.stdout) if code is Exit.DONE else (done.stdout, done.stderr)
        assert silent == ""
        assert speaking
        return speaking

    def json(self, *arguments: str, stdin: str = "") -> Any:  # noqa: ANN401 -- JSON
        """Runs a command with `--json` that must succeed, and returns its result."""
        return json.loads(self.run(*arguments, "--json", stdin=stdin))


@pytest.fixture
def installation(database_url: str, tmp_path: Path) -> Installation:
    """One whose database is ready."""
    return Installation(
        tmp_path, {"LATCHSTRING_DATABASE_URL": database_url, "LATCHSTRING_SECRET": SECRET, **CHEAP_HASH}
    )


@pytest.fixture
def on_sqlite(sqlite_template: Path, tmp_path: Path) -> Installation:
    """The same, for what does not depend on the database."""
    shutil.copy(sqlite_template, tmp_path / "prepared.db")
    return Installation(
        tmp_path, {"LATCHSTRING_DATABASE_URL": "sqlite:///prepared.db", "LATCHSTRING_SECRET": SECRET, **CHEAP_HASH}
    )


@pytest.fixture
def unmigrated(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Installation]:
    """One whose database is empty."""
    variables = {"LATCHSTRING_SECRET": SECRET}
    if backend == "sqlite":
        yield Installation(tmp_path, variables)
        return
    postgres: Postgres = request.getfixturevalue("postgres")
    url = postgres.create_database()
    yield Installation(tmp_path, {**variables, "LATCHSTRING_DATABASE_URL": url})
    postgres.drop_database(url)


def at_once(work: Callable[[_Row], _Result], rows: Sequence[_Row]) -> list[_Result]:
    """Returns what `work` makes of each row; processes that do not meet may run side by side."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(work, rows))


# --- the shape of every command --------------------------------------------------------------------------------------


def options_of(command: object, *path: str) -> Iterator[tuple[str, set[str]]]:
    """Yields each command's full name and its options."""
    if isinstance(command, TyperGroup):
        for name, child in command.commands.items():
            yield from options_of(child, *path, name)
    elif isinstance(command, TyperCommand):
        yield " ".join(path), {option for parameter in command.params for option in parameter.opts}


COMMANDS = dict(options_of(get_command(app)))


def test_the_commands_are_those_of_the_contract() -> None:
    """A script that an operator wrote finds each of them, and none is there that the contract does not name."""
    users = {f"users {verb}" for verb in ("create", "list", "show", "disable", "enable", "grant", "withdraw", "delete")}
    keys = {f"keys {verb}" for verb in ("list", "rotate", "retire")}
    feed_tokens = {f"feed-token {verb}" for verb in ("create", "list", "revoke")}
    others = {"sessions list", "sessions revoke", "serve", "migrate", "restored", "doctor", "openapi", "config"}
    assert COMMANDS.keys() == users | keys | feed_tokens | others


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - {"serve"}))
def test_every_command_takes_json(name: str) -> None:
    """`--json` everywhere: whoever writes a script need not look which commands have it."""
    assert "--json" in COMMANDS[name]


def test_version_and_help(tmp_path: Path) -> None:
    """Both are results: on stdout, with nothing set up and nothing made."""
    bare = Installation(tmp_path, {})
    assert bare.run("--version").strip() == version("latchstring")
    shown = bare.run("--help")
    assert all(name.split()[0] in shown for name in COMMANDS)
    assert not list(tmp_path.iterdir())


# --- users -----------------------------------------------------------------------------------------------------------


def test_a_users_life(installation: Installation) -> None:
    """Create, conflict, list, delete; a deleted address is free again."""
    create = ("users", "create", "Grace@Example.COM", *NAMES, "--password-stdin")
    grace = installation.json(*create, stdin=PASSWORD + "\n")
    assert grace == {
        "id": grace["id"],
        "email": EMAIL,
        "first_name": "Grace",
        "last_name": "Hopper",
        "created_at": grace["created_at"],
        "email_verified": False,
        "disabled": False,
        "roles": [],
    }
    assert "registered already" in installation.run(*create, stdin=PASSWORD, code=Exit.CONFLICT)
    assert installation.json("users", "list") == [grace]
    assert installation.json("users", "delete", EMAIL, "--yes") == {"deleted": grace["id"]}
    assert installation.json(*create, stdin=PASSWORD)["id"] != grace["id"]


def test_users_for_people(on_sqlite: Installation) -> None:
    """Without `--json` a field a line, or a user a line under a heading; any spelling of the address finds the user."""

    def shown(*arguments: str) -> dict[str, str]:
        return dict(line.split(maxsplit=1) for line in on_sqlite.run("users", *arguments, stdin=PASSWORD).splitlines())

    grace = shown("create", EMAIL, *NAMES, "--password-stdin")
    assert (grace["email"], grace["first_name"], grace["disabled"]) == (EMAIL, "Grace", "no")
    assert shown("disable", grace["id"]) == grace | {"disabled": "yes"}
    assert shown("enable", "GRACE@example.com") == grace
    heading, row = on_sqlite.run("users", "list").splitlines()
    assert heading.split()[:2] == ["id", "email"]
    assert row[heading.index("email") :].startswith(EMAIL)
    for nobody in (str(uuid4()), "bob@example.com"):
        assert "no user" in on_sqlite.run("users", "show", nobody, code=Exit.NOT_FOUND)


WRONG_USAGE: list[tuple[tuple[str, ...], str, str]] = [
    (("create", EMAIL, *NAMES), PASSWORD, "--password-stdin"),  # no terminal: no prompt that waits for ever
    (("create", EMAIL, *NAMES, "--password-stdin"), "seven77", "password"),
    (("create", "grace@", *NAMES, "--password-stdin"), PASSWORD, "email"),
    (("create", EMAIL, *NAMES, "--password", "hunter22"), "", "--password"),  # everyone on the machine would see it
    (("delete", EMAIL), "y\n", "--yes"),
]


def test_wrong_usage_exits_with_2(tmp_path: Path) -> None:
    """What was called wrongly says how to call it, asks nobody, changes nothing, and shows no password."""
    bare = Installation(tmp_path, {})

    def said(row: tuple[tuple[str, ...], str, str]) -> str:
        return bare.run("users", *row[0], stdin=row[1], code=Exit.USAGE)

    for (_, password, words), answer in zip(WRONG_USAGE, at_once(said, WRONG_USAGE), strict=True):
        assert words in answer
        assert password not in answer or not password
    assert not list(tmp_path.iterdir())


def test_a_password_that_is_no_text_is_wrong_usage(on_sqlite: Installation) -> None:
    """Bytes that are no UTF-8 are refused in words, not in a traceback that shows what was read."""
    done = subprocess.run(
        [COMMAND, "users", "create", EMAIL, *NAMES, "--password-stdin"],
        cwd=on_sqlite.folder,
        env=clean_environment(on_sqlite.variables),
        input="café au lait".encode("latin-1"),
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (Exit.USAGE, b"")
    assert b"password" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("backend", ["sqlite"])  # on PostgreSQL: the same with sessions
def test_what_an_operator_does_reaches_a_running_server(installation: Installation) -> None:
    """Soon after `users disable` sessions end and no sign-in succeeds; after `users delete` nobody is found."""
    with ServerProcess(installation.folder, variables=installation.variables) as server, server.client() as browser:
        assert browser.post("/api/auth/register", json=registration(EMAIL)).status_code == 201

        def soon_hears(wanted: int) -> str:
            sleep_until(lambda: browser.get("/api/dashboard").status_code == wanted)
            return str(browser.get("/api/dashboard").json()["detail"])

        assert browser.get("/api/dashboard").status_code == 200
        installation.run("users", "disable", EMAIL)
        assert soon_hears(401) == "The session has ended."
        assert browser.post("/api/auth/login", json=credentials(EMAIL)).status_code == 400
        installation.run("users", "delete", EMAIL, "--yes")
        assert soon_hears(404) == "User not found"


# --- sessions --------------------------------------------------------------------------------------------------------


def test_the_sessions_of_a_user(installation: Installation) -> None:
    """Where a user is signed in, the one last used first, by address or id; nobody else's, none that has ended."""
    with (
        ServerProcess(installation.folder, variables=installation.variables) as server,
        server.client() as here,
        server.client() as there,
        server.client() as eve,
    ):
        there.headers["User-Agent"] = "Grace's phone"
        grace = here.post("/api/auth/register", json=registration(EMAIL)).json()
        there.post("/api/auth/login", json=credentials(EMAIL))
        eve.post("/api/auth/register", json=registration("eve@example.com"))
        ids = [row["id"] for row in there.get("/api/auth/sessions").json()]
        by_address, by_id = at_once(lambda who: installation.json("sessions", "list", who), [EMAIL, grace["id"]])
        assert by_address == by_id
        assert [row["id"] for row in by_address] == ids
        for row in by_address:
            assert row.keys() == {
                *("id", "created_at", "last_used_at", "expires_at", "ip", "user_agent", "methods"),
                *("repeats", "repeated_elsewhere_at"),
            }
            assert (row["ip"], row["methods"]) == ("127.0.0.1", ["pwd"])
        assert by_address[0]["user_agent"] == "Grace's phone"
        assert not any(token in json.dumps(by_address) for token in [*here.cookies.values(), *there.cookies.values()])
        heading, *rows = installation.run("sessions", "list", "GRACE@example.com").splitlines()
        assert heading.split()[:2] == ["id", "created_at"]
        assert [row.split()[0] for row in rows] == ids
        there.post("/api/auth/logout")
        assert [row["id"] for row in installation.json("sessions", "list", EMAIL)] == ids[1:]


def test_sessions_of_nobody(on_sqlite: Installation) -> None:
    """A user without a session has an empty list, which is a result; a user who is none is not found."""
    on_sqlite.run("users", "create", EMAIL, *NAMES, "--password-stdin", stdin=PASSWORD)
    assert on_sqlite.json("sessions", "list", EMAIL) == []
    nobodies = [str(uuid4()), "no address at all"]
    answers = at_once(lambda who: on_sqlite.run("sessions", "list", who, code=Exit.NOT_FOUND), nobodies)
    for nobody, said in zip(nobodies, answers, strict=True):
        assert f"no user {nobody}" in said


@pytest.mark.parametrize("backend", ["postgresql"])  # on SQLite: tests/core/sessions/test_routes.py
def test_what_an_operator_ends_is_over_within_a_second(installation: Installation) -> None:
    """One session, a user's, everyone's, a stolen key's: refused by a running server in a second.

    Whoever may sign in still may.
    """
    with ServerProcess(installation.folder, variables=installation.variables) as server, server.client() as browser:

        def signed_in(email: str = EMAIL) -> Visitor:
            browser.cookies.clear()  # somebody else's browser: signing in again in one would end the session before
            answer = browser.post("/api/auth/login", json=credentials(email))
            assert answer.status_code == 200, answer.text
            return Visitor(browser, answer.cookies["access_token"], answer.cookies["refresh_token"])

        grace = browser.post("/api/auth/register", json=registration(EMAIL)).json()
        browser.post("/api/auth/register", json=registration("eve@example.com"))

        first, second, eve = signed_in(), signed_in(), signed_in("eve@example.com")
        assert installation.json("sessions", "revoke", first.session_id()) == {"revoked": first.session_id()}
        first.sees_the_end()
        assert second.is_let_in()

        third = signed_in()
        assert installation.run("sessions", "revoke", "--user", "GRACE@example.com") == f"revoked all of {EMAIL}\n"
        for visitor in (second, third):
            visitor.sees_the_end()
        assert eve.is_let_in()

        fourth = signed_in()
        assert installation.json("sessions", "revoke", "--user", grace["id"]) == {"revoked": f"all of {EMAIL}"}
        fourth.sees_the_end()
        assert eve.is_let_in()

        fifth = signed_in()
        assert installation.json("sessions", "revoke", "--all") == {"revoked": "everyone's"}
        for visitor in (fifth, eve):
            visitor.sees_the_end()
        assert installation.json("sessions", "list", EMAIL) == []
        last = [signed_in(), signed_in("eve@example.com")]
        for visitor in last:
            assert visitor.is_let_in()

        (key,) = installation.json("keys", "list")
        retire = ("keys", "retire", key["kid"], "--now", "--yes")
        quickly = {**installation.variables, "JWT_ALGORITHM": "ES256"}
        assert latchstring(*retire, cwd=installation.folder, variables=quickly).returncode == Exit.DONE
        for visitor in last:
            visitor.is_shut_out()
        for visitor in (signed_in(), signed_in("eve@example.com")):
            assert visitor.is_let_in()
            assert visitor.refresh().status_code == 200


@dataclass(frozen=True)
class Visitor:
    """Someone who holds the tokens of one session."""

    browser: httpx2.Client
    access: str
    refresh_token: str

    def session_id(self) -> str:
        """Returns the id that the tokens name."""
        claims = jwt.decode(self.access, options={"verify_signature": False})
        return str(claims["sid"])

    def refresh(self) -> httpx2.Response:
        """Asks for the next pair."""
        self.browser.cookies.clear()
        return self.browser.post("/api/auth/refresh", headers={"Authorization": f"Bearer {self.refresh_token}"})

    def ask(self) -> httpx2.Response:
        """Asks for the dashboard."""
        self.browser.cookies.clear()
        return self.browser.get("/api/dashboard", headers={"Authorization": f"Bearer {self.access}"})

    def is_let_in(self) -> bool:
        """Tells whether the dashboard is shown."""
        return self.ask().status_code == 200

    def sees_the_end(self) -> None:
        """Is refused soon, and gets no new tokens."""
        assert self.is_shut_out() == {"session_ended"}

    def is_shut_out(self) -> set[str]:
        """The same, for whatever reason; returns which were given."""
        sleep_until(lambda: not self.is_let_in())
        answer, again = self.ask(), self.refresh()
        assert (answer.status_code, again.status_code) == (401, 401)
        return {answer.json()["code"], again.json()["code"]}


def test_there_is_no_such_session_to_end(on_sqlite: Installation) -> None:
    """Unknown, malformed, ended already, or a user who is none: exit code 4, and words that say which."""
    with ServerProcess(on_sqlite.folder, variables=on_sqlite.variables) as server, server.client() as browser:
        browser.post("/api/auth/register", json=registration(EMAIL))
        (own,) = (row["id"] for row in browser.get("/api/auth/sessions").json())
        browser.post("/api/auth/logout")
    none: dict[tuple[str, ...], str] = {}
    none |= {(given,): f"no active session {given}" for given in (own, str(uuid4()), "no-uuid")}
    none |= {("--user", given): f"no user {given}" for given in ("bob@example.com", own)}
    answers = at_once(lambda given: on_sqlite.run("sessions", "revoke", *given, code=Exit.NOT_FOUND), list(none))
    for words, said in zip(none.values(), answers, strict=True):
        assert words in said


NOT_ONE_THING = ["", f"{uuid4()} --all", f"{uuid4()} --user {EMAIL}", "a b"]


def test_which_sessions_to_end_is_said_once(on_sqlite: Installation) -> None:
    """None, or two of them, exits with 2, and nobody is signed out by it."""
    with ServerProcess(on_sqlite.folder, variables=on_sqlite.variables) as server, server.client() as browser:
        browser.post("/api/auth/register", json=registration(EMAIL))
        answers = at_once(
            lambda given: on_sqlite.run("sessions", "revoke", *given.split(), code=Exit.USAGE), NOT_ONE_THING
        )
        assert all("--all" in said and "--user" in said for said in answers[:3])
        assert browser.get("/api/dashboard").status_code == 200
        assert browser.post("/api/auth/refresh").status_code == 200


# --- schema, keys ----------------------------------------------------------------------------------------------------


def test_migrate(unmigrated: Installation) -> None:
    """`--check` tells and changes nothing, `migrate` does it, and then there is nothing left to do."""
    assert "latchstring migrate" in unmigrated.run("migrate", "--check", code=Exit.FAILED)
    assert "latchstring migrate" in unmigrated.run("users", "list", code=Exit.FAILED)
    first = unmigrated.json("migrate")
    assert first == {"before": None, "now": first["newest"], "newest": first["newest"], "current": True}
    assert unmigrated.json("migrate", "--check") == first | {"before": first["now"]}


def test_a_schema_from_the_future_is_left_alone(on_sqlite: Installation) -> None:
    """An older program on a newer schema (a rollback, a rolling upgrade) says so, and breaks nothing."""
    with sqlite3.connect(on_sqlite.folder / "prepared.db") as database:
        database.execute("UPDATE latchstring_schema_version SET version_num = '9999'")
    assert "9999" in on_sqlite.run("migrate", code=Exit.FAILED)
    assert checks(on_sqlite, Exit.FAILED)["schema"] == "failure"


def test_keys_list(on_sqlite: Installation) -> None:
    """Each key's name, algorithm, state and dates; nothing of its private half."""
    (key,) = on_sqlite.json("keys", "list")
    assert (key["algorithm"], key["state"], key["source"]) == ("EdDSA", "active", "database")
    dates = {"published_at", "signs_from", "retired_at", "verifies_until"}
    assert key.keys() == {"kid", "algorithm", "state", "source"} | dates


@dataclass(frozen=True)
class AtTheDesk:
    """The command line inside the test's own process, where a command costs no start of another."""

    patch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def run(self, *arguments: str, code: Exit = Exit.DONE) -> tuple[str, str]:
        """Runs one command that must exit with `code`; returns what it printed, and what it said."""
        self.patch.setattr(sys, "argv", ["latchstring", *arguments])
        try:
            main()
        except SystemExit as end:
            ended = end.code
        else:
            ended = Exit.DONE
        printed, said = self.capsys.readouterr()
        assert ended == code, said
        return printed, said

    def refused(self, *arguments: str, code: Exit) -> str:
        """Runs a command that must change nothing; returns what it said."""
        before = self.listed()
        printed, said = self.run(*arguments, code=code)
        assert printed == ""
        assert self.listed() == before
        return said

    def json(self, *arguments: str) -> Any:  # noqa: ANN401 -- JSON
        """Runs a command with `--json` that must succeed, and returns its result."""
        return json.loads(self.run(*arguments, "--json")[0])

    def listed(self) -> list[dict[str, str | None]]:
        """Returns every key, the oldest first."""
        keys: list[dict[str, str | None]] = self.json("keys", "list")
        return keys

    def states(self) -> list[str | None]:
        """Returns the state of each."""
        return [key["state"] for key in self.listed()]


@pytest.fixture
def desk(on_sqlite: Installation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> AtTheDesk:
    monkeypatch.chdir(on_sqlite.folder)
    for name in os.environ.keys() - clean_environment({}).keys():
        monkeypatch.delenv(name)
    for name, value in (*on_sqlite.variables.items(), ("JWT_ALGORITHM", "ES256")):
        monkeypatch.setenv(name, value)
    return AtTheDesk(monkeypatch, capsys)


def test_a_keys_life(desk: AtTheDesk) -> None:
    """Rotated, once at a time; the new key withdrawn; rotated again; stolen, and over with at once."""
    (first,) = desk.listed()
    old = first["kid"]
    assert old is not None
    rotation = desk.json("keys", "rotate")
    new = rotation["new"]["kid"]
    assert [(key["kid"], key["state"]) for key in desk.listed()] == [(old, "active"), (new, "pending")]
    ending, coming = desk.listed()
    handover = rotation["new"]["signs_from"]
    assert handover == coming["signs_from"] == ending["retired_at"]
    retired = [{"kid": old, "retired_at": handover, "verifies_until": ending["verifies_until"]}]
    assert rotation == {"dry_run": False, "retired": retired, "recalled": [], "new": rotation["new"]}
    lead = datetime.fromisoformat(handover) - datetime.fromisoformat(coming["published_at"] or "")
    assert lead == timedelta(seconds=610)

    said = desk.refused("keys", "rotate", code=Exit.CONFLICT)
    assert "a rotation is under way" in said
    assert new in said
    assert handover in said
    assert "no such key" in desk.refused("keys", "retire", "nobodys", code=Exit.NOT_FOUND)

    withdrawal = desk.json("keys", "retire", new)
    assert ([key["kid"] for key in withdrawal["retired"]], withdrawal["recalled"]) == ([new], [old])
    assert withdrawal["new"] is None
    # An instance whose clock is ahead may have signed with it.
    assert desk.states() == ["active", "retired"]
    assert "retired already" in desk.refused("keys", "retire", new, code=Exit.CONFLICT)

    printed, said = desk.run("keys", "rotate")
    third = desk.listed()[-1]["kid"]
    assert [line.split(":")[0] for line in printed.splitlines()] == [f"new key {third}", f"key {old}"]
    assert said == ""

    printed, said = desk.run("keys", "retire", old, "--now", "--yes")
    assert "signs everyone out" in said
    assert desk.states() == ["gone", "gone", "gone", "active"]
    assert f"key {old}: no token of it is taken any more" in printed.splitlines()
    assert f"new key {desk.listed()[-1]['kid']}: published now" in printed


def test_what_a_dry_run_tells(desk: AtTheDesk) -> None:
    """What would be changed, of each verb, and that nothing was; a conflict has its exit code all the same."""
    (first,) = desk.listed()
    old = first["kid"]
    assert old is not None
    for command in (("rotate",), ("retire", old), ("retire", old, "--now")):
        printed, said = desk.run("keys", *command, "--dry-run", "--json")
        told = json.loads(printed)
        assert (told["dry_run"], [key["kid"] for key in told["retired"]], told["new"]["kid"]) == (True, [old], None)
        assert said.splitlines()[-1] == "this was a dry run: nothing was changed"
        assert "(not made yet)" in desk.run("keys", *command, "--dry-run")[0]
    assert desk.listed() == [first]
    desk.refused("keys", "retire", "nobodys", "--dry-run", code=Exit.NOT_FOUND)


def test_everyone_is_not_signed_out_by_mistake(desk: AtTheDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key ends at once only after a yes: where nobody is there to ask, `--now` alone is wrong usage."""
    old = desk.listed()[0]["kid"]
    assert old is not None
    assert "--yes" in desk.refused("keys", "retire", old, "--now", code=Exit.USAGE)
    for answer, code in (("n\n", Exit.FAILED), ("", Exit.FAILED), ("y\n", Exit.DONE)):
        terminal = StringIO(answer)
        monkeypatch.setattr(terminal, "isatty", lambda: True)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", terminal)
            _, said = desk.run("keys", "retire", old, "--now", code=code)
        assert f"Retire key {old} at once?" in said
        assert desk.states() == (["gone", "active"] if code is Exit.DONE else ["active"])


def test_keys_of_the_environment_are_changed_there(desk: AtTheDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are shown; each verb exits with 3, and names the variables in which it is done."""
    signing, extra = new_key("P-256"), new_key("RSA-2048")
    monkeypatch.setenv("JWT_PRIVATE_KEY", base64.b64encode(private_pem(signing)).decode())
    monkeypatch.setenv("JWT_EXTRA_PUBLIC_KEYS", base64.b64encode(public_pem(extra)).decode())
    shown = desk.listed()
    assert [(key["algorithm"], key["state"], key["source"], key["signs_from"]) for key in shown] == [
        ("ES256", "active", "environment", None),
        ("RS256", "retired", "environment", None),
    ]
    kid = shown[0]["kid"]
    assert kid is not None
    for command in (("rotate",), ("retire", kid), ("retire", kid, "--now", "--yes")):
        for dry_run in ((), ("--dry-run",)):
            said = desk.refused("keys", *command, *dry_run, code=Exit.CONFIGURATION)
            assert {"JWT_PRIVATE_KEY", "JWT_EXTRA_PUBLIC_KEYS"} <= set(re.findall(r"\w+", said))


def test_a_feed_tokens_life(desk: AtTheDesk) -> None:
    """Shown once, listed by its name, taken once a name, and gone when it is revoked."""
    printed, said = desk.run("feed-token", "create", "orders")
    assert re.fullmatch(r"lsf_[\w-]{43}\n", printed)
    assert "not shown again" in said
    assert [row["name"] for row in desk.json("feed-token", "list")] == ["orders"]
    assert printed.strip() not in desk.run("feed-token", "list")[0]
    assert "already" in desk.run("feed-token", "create", "orders", code=Exit.CONFLICT)[1]
    for name in ("", "x" * 101, "a\nb"):
        assert "1 to 100" in desk.run("feed-token", "create", name, code=Exit.USAGE)[1]
    assert desk.json("feed-token", "revoke", "orders") == {"revoked": "orders"}
    assert "no feed token orders" in desk.run("feed-token", "revoke", "orders", code=Exit.NOT_FOUND)[1]
    assert desk.json("feed-token", "list") == []


# --- settings --------------------------------------------------------------------------------------------------------


def test_settings_that_cant_be_used_exit_with_3(tmp_path: Path) -> None:
    """One sentence on stderr names the variable; nothing is made."""
    short = Installation(tmp_path, {"LATCHSTRING_SECRET": "short but secret"})
    for said in at_once(
        lambda command: short.run(*command.split(), code=Exit.CONFIGURATION), ["openapi", "users list"]
    ):
        assert said.count("\n") == 1
        assert "LATCHSTRING_SECRET" in said
        assert "short but secret" not in said
    assert not list(tmp_path.iterdir())


def test_the_tutorials_env_file_is_enough(postgres: Postgres, postgres_template: str, tmp_path: Path) -> None:
    """The five variables in a `.env` of the working folder reach PostgreSQL."""
    parts = urlsplit(postgres.create_database(template=postgres_template))
    (tmp_path / ".env").write_text(
        f"POSTGRES_USER={parts.username}\nPOSTGRES_PASSWORD={unquote(parts.password or '')}\n"
        f"POSTGRES_SERVER={parts.hostname}\nPOSTGRES_PORT={parts.port}\nPOSTGRES_DB={parts.path[1:]}\n"
        f"LATCHSTRING_SECRET='{SECRET}'\n"
    )
    (key,) = Installation(tmp_path, {}).json("keys", "list")
    assert key["state"] == "active"


SECRETS = {
    "LATCHSTRING_SECRET": SECRET,
    "LATCHSTRING_DATABASE_URL": "postgresql://ada:lovelace@127.0.0.1:1/auth",
    "POSTGRES_USER": "ada",
    "POSTGRES_PASSWORD": "byron-1815",
    "POSTGRES_SERVER": "127.0.0.1",
    "POSTGRES_PORT": "1",
    "POSTGRES_DB": "auth",
    "JWT_PRIVATE_KEY": "cHJpdmF0ZQ==",
}


def test_config_shows_settings_and_no_secrets(tmp_path: Path) -> None:
    """Each setting by its variable's name, and of a secret only that it is set."""
    installation = Installation(tmp_path, {**SECRETS, "ACCESS_TOKEN_EXPIRE_MINUTES": "0.5"})
    shown, for_people = installation.json("config"), installation.run("config")
    assert shown["ACCESS_TOKEN_EXPIRE_MINUTES"] == "0.5"
    assert shown["LATCHSTRING_AUDIENCE"] is None
    assert shown["LATCHSTRING_LIMIT_ACCOUNT"] == "10/15m", "as it would be written"
    assert shown["LATCHSTRING_SECRET"] == shown["JWT_PRIVATE_KEY"] == "(set)"
    assert all(name in for_people for name in shown)
    for secret in (SECRET, "lovelace", "byron-1815", "cHJpdmF0ZQ=="):
        assert secret not in json.dumps(shown) + for_people
    assert not list(tmp_path.iterdir())


def test_openapi_needs_no_database(tmp_path: Path) -> None:
    """The document is printed on a machine where nothing is set up, and nothing is made there."""
    document = json.loads(Installation(tmp_path, {}).run("openapi"))
    assert document["info"]["version"] == version("latchstring")
    assert {"/api/auth/register", "/api/auth/refresh", "/api/dashboard"} <= document["paths"].keys()
    assert {"/api/auth/token", "/api/auth/confirm", "/api/auth/sessions"} <= document["paths"].keys()
    assert not list(tmp_path.iterdir())


# --- doctor ----------------------------------------------------------------------------------------------------------


def checks(installation: Installation, code: Exit, variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """Returns the state of each thing that the doctor looked at, the worst where it has several to say."""
    done = latchstring(
        "doctor", "--json", cwd=installation.folder, variables={**installation.variables, **(variables or {})}
    )
    assert (done.returncode, done.stderr) == (code, "")
    for secret in (SECRET, "lovelace", "short but secret"):
        assert secret not in done.stdout
    found: dict[str, str] = {}
    for check in json.loads(done.stdout):
        assert check["state"] == "ok" or check["words"], "what is wrong comes with what to do"
        found[check["name"]] = max(found.get(check["name"], ""), check["state"], key=_SEVERITY.index)
    return found


_SEVERITY = ["", "ok", "warning", "failure"]
_PUBLIC = {
    "LATCHSTRING_PUBLIC_URL": "https://auth.example.com",
    "LATCHSTRING_PASSWORD_HASH_MEMORY_KIB": "",
    "LATCHSTRING_PASSWORD_HASH_PASSES": "",
}


def test_doctor_finds_a_healthy_installation_healthy(installation: Installation) -> None:
    """Set up for production, nothing is left to say, on both databases."""
    assert set(checks(installation, Exit.DONE, _PUBLIC).values()) == {"ok"}


SICK: list[tuple[dict[str, str], Exit, dict[str, str]]] = [
    (
        {"LATCHSTRING_AUDIENCES": "misspelt", "LATCHSTRING_PUBLIC_URL": "", **CHEAP_HASH},
        Exit.DONE,
        {"settings": "warning", "public url": "warning", "password hash": "warning"},
    ),
    ({"LATCHSTRING_LIMITS": "off"}, Exit.DONE, {"limits": "warning"}),
    ({"LATCHSTRING_SECRET": "short but secret"}, Exit.CONFIGURATION, {"settings": "failure"}),
    ({"LATCHSTRING_LIMIT_ACCOUNT": "0/15m"}, Exit.CONFIGURATION, {"settings": "failure"}),
    ({"LATCHSTRING_SECRET": "another secret, as long as it has to be"}, Exit.FAILED, {"keys": "failure"}),
    ({"LATCHSTRING_DATABASE_URL": "sqlite:///empty.db"}, Exit.FAILED, {"schema": "failure"}),
    ({"LATCHSTRING_DATABASE_URL": "postgresql://ada:lovelace@127.0.0.1:1/db"}, Exit.FAILED, {"database": "failure"}),
]


def test_doctor_finds_a_pooler_that_loses_statements(
    postgres: Postgres, postgres_template: str, tmp_path: Path
) -> None:
    """With the default there is nothing to find; a setting that forces prepared statements is a failure."""
    url = postgres.create_database(template=postgres_template)
    with pooler(postgres.url) as through:
        variables = {"LATCHSTRING_DATABASE_URL": through(url), "LATCHSTRING_SECRET": SECRET, **_PUBLIC}
        installation = Installation(folder=tmp_path, variables=variables)
        found = at_once(
            lambda row: checks(installation, row[1], {"LATCHSTRING_DATABASE_PREPARED_STATEMENTS": row[0]}),
            [("auto", Exit.DONE), ("on", Exit.FAILED)],
        )
    assert [states.get("prepared statements") for states in found] == [None, "failure"]


def test_doctor_finds_what_is_wrong(on_sqlite: Installation) -> None:
    """Each fault has a name and words; a warning leaves the exit code alone, a failure does not."""
    found = at_once(lambda row: checks(on_sqlite, row[1], {**_PUBLIC, **row[0]}), SICK)
    for (_, _, sick), states in zip(SICK, found, strict=True):
        assert {name: state for name, state in states.items() if state != "ok"} == sick
