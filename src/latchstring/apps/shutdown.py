"""A server that stops without losing a request.

On SIGTERM, in this order:

1. `/readyz` responds 503, and every response says `Connection: close`, for the pause of
   `LATCHSTRING_SHUTDOWN_DRAIN_SECONDS`: load balancers turn to other instances, and proxies give up their connections;
2. the port is closed, with no connection left that nobody has accepted;
3. connections that were accepted last have a moment to send their request;
4. idle connections are closed, and requests in progress are completed, within 10 s.

SIGINT (Ctrl-C) skips the pause. A second one does not wait for requests in progress either.
"""

import asyncio
import contextlib
import ctypes
import logging
import signal
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from types import FrameType

import uvicorn

from latchstring.apps.connections import BoundedProtocol
from latchstring.apps.health import DRAINING
from latchstring.foundation.clock import Clock, SystemClock

COMPLETION_SECONDS = 10
"""How long requests in progress may take after the pause."""
SETTLE_SECONDS = 0.2
NEW_CONNECTION_SECONDS = 1.0
SYSTEM_CLOCK = SystemClock()
_LOOK_SECONDS = 0.05
_log = logging.getLogger(__name__)


def nothing() -> None:
    """Do nothing: nobody wants to be told."""


class DrainingServer(uvicorn.Server):
    """uvicorn's server, but SIGTERM drains it first."""

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        drain_seconds: float,
        closes_port: bool = True,
        on_started: Callable[[], None] = nothing,
        on_stopping: Callable[[], None] = nothing,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        super().__init__(config)
        self._clock = clock
        self._drain_seconds = drain_seconds
        # False for a worker that may stop alone: others go on accepting connections on the socket that they share.
        self.closes_port = closes_port
        self._on_started = on_started
        self._on_stopping = on_stopping
        self._drains_until: float | None = None
        self._is_draining = False
        self.loop: asyncio.AbstractEventLoop | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 -- uvicorn's signature
        """Drain on SIGTERM, stop on SIGINT, and stop at once on a second SIGINT."""
        # uvicorn would raise the signal again at the end; a stop that was asked for is no failure.
        if sig == signal.SIGTERM:
            self.drain()
        elif self.should_exit:
            self.force_exit = True
        else:
            self.should_exit = True

    def drain(self) -> None:
        """Begin to drain. Asked twice, as by systemd and the parent process, it does nothing the second time."""
        if not self.started or not self._drain_seconds:
            self.should_exit = True
        elif self._drains_until is None and not self.should_exit:
            self._drains_until = self._clock.uptime() + self._drain_seconds

    def stop(self) -> None:
        """Stop without a pause; requests in progress are completed."""
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        self.loop = asyncio.get_running_loop()
        await super().startup(sockets)
        self._on_started()

    async def on_tick(self, counter: int) -> bool:
        """Look ten times a second whether to drain, and whether the pause is over."""
        # Here and not in the signal's handler, which may run in the middle of any statement.
        if self._drains_until is not None:
            if not self._is_draining:
                self._begin_to_drain()
            if self._clock.uptime() >= self._drains_until:
                self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the port, then idle connections, and complete the requests in progress."""
        if not self._is_draining:
            self._on_stopping()
        elif not self.force_exit and self._clock.uptime() >= (self._drains_until or 0):
            await self._close_port(sockets or [])
            await self._wait_for_first_requests()
        await super().shutdown(sockets)

    def _begin_to_drain(self) -> None:
        self._is_draining = True
        self._on_stopping()
        _log.info(
            "Draining for %g seconds before the port is closed.",
            self._drain_seconds,
            extra={"event": "server.draining"},
        )
        self.lifespan.state[DRAINING] = True
        for connection in self._connections():
            connection.drain()

    async def _close_port(self, sockets: Sequence[socket.socket]) -> None:
        if self.closes_port:
            for listener in sockets:
                refuse_connections(listener)
            # Handshakes that have begun are completed, and what waits in the backlog is accepted.
            await asyncio.sleep(SETTLE_SECONDS)
        for server in self.servers:
            server.close()
        for listener in sockets:
            listener.close()

    async def _wait_for_first_requests(self) -> None:
        # A proxy that has just connected is about to send a request, and does not send a POST again elsewhere.
        deadline = self._clock.uptime() + NEW_CONNECTION_SECONDS
        while self._clock.uptime() < deadline and not all(each.has_asked for each in self._connections()):
            if self.force_exit:
                return
            await asyncio.sleep(_LOOK_SECONDS)

    def _connections(self) -> list[BoundedProtocol]:
        return [each for each in self.server_state.connections if isinstance(each, BoundedProtocol)]


# Classic BPF, on a segment's TCP header: drop those with SYN but not ACK, which open a connection.
_SYN_FILTER = (
    (0x30, 0, 0, 13),  # load the byte of flags
    (0x54, 0, 0, 0x12),  # keep SYN (0x02) and ACK (0x10)
    (0x15, 0, 1, 0x02),  # SYN alone?
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 0xFFFF_FFFF),  # pass
)
_SO_ATTACH_FILTER = 26


def refuse_connections(listener: socket.socket) -> None:
    """Let the kernel accept no more connections for a listening socket, in all processes that share it.

    Closing a listening socket resets the connections in its backlog, and another may enter between the last `accept`
    and `close`: a proxy has sent its POST by then. With this filter nobody enters. A client whose first segment is
    dropped sends it again a second later, and is refused by a port that is closed by then.

    Only Linux can do that; elsewhere the window of microseconds stays open.
    """
    if sys.platform != "linux":
        return
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in _SYN_FILTER))
    described = struct.pack("HL", len(_SYN_FILTER), ctypes.addressof(program))
    # A kernel without socket filters is no reason not to stop.
    with contextlib.suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, described)
