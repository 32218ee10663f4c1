"""Bounds on what one connection may hold, which uvicorn does not have.

    head      10 s from its first byte, 64 KiB (Slowloris)
    idle      the keep-alive time after a response, whatever bytes arrive that are no complete head
    body      if a response starts before the whole body is there, it says `Connection: close`; the rest is discarded,
              for the keep-alive time at most
    response  30 s for a client that has stopped reading

What a route reads of a body has bounds of its own, in `foundation.web.body`. While the server drains (`apps.shutdown`),
every response says `Connection: close`.
"""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from latchstring.apps.health import DRAINING

HEAD_TIMEOUT_SECONDS = 10.0
HEAD_MAX_BYTES = 64 * 1024
# Routes refuse more than 64 KiB. What counts against this bound is mostly what no route gets to see: extensions of
# chunks, and trailers, which uvicorn would collect without end.
BODY_MAX_BYTES = 1024 * 1024
SEND_TIMEOUT_SECONDS = 30.0


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with bounds on head, idle time, unread body and unread response."""

    _head_bytes = 0
    _head_timer: asyncio.TimerHandle | None = None
    _unread: RequestResponseCycle | None = None
    """The request whose body has not arrived completely."""
    _unread_bytes = 0
    _unread_keep_alive = False
    """Whether that request leaves the connection open, once its body is complete."""
    _discards = False
    """Whether what arrives is no longer looked at."""
    _abort_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn does
        """Start the timer for the first request."""
        super().connection_made(transport)
        self._start_head_timer()

    def data_received(self, data: bytes) -> None:
        """Parse the data, and apply the bounds to whatever is incomplete."""
        if self._discards:
            return
        # uvicorn stops its keep-alive timer at any byte, so that one stray byte held a connection for ever. Here only a
        # complete head stops it.
        idle_timer, self.timeout_keep_alive_task = self.timeout_keep_alive_task, None
        earlier = self.cycle
        super().data_received(data)
        cycle = self.cycle
        if cycle is earlier:
            self.timeout_keep_alive_task = idle_timer
        else:
            self._on_head(cycle, idle_timer)
        if self._unread is not None and not self._unread.more_body:
            self._on_whole_body(self._unread)
        if self._awaits_head():
            self._bound_head(len(data))
        elif cycle.more_body:
            self._bound_body(cycle, len(data))

    def on_response_complete(self) -> None:
        """Continue as uvicorn does; a client that does not read the last response is cut off after a while."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._abort_later()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection. A head that has begun has a timer of its own."""
        if not self._awaits_head():
            self._close()

    def pause_writing(self) -> None:
        """Start the timer for a client that does not read."""
        super().pause_writing()
        self._abort_later()

    def resume_writing(self) -> None:
        """Stop that timer."""
        super().resume_writing()
        # Not once it is closing: a byte read now and then would keep it.
        if self._abort_timer is not None and not self.transport.is_closing():
            self._abort_timer.cancel()
            self._abort_timer = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all timers with the connection."""
        # A timer that still runs would keep the protocol, and all it refers to, in memory.
        for timer in (self._head_timer, self._abort_timer, self.timeout_keep_alive_task):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    @property
    def has_asked(self) -> bool:
        """Whether the head of a request has arrived."""
        return self.cycle is not None

    def drain(self) -> None:
        """Let the response to the request in progress, if it has not started, say `Connection: close`."""
        if self.has_asked and not self.cycle.response_started:
            self.cycle.keep_alive = False

    def linger(self) -> None:
        """End our side now; discard what the client sends, for the keep-alive time at most, and then close.

        Closed at once, the connection would be reset by the rest of the body, and the client lose the response that
        tells it why (RFC 9112, section 9.6).
        """
        if self.transport.is_closing():
            return
        self._discards = True
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        # Where the response is complete, uvicorn replaces this timer by its own, of the same time.
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self._close)

    def _on_head(self, cycle: RequestResponseCycle, idle_timer: asyncio.TimerHandle | None) -> None:
        if idle_timer is not None:
            idle_timer.cancel()
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        self._head_bytes = 0
        if DRAINING in self.app_state:
            cycle.keep_alive = False
        if self.parser.should_upgrade() and _has_body(cycle):
            # The parser skips this body: its bytes would be the next request, smuggled past a proxy.
            self._discards = True
            cycle.keep_alive = False
            cycle.transport = _LingeringTransport(self)

    def _awaits_head(self) -> bool:
        # uvicorn begins a scope with the first byte of a head, and a cycle with the last one.
        return not self.has_asked or self.scope is not self.cycle.scope

    def _bound_body(self, cycle: RequestResponseCycle, size: int) -> None:
        if self._unread is None:
            # Before the application gets to run: a response that starts now must say that the connection ends. The
            # bytes that follow could not be told from a next request's otherwise, or be waited for without end.
            self._unread, self._unread_keep_alive, self._unread_bytes = cycle, cycle.keep_alive, 0
            cycle.keep_alive = False
            cycle.transport = _LingeringTransport(self)
        self._unread_bytes += size
        if self._unread_bytes > BODY_MAX_BYTES:
            self._close()

    def _on_whole_body(self, cycle: RequestResponseCycle) -> None:
        self._unread = None
        cycle.transport = self.transport
        if not cycle.response_started:
            cycle.keep_alive = self._unread_keep_alive and DRAINING not in self.app_state

    def _bound_head(self, size: int) -> None:
        if self._head_timer is None:
            # Its first piece is not counted: the end of a body may be in it, too.
            self._start_head_timer()
            return
        self._head_bytes += size
        if self._head_bytes > HEAD_MAX_BYTES:
            self._close()

    def _start_head_timer(self) -> None:
        # One timer from the first byte on: restarted by every byte, it would never fire for a slow client.
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT_SECONDS, self._close)

    def _close(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()
            self._abort_later()

    def _abort_later(self) -> None:
        # A closing transport waits until everything is sent, for ever if the client reads nothing.
        if self._abort_timer is None:
            self._abort_timer = self.loop.call_later(SEND_TIMEOUT_SECONDS, self.transport.abort)


def _has_body(cycle: RequestResponseCycle) -> bool:
    return any(name in {b"content-length", b"transfer-encoding"} for name, _ in cycle.scope["headers"])


class _LingeringTransport(asyncio.Transport):
    """What uvicorn writes a response to while the request's body is incomplete: `close` lingers."""

    def __init__(self, protocol: BoundedProtocol) -> None:
        super().__init__()
        self._connection = protocol

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._connection.transport.write(data)

    def is_closing(self) -> bool:
        return self._connection.transport.is_closing()

    def close(self) -> None:
        self._connection.linger()
