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

    _head_timer: asyncio.TimerHandle | None = None
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect a first request."""
        super().connection_made(transport)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """Parse, and count what is not a whole head yet."""
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_timer is not None and self._head_bytes > HEAD_MAX_BYTES:
            self.transport.close()

    def on_message_begin(self) -> None:
        """Expect the rest of the request that has just begun."""
        super().on_message_begin()
        self._expect_head()

    def on_headers_complete(self) -> None:
        """Be content."""
        self._forget_head()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer with the connection."""
        self._forget_head()
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        self._forget_head()
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_SECONDS, self.transport.close)

    def _forget_head(self) -> None:
        self._head_bytes = 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
