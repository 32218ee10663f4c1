"""One of several worker processes: a server that obeys its parent, and ends with it.

Parent and worker are joined by a pipe. The parent says `ping`, `drain` or `stop`; the worker says `ready` once, and
`pong`. The parent's end is in no other process, so that the pipe ends with the parent, however it ends.
"""

import contextlib
import logging
import os
import signal
import socket
import threading
import time
from functools import partial
from multiprocessing.connection import Connection

import uvicorn

from latchstring.apps.shutdown import COMPLETION_SECONDS, DrainingServer
from latchstring.errors import LatchstringError

PING, PONG, READY, DRAIN, STOP = b"ping", b"pong", b"ready", b"drain", b"stop"
SIGNALS = {signal.SIGINT, signal.SIGTERM}
"""Blocked in a new process until it can handle them: the parent blocks them while it starts one."""
_ORPHAN_SECONDS = COMPLETION_SECONDS + 2
_log = logging.getLogger(__name__)


def run_worker(config: uvicorn.Config, listener: socket.socket, control: Connection, drain_seconds: float) -> None:
    """Serve until a signal, or the parent, says to stop. Exits with 1 if the server could not start."""
    # A new process has uvicorn's loggers as they come: its access log has each request's query, and tokens are in some.
    config.configure_logging()
    # Inherited where this process was forked: signals would be reported to the parent.
    signal.set_wakeup_fd(-1)
    server = DrainingServer(
        config, drain_seconds=drain_seconds, closes_port=False, on_started=partial(_say, control, READY)
    )
    for each in SIGNALS:
        signal.signal(each, server.handle_exit)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    threading.Thread(target=_live_with_parent, args=(server, control), daemon=True).start()
    try:
        server.run([listener])
    except LatchstringError as error:
        # One sentence, as everywhere: a traceback is long, and may show values.
        _log.error("%s", error, extra={"event": "worker.start_failed"})
        raise SystemExit(1) from None
    if not server.started:
        raise SystemExit(1)


def _live_with_parent(server: DrainingServer, control: Connection) -> None:
    """Obey the parent; end this process once it is gone."""
    obey(server, control)
    _log.warning("The parent process is gone; worker %d ends.", os.getpid(), extra={"event": "worker.orphaned"})
    server.stop()
    time.sleep(_ORPHAN_SECONDS)
    # Whatever it is that it waits for: a worker that stays would keep the port.
    os.kill(os.getpid(), signal.SIGKILL)


def obey(server: DrainingServer, control: Connection) -> None:
    """Do what the parent says, until it is gone."""
    with contextlib.suppress(EOFError, OSError):
        while True:
            word = control.recv_bytes()
            if word == PING:
                _answer(server, control)
            elif word == DRAIN:
                # All workers stop: nobody else accepts connections on the shared socket.
                server.closes_port = True
                server.drain()
            else:
                server.stop()


def _answer(server: DrainingServer, control: Connection) -> None:
    if server.loop is None:
        _say(control, PONG)
        return
    # By the event loop, and not by this thread: a loop that is blocked serves nobody. A closed one ends by itself.
    with contextlib.suppress(RuntimeError):
        server.loop.call_soon_threadsafe(_say, control, PONG)


def _say(control: Connection, word: bytes) -> None:
    # If the parent is gone, the thread that reads finds out.
    with contextlib.suppress(OSError):
        control.send_bytes(word)
