"""The ready server with a clock that is wrong: an instance on a machine that nobody keeps in time.

    DRILL_MINUTES_AHEAD=10 python drills/skewed.py --port 0 --workers 4

It listens and introduces itself as `latchstring serve` does. Minutes below zero put it behind.
"""

import argparse
import os
import socket
import sys
from datetime import datetime, timedelta
from pathlib import Path

if __name__ == "__main__":
    # Started as a script: the project's folder makes `drills` importable, here and in the workers.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import uvicorn
from fastapi import FastAPI

from latchstring.apps.connections import BoundedProtocol
from latchstring.apps.data_directory import prepare_data_directory
from latchstring.apps.environment import read_variables, settings_from
from latchstring.apps.logs import configure_logging
from latchstring.apps.server import build_app
from latchstring.apps.shutdown import DrainingServer
from latchstring.apps.supervisor import Supervisor
from latchstring.foundation.clock import SystemClock

MINUTES_VARIABLE = "DRILL_MINUTES_AHEAD"


class SkewedClock(SystemClock):
    """Tells a time of day that is some minutes off; seconds last as long as anywhere."""

    def __init__(self, *, ahead: timedelta) -> None:
        self._ahead = ahead

    def now(self) -> datetime:
        """Return the wrong time of day, in UTC."""
        return super().now() + self._ahead


def create_app() -> FastAPI:
    """Return the application that the environment describes, on the wrong clock."""
    configure_logging()
    ahead = timedelta(minutes=float(os.environ[MINUTES_VARIABLE]))
    return build_app(prepare_data_directory(settings_from(read_variables())), clock=SkewedClock(ahead=ahead))


def main() -> None:
    """Serve until told to end. The database is prepared already: an honest instance came first."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    config = uvicorn.Config(
        "drills.skewed:create_app",
        factory=True,
        workers=given.workers,
        http=BoundedProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", given.port))
    listener.set_inheritable(True)
    print(f"serves at http://localhost:{listener.getsockname()[1]}", flush=True)
    if given.workers > 1:
        Supervisor(config, listener=listener, drain_seconds=0).run()
    else:
        DrainingServer(config, drain_seconds=0).run(sockets=[listener])


if __name__ == "__main__":
    main()
