"""The server's metrics port: one listener for all workers, in the process that started them.

It reads the files that the workers write, and so goes on when one of them dies. It is not on the port of the
application: a proxy in front would have to hide it.
"""

import asyncio
import atexit
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from latchstring import Settings
from latchstring.apps.connections import BoundedProtocol
from latchstring.apps.environment import set_for_workers
from latchstring.errors import ConfigurationError
from latchstring.foundation.clock import SystemClock
from latchstring.foundation.measurements.meter import refuse_without_prometheus

_MAX_CONNECTIONS = 16


def start_metrics(settings: Settings, bind: Callable[[str, int], socket.socket]) -> str | None:
    """Listen on the metrics port until this process ends; return the URL, or None without a port.

    To be called before the workers start: they learn of the directory from the environment.

    Args:
        settings: the settings.
        bind: binds a host and a port, or ends the command with a message.

    Raises:
        ConfigurationError: prometheus_client is not installed, or there is no directory for the workers' numbers.
    """
    if settings.metrics_port is None:
        return None
    refuse_without_prometheus()
    from latchstring.foundation.measurements.reading import (  # noqa: PLC0415 -- a server without the port needs none of it
        ensure_private,
    )

    directory = settings.metrics_dir or _temporary_directory()
    try:
        ensure_private(directory)
    except OSError as error:
        raise ConfigurationError(f"LATCHSTRING_METRICS_DIR can't be used: {error.strerror}") from None
    listener = bind(settings.metrics_host, settings.metrics_port)
    set_for_workers("LATCHSTRING_METRICS_DIR", str(directory.resolve()))
    # A daemon: it holds nothing that would have to be finished, and must not keep the process alive.
    threading.Thread(
        target=_serve, args=(directory.resolve(), listener), name="latchstring metrics", daemon=True
    ).start()
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/metrics"


def _temporary_directory() -> Path:
    try:
        directory = Path(tempfile.mkdtemp(prefix="latchstring-metrics-"))
    except OSError:
        raise ConfigurationError(
            "the temporary directory can't be written: set LATCHSTRING_METRICS_DIR to a directory that can"
        ) from None
    atexit.register(_remove, directory, os.getpid())
    return directory


def _remove(directory: Path, owner: int) -> None:
    # A forked child that ends must not take the directory away from the others.
    if os.getpid() == owner:
        shutil.rmtree(directory, ignore_errors=True)


def _serve(directory: Path, listener: socket.socket) -> None:
    from latchstring.foundation.measurements.exposition import MetricsApp  # noqa: PLC0415 -- it loads prometheus_client
    from latchstring.foundation.measurements.reading import read_directory  # noqa: PLC0415 -- only this thread reads

    config = uvicorn.Config(
        _OnlyMetrics(MetricsApp(partial(read_directory, directory, damaged=set()), SystemClock())),
        http=BoundedProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        limit_concurrency=_MAX_CONNECTIONS,
    )
    asyncio.run(_QuietServer(config).serve(sockets=[listener]))


class _QuietServer(uvicorn.Server):
    """A server that does nothing between two requests."""

    async def main_loop(self) -> None:
        """Serve until the process ends."""
        # uvicorn's wakes up ten times a second, for the Date header and to see whether it should stop: a tenth of what
        # an idle worker costs.
        await asyncio.Event().wait()


class _OnlyMetrics:
    """Responds to `/metrics` with an application, and to everything else with 404."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = scope["path"] == "/metrics"
        await (self._app if found else PlainTextResponse("The metrics are at /metrics.\n", 404))(scope, receive, send)
