"""Ways to take a backup of a database in use and to put it back, as docs/operations.md describes them.

Each gives the URL of its database, takes one copy, and puts it back as often as it is asked.
"""

import contextlib
import shutil
import sqlite3
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

import psycopg

from tests.support.backups import copy_database, run, sqlite_path
from tests.support.hang import HANG_SECONDS
from tests.support.postgres import OwnPostgres, program


class Way(ABC):
    """One way to take a backup, and to put it back."""

    name: ClassVar[str]
    stops_servers: ClassVar[bool] = False
    """Whether Latchstring has to be stopped while the backup is put back."""

    @contextlib.contextmanager
    def database(self, url: str) -> Iterator[str]:
        """Gives the database to use: the one given, or one on a server of this way's own."""
        yield url

    @abstractmethod
    def take(self, url: str, folder: Path) -> None:
        """Takes the copy."""

    @abstractmethod
    def put_back(self, url: str) -> None:
        """Puts it back."""


class SqliteBackup(Way):
    """`.backup` and `.restore`, by the shell where there is one: both work while servers run."""

    name = "sqlite3 .backup, .restore"

    def take(self, url: str, folder: Path) -> None:
        self._copy = folder / "backup.db"
        if shutil.which("sqlite3"):
            run("sqlite3", str(sqlite_path(url)), ".timeout 10000", f".backup '{self._copy}'")
        else:
            copy_database(sqlite_path(url), self._copy)

    def put_back(self, url: str) -> None:
        if shutil.which("sqlite3"):
            run("sqlite3", str(sqlite_path(url)), ".timeout 10000", f".restore '{self._copy}'")
        else:
            copy_database(self._copy, sqlite_path(url))


class VacuumInto(Way):
    """`VACUUM INTO`, and the file put in the place of the database."""

    name = "VACUUM INTO, file replaced"
    stops_servers = True

    def take(self, url: str, folder: Path) -> None:
        self._copy = folder / "vacuumed.db"
        with closing(sqlite3.connect(sqlite_path(url), timeout=HANG_SECONDS)) as connection:
            connection.execute("VACUUM INTO ?", (str(self._copy),))

    def put_back(self, url: str) -> None:
        _replace_file(sqlite_path(url), self._copy)


class FileAndLog(Way):
    """The file and its write-ahead log, copied under a read lock: what a streaming copy ships."""

    name = "file and WAL, as a streaming copy"
    stops_servers = True

    def take(self, url: str, folder: Path) -> None:
        self._copy = folder / "streamed.db"
        path = sqlite_path(url)
        with closing(sqlite3.connect(path, timeout=HANG_SECONDS, isolation_level=None)) as connection:
            # The lock keeps the log from being begun anew between the two copies.
            connection.execute("BEGIN")
            connection.execute("SELECT count(*) FROM latchstring_sessions").fetchall()
            shutil.copy(path, self._copy)
            shutil.copy(f"{path}-wal", f"{self._copy}-wal")
            connection.execute("COMMIT")

    def put_back(self, url: str) -> None:
        _replace_file(sqlite_path(url), self._copy)


def _replace_file(path: Path, copy: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
        if Path(f"{copy}{suffix}").exists():
            shutil.copy(f"{copy}{suffix}", f"{path}{suffix}")


class Dump(Way):
    """`pg_dump`, and `pg_restore` into a new database of the same name."""

    name = "pg_dump, pg_restore"

    def take(self, url: str, folder: Path) -> None:
        self._copy = folder / "backup.dump"
        run(program("pg_dump"), "--format=custom", f"--file={self._copy}", url)

    def put_back(self, url: str) -> None:
        name, other = urlsplit(url).path.removeprefix("/"), urlsplit(url)._replace(path="/postgres").geturl()
        run(program("dropdb"), "--force", f"--maintenance-db={other}", name)
        run(program("createdb"), f"--maintenance-db={other}", name)
        run(program("pg_restore"), "--no-owner", "--single-transaction", f"--dbname={url}", self._copy)


class BaseBackup(Way):
    """`pg_basebackup`, and its folder in the place of the server's data."""

    name = "pg_basebackup"

    @contextlib.contextmanager
    def database(self, url: str) -> Iterator[str]:  # noqa: ARG002 -- a server of its own
        with OwnPostgres() as server:
            self._server = server
            self._prepare()
            yield server.create_database()

    def _prepare(self) -> None:
        """Does nothing: a base backup needs no settings that are not PostgreSQL's own."""

    def take(self, url: str, folder: Path) -> None:  # noqa: ARG002 -- the server's account writes beside its data
        self._copy = self._server.data_directory.with_name("base")
        self._server.run("pg_basebackup", f"--dbname={url}", f"--pgdata={self._copy}", "--checkpoint=fast")

    def put_back(self, url: str) -> None:  # noqa: ARG002 -- of the whole server
        self._server.stop()
        shutil.rmtree(self._server.data_directory)
        subprocess.run(["cp", "-a", self._copy, self._server.data_directory], check=True)  # noqa: S607 -- any cp
        self._recover()
        self._server.start()

    def _recover(self) -> None:
        """Does nothing: the backup has the log it needs."""


class PointInTime(BaseBackup):
    """A base backup and the archived log, up to a moment."""

    name = "pg_basebackup and archived WAL, to a point in time"

    def _prepare(self) -> None:
        self._archive = self._server.data_directory.with_name("archive")
        self._server.own(self._archive, is_directory=True)
        self._execute("ALTER SYSTEM SET archive_mode = on")
        self._execute(f"ALTER SYSTEM SET archive_command = 'cp %p {self._archive}/%f'")
        self._server.stop()
        self._server.start()

    def take(self, url: str, folder: Path) -> None:
        super().take(url, folder)
        # What happens from here to the moment is in the log alone.
        self._execute("CREATE TABLE in_the_log (x integer)")
        self._moment = self._execute("SELECT clock_timestamp()")
        time.sleep(0.1)

    def put_back(self, url: str) -> None:
        segment = self._execute("SELECT pg_walfile_name(pg_switch_wal())")
        deadline = time.monotonic() + HANG_SECONDS
        while not (self._archive / str(segment)).exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        super().put_back(url)
        while self._execute("SELECT pg_is_in_recovery()") and time.monotonic() < deadline:
            time.sleep(0.05)
        assert self._execute("SELECT count(*) FROM in_the_log") == 0

    def _recover(self) -> None:
        data = self._server.data_directory
        with (data / "postgresql.auto.conf").open("a") as settings:
            settings.write(
                f"restore_command = 'cp {self._archive}/%f %p'\nrecovery_target_time = '{self._moment}'\n"
                "recovery_target_action = promote\nrecovery_target_timeline = current\n"
            )
        self._server.own(data / "recovery.signal")

    def _execute(self, statement: str) -> object:
        with psycopg.connect(self._server.url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            row = cursor.fetchone() if cursor.description else None
            return row[0] if row else None


WAYS: dict[str, list[type[Way]]] = {
    "sqlite": [SqliteBackup, VacuumInto, FileAndLog],
    "postgresql": [Dump, BaseBackup, PointInTime],
}
