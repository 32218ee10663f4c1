"""Limits on the head of a request, which uvicorn does not have.

A client that sends its headers a byte at a time, or without end, would hold a connection or fill the memory for as long
as it likes (slowloris). Bodies have their own limits, in `foundation.web.body`.
"""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_TIMEOUT_SECONDS = 10.0
HEAD_MAX_BYTES = 64 * 1024


class LimitedHeadProtocol(HttpToolsProtocol):
    """uvicorn's own protocol, closing connections whose request does not arrive in time and in size."""

    _awaiting_head = True
    _head_bytes = 0
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn does
        """Expect a first request."""
        super().connection_made(transport)
        self._start_timer()

    def data_received(self, data: bytes) -> None:
        """Parse; where a request has begun and its head is not whole yet, limit what is to come."""
        self._head_bytes += len(data)
        super().data_received(data)
        if self._awaiting_head:
            self._start_timer()
            if self._head_bytes > HEAD_MAX_BYTES:
                self.transport.close()

    def on_message_begin(self) -> None:
        """Await the head of the request that begins."""
        super().on_message_begin()
        self._awaiting_head = True

    def on_headers_complete(self) -> None:
        """Be content."""
        self._awaiting_head = False
        self._head_bytes = 0
        self._stop_timer()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer with the connection."""
        self._stop_timer()
        super().connection_lost(exc)

    def _start_timer(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT_SECONDS, self.transport.close)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
