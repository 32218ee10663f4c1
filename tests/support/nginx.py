"""A real nginx in front of instances, with the upstream block that docs/operations.md shows."""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.hang import HANG_SECONDS
from tests.support.served import free_port

_CONFIGURATION = """
daemon off;
pid {folder}/nginx.pid;
worker_processes 1;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;

    upstream latchstring {{
        {servers}
        keepalive 32;
        keepalive_timeout {keepalive};
    }}

    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://latchstring;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_connect_timeout 3s;
        }}
    }}
}}
"""


def found_nginx() -> str | None:
    """Returns the program, where there is one or it was said that there is."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
    return os.environ.get("LATCHSTRING_TEST_NGINX") or shutil.which("nginx", path=path)


def nginx() -> str:
    """Returns the program; where there is none, these tests skip, unless it was said that there is one."""
    found = found_nginx()
    if found is None:
        pytest.skip("there is no nginx on this machine")
    return found


@contextlib.contextmanager
def proxying(program: str, *, ports: Sequence[int], keepalive: str) -> Iterator[str]:
    """Gives the URL of an nginx in front of these ports; it keeps idle connections to them for `keepalive`."""
    with tempfile.TemporaryDirectory(prefix="latchstring-nginx-") as name:
        folder, port = Path(name), free_port()
        # Its workers have another user where it is started by root.
        folder.chmod(0o755)
        servers = "\n        ".join(f"server 127.0.0.1:{each} max_fails=0;" for each in ports)
        words = _CONFIGURATION.format(folder=folder, servers=servers, keepalive=keepalive, port=port)
        (folder / "nginx.conf").write_text(words)
        errors = folder / "error.log"
        process = subprocess.Popen([program, "-e", errors, "-p", folder, "-c", folder / "nginx.conf"])
        try:
            _wait_until_it_listens(process, port, errors)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(HANG_SECONDS)


def _wait_until_it_listens(process: "subprocess.Popen[bytes]", port: int, errors: Path) -> None:
    deadline = time.monotonic() + HANG_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    raise RuntimeError(f"nginx did not start:\n{errors.read_text() if errors.exists() else ''}")
