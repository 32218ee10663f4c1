"""Limits on the head of a request, which uvicorn does not have.

A client that sends its headers one byte at a time, or without end, would hold a connection or fill the memory as long
as it likes (Slowloris). Bodies have limits of their own, in `foundation.web.body`.
"""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_TIMEOUT_SECONDS = 10.0
HEAD_MAX_BYTES = 64 * 1024


class LimitedHeadProtocol(HttpToolsProtocol):
    """uvicorn's protocol, but connections are closed if a head takes too long or is too large."""

    _awaiting_head = True
    _head_bytes = 0
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn does
        """Start the timer for the first request."""
        super().connection_made(transport)
        self._start_timer()

    def data_received(self, data: bytes) -> None:
        """Parse the data, and apply the limits while the head of a request is incomplete."""
        # Counted before parsing: `on_headers_complete`, called from there, resets the count.
        self._head_bytes += len(data)
        super().data_received(data)
        if self._awaiting_head:
            self._start_timer()
            if self._head_bytes > HEAD_MAX_BYTES:
                self.transport.close()

    def on_message_begin(self) -> None:
        """Expect the head of a request."""
        super().on_message_begin()
        self._awaiting_head = True

    def on_headers_complete(self) -> None:
        """Stop the timer: the head is complete."""
        self._awaiting_head = False
        self._head_bytes = 0
        self._stop_timer()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer with the connection."""
        # A timer that still runs would keep the protocol, and all it refers to, in memory.
        self._stop_timer()
        super().connection_lost(exc)

    def _start_timer(self) -> None:
        # One timer from the first byte on: restarted by every byte, it would never fire for a slow client.
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT_SECONDS, self.transport.close)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
