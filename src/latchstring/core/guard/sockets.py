"""Connected WebSockets, which are closed when a guard would refuse their caller.

A socket can stay open for hours, so one decision at the handshake is not enough. Each socket is checked again

- in memory, whenever the revocation feed has news or becomes stale;
- in the database, when its access token has expired, then once per access token lifetime, and when the session expires.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Collection, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from starlette.types import Message, Receive, Send

from latchstring.core.caller import Caller
from latchstring.core.revocations.feed import RevocationFeed
from latchstring.core.revocations.rules import refusal_after
from latchstring.errors import Code, RevocationsUnknownError
from latchstring.foundation.clock import Clock

CLOSED_UNAUTHORIZED = 4401
"""The close code when the session has ended or the caller must refresh: private use (RFC 6455, section 7.4.2)."""
CLOSED_TRY_AGAIN = 1013
"""The close code when this process can't follow revocations: IANA's *Try Again Later*."""
# Bounds the parameters of one statement, however many sockets are connected.
_PAGE_SIZE = 500


class ConnectedSocket:
    """A connected socket and its caller.

    The route gets `receive` and `send` of this object in place of the server's.
    """

    # With the server's own `receive`, a route would continue after the close: uvicorn's older protocol passed messages
    # on for ten more seconds, and hypercorn for as long as the client sent any.

    def __init__(self, caller: Caller, receive: Receive, send: Send, *, keys_epoch: int) -> None:
        self.caller = caller
        self.keys_epoch = keys_epoch
        """The epoch that was in force when the keys that verified its token were read."""
        self.recheck_at_unix: float = caller.expires_at_unix
        """When the database is asked next whether the session is active."""
        self._receive = receive
        self._send = send
        self._next: asyncio.Future[Message] | None = None
        self._ended: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

    async def receive(self) -> Message:
        """Return the client's next message, or a disconnect once the socket has been closed."""
        # Kept if the route stops waiting, as after a timeout, so that the next call gets the client's message.
        if self._next is None:
            self._next = asyncio.ensure_future(self._receive())
        if not self._next.done():
            await asyncio.wait([self._next, self._ended], return_when=asyncio.FIRST_COMPLETED)
        if self._ended.done():
            return self._ended.result()
        message, self._next = self._next, None
        return message.result()

    async def send(self, message: Message) -> None:
        """Send a message to the client.

        Raises:
            OSError: the socket has been closed; ASGI's error for a disconnected client.
        """
        if self._ended.done():
            raise ConnectionResetError("the socket was closed: its session has ended, or its caller must refresh")
        await self._send(message)

    def forget(self) -> None:
        """Stop waiting for a message, once the route has returned."""
        if self._next is not None:
            self._next.cancel()

    async def close(self, close_code: int, code: Code) -> None:
        """Close the socket with a reason. A route that waits in `receive` gets a disconnect."""
        # The route first, and by the server's own `send` below: after Starlette's `close`, a route that sends at that
        # moment would fail with a RuntimeError instead of a disconnect.
        if not self._ended.done():
            self._ended.set_result({"type": "websocket.disconnect", "code": close_code, "reason": code.value})
        try:
            await self._send({"type": "websocket.close", "code": close_code, "reason": code.value})
        except (OSError, RuntimeError):
            # The client has just disconnected. Servers raise one or the other.
            return


class ActiveSessions(Protocol):
    """Reads from the database which sessions are active."""

    def __call__(self, session_ids: Collection[UUID], *, now: datetime) -> Awaitable[Mapping[UUID, datetime]]:
        """Return the active ones among `session_ids`, each with when it expires unless it is refreshed."""
        ...


class Sockets:
    """Watches the connected sockets of this process."""

    def __init__(
        self, active_sessions: ActiveSessions, feed: RevocationFeed, clock: Clock, *, recheck_interval: timedelta
    ) -> None:
        self._active_sessions = active_sessions
        self._feed = feed
        self._clock = clock
        self._recheck_interval = recheck_interval
        self._connected: set[ConnectedSocket] = set()
        self._closing: set[asyncio.Task[None]] = set()
        feed.listen(self.recheck_all)

    @contextlib.contextmanager
    def watching(self, caller: Caller, receive: Receive, send: Send) -> Iterator[ConnectedSocket]:
        """Watch a socket while the block runs: close it when a guard would refuse its caller."""
        socket = ConnectedSocket(caller, receive, send, keys_epoch=self._feed.keys_epoch)
        self._connected.add(socket)
        # A revocation that arrived after the guard's decision, while the user was read for example, missed this socket.
        self._judge(socket)
        try:
            yield socket
        finally:
            self._connected.discard(socket)
            socket.forget()

    def recheck_all(self) -> None:
        """Check every socket again, in memory."""
        try:
            self._feed.refuse_if_stale()
        except RevocationsUnknownError as error:
            # Fail closed: all sockets go, and clients can reconnect to a worker that follows revocations.
            for socket in list(self._connected):
                self._close(socket, CLOSED_TRY_AGAIN, error.code)
            return
        for socket in list(self._connected):
            self._judge(socket)

    def _judge(self, socket: ConnectedSocket) -> None:
        reason = self._feed.revocation_reason(socket.caller)
        if reason is not None:
            self._close(socket, CLOSED_UNAUTHORIZED, refusal_after(reason))
        elif socket.keys_epoch < self._feed.keys_epoch:
            # Keys from before an epoch have verified its token. It may be that of a user who has just signed in at
            # another worker, or of a thief with the retired key. Only the user can reconnect.
            self._close(socket, CLOSED_TRY_AGAIN, Code.REVOCATIONS_UNKNOWN)

    async def recheck(self) -> None:
        """Ask the database about sockets whose access token has expired, because sessions expire as well.

        Raises:
            UnavailableError: the database is unavailable. The next call asks again.
        """
        now = self._clock.now()
        due = [socket for socket in self._connected if socket.recheck_at_unix <= now.timestamp()]
        for start in range(0, len(due), _PAGE_SIZE):
            page = due[start : start + _PAGE_SIZE]
            active = await self._active_sessions({socket.caller.session_id for socket in page}, now=now)
            for socket in page:
                ends_at = active.get(socket.caller.session_id)
                if ends_at is not None:
                    socket.recheck_at_unix = min(now + self._recheck_interval, ends_at).timestamp()
                else:
                    self._close(socket, CLOSED_UNAUTHORIZED, Code.SESSION_ENDED)

    def _close(self, socket: ConnectedSocket, close_code: int, code: Code) -> None:
        self._connected.discard(socket)
        # As a task, since a slow client must not delay the others. Kept in a set: the loop holds weak references only.
        task = asyncio.create_task(socket.close(close_code, code), name="latchstring socket")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
