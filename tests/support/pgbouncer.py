"""A real PgBouncer in front of a PostgreSQL, on a free port of 127.0.0.1.

    with pooler(postgres.url) as pooled:           transactions are pooled: each may run on another connection
        url = pooled(database_url)                 the same database, through the pooler

A test that asks for it skips where PgBouncer is not installed. `LATCHSTRING_TEST_PGBOUNCER`, the program's path, says
that it must be there.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.support.hang import HANG_SECONDS
from tests.support.postgres import free_port, unprivileged_account

PROGRAM_VARIABLE = "LATCHSTRING_TEST_PGBOUNCER"

_INI = """\
[databases]
* = host={host} port={port}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen_port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users
pool_mode = transaction
default_pool_size = {connections}
server_round_robin = 1
"""
# Round robin is the worst case: with it hardly two statements in a row run on the same connection.


def found_pgbouncer() -> str | None:
    """Returns the path of PgBouncer, where there is one or it was said that there is."""
    wanted = os.environ.get(PROGRAM_VARIABLE)
    return wanted or shutil.which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")


def pgbouncer_program() -> str:
    """Returns the same; skips the test if PgBouncer is not installed and need not be."""
    found = found_pgbouncer()
    if found is None:
        pytest.skip(f"PgBouncer is not installed: install it, or set {PROGRAM_VARIABLE}")
    return found


@contextlib.contextmanager
def pooler(server_url: str, *, connections: int = 6) -> Iterator[Callable[[str], str]]:
    """Run PgBouncer in front of the server of a URL; give a function that routes a database's URL through it."""
    program, server = pgbouncer_program(), urlsplit(server_url)
    account, port = unprivileged_account(), free_port()
    with tempfile.TemporaryDirectory(prefix="latchstring-pgbouncer-") as name:
        folder = Path(name)
        ini = _INI.format(
            host=server.hostname, port=server.port, listen_port=port, folder=folder, connections=connections
        )
        (folder / "ini").write_text(ini)
        (folder / "users").write_text(f'"{unquote(server.username or "")}" "{unquote(server.password or "")}"\n')
        for path in (folder, *folder.iterdir()):
            path.chmod(0o700 if path.is_dir() else 0o600)
            if account:
                os.chown(path, account.pw_uid, account.pw_gid)
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [program, str(folder / "ini")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # the terminal's Ctrl-C is for the tests
                # PgBouncer refuses to run as root.
                user=account.pw_uid if account else None,
                group=account.pw_gid if account else None,
                extra_groups=[] if account else None,
            )
        try:
            _wait_until_it_listens(process, port, folder / "log")
            yield lambda url: urlsplit(url)._replace(netloc=_netloc(url, port)).geturl()
        finally:
            process.send_signal(signal.SIGTERM)  # at once; SIGINT would wait for clients
            process.wait(HANG_SECONDS)


def _netloc(url: str, port: int) -> str:
    return f"{urlsplit(url).netloc.rpartition('@')[0]}@127.0.0.1:{port}"


def _wait_until_it_listens(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + HANG_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        time.sleep(0.01)
    raise RuntimeError(f"PgBouncer did not start:\n{log.read_text(errors='replace')}")
