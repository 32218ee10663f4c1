"""Backups as docs/operations.md describes them: taken from a database in use, and put back.

backup = backup_of(url, folder)     `.backup` on SQLite, `pg_dump` on PostgreSQL
put_back(url, backup)               into the same database, while workers have it open
"""

import os
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.hang import HANG_SECONDS
from tests.support.postgres import program


def backup_of(url: str, folder: Path) -> Path:
    """Takes a backup while the database is in use."""
    if url.startswith("sqlite"):
        copy = folder / "backup.db"
        copy_database(sqlite_path(url), copy)
        return copy
    copy = folder / "backup.dump"
    run(program("pg_dump"), "--format=custom", f"--file={copy}", url)
    return copy


def put_back(url: str, backup: Path) -> None:
    """Puts a backup back into the database, which may have connections."""
    if url.startswith("sqlite"):
        copy_database(backup, sqlite_path(url))
        return
    run(
        program("pg_restore"),
        *("--clean", "--if-exists", "--single-transaction", "--no-owner", f"--dbname={url}", str(backup)),
    )


def copy_database(source: Path, target: Path) -> None:
    """Does what `.backup` and `.restore` of the sqlite3 shell do: copies page by page, under SQLite's own locks."""
    with closing(sqlite3.connect(source)) as read, closing(sqlite3.connect(target, timeout=HANG_SECONDS)) as written:
        read.backup(written)


def sqlite_path(url: str) -> Path:
    """Returns the file of a SQLite URL."""
    return Path(urlsplit(url.replace("+aiosqlite", "")).path.removeprefix("/"))


def run(*command: str | Path) -> None:
    """Runs a program to its end; it must succeed."""
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
    done = subprocess.run(command, env=environment, capture_output=True, timeout=HANG_SECONDS, check=False, text=True)
    assert done.returncode == 0, done.stderr
