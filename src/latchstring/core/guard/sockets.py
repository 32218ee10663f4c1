"""Open WebSockets: each is told and closed when what let its caller in no longer holds.

A request is judged once, and over in a moment. A socket stays open for hours, so that it is judged again whenever the
revocation feed learns something, and once its token would have expired: then, once for each access token's life after
that, and when the session would end by itself, the database is asked whether it lives.
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
"""The close code of a socket whose session has ended, or whose caller must refresh: of RFC 6455's private ones."""
CLOSED_TRY_AGAIN = 1013
"""The close code where this process can't know for now: IANA's *Try Again Later*."""
_PAGE_SIZE = 500


class ConnectedSocket:
    """One open socket, and who is at its other end.

    A route has it with our `receive` and `send` in place of the server's, so that it hears of the end at once: a server
    may wait for the client's word to it, or take messages until then.
    """

    def __init__(self, caller: Caller, receive: Receive, send: Send, *, keys_epoch: int) -> None:
        self.caller = caller
        self.keys_epoch = keys_epoch
        """As of which epoch the keys were read that its token was verified with."""
        self.holds_until_unix: float = caller.expires_at_unix
        self._receive = receive
        self._send = send
        self._next: asyncio.Future[Message] | None = None
        self._ended: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

    async def receive(self) -> Message:
        """Return the client's next message, or that the socket has ended."""
        # It is kept where the route stops waiting for it, as under a timeout: the next call gets it.
        if self._next is None:
            self._next = asyncio.ensure_future(self._receive())
        if not self._next.done():
            await asyncio.wait([self._next, self._ended], return_when=asyncio.FIRST_COMPLETED)
        if self._ended.done():
            return self._ended.result()
        message, self._next = self._next, None
        return message.result()

    async def send(self, message: Message) -> None:
        """Send, while the socket is open.

        Raises:
            OSError: it has ended; ASGI's word for a client that is gone.
        """
        if self._ended.done():
            raise ConnectionResetError("the socket was closed, because its caller would be let in no longer")
        await self._send(message)

    def forget(self) -> None:
        """Wait for no message any more: the route is over."""
        if self._next is not None:
            self._next.cancel()

    async def close(self, close_code: int, code: Code) -> None:
        """Tell why, and close; whoever waits at this end hears that the other one is gone."""
        if not self._ended.done():
            self._ended.set_result({"type": "websocket.disconnect", "code": close_code, "reason": code.value})
        try:
            await self._send({"type": "websocket.close", "code": close_code, "reason": code.value})
        except (OSError, RuntimeError):
            # It has just closed by itself: servers say so in one of the two ways.
            return


class ActiveSessions(Protocol):
    """Asks the database which sessions live."""

    def __call__(self, session_ids: Collection[UUID], *, now: datetime) -> Awaitable[Mapping[UUID, datetime]]:
        """Return the living ones among `session_ids`, each with when it ends unless it is refreshed."""
        ...


class Sockets:
    """Those that are open in this process."""

    def __init__(
        self, active_sessions: ActiveSessions, feed: RevocationFeed, clock: Clock, *, asked_every: timedelta
    ) -> None:
        self._active_sessions = active_sessions
        self._feed = feed
        self._clock = clock
        self._asked_every = asked_every
        self._connected: set[ConnectedSocket] = set()
        self._closing: set[asyncio.Task[None]] = set()
        feed.listen(self.recheck_all)

    @contextlib.contextmanager
    def watching(self, caller: Caller, receive: Receive, send: Send) -> Iterator[ConnectedSocket]:
        """Close a socket, by its server's `send`, if its caller would be let in no longer while the block runs."""
        socket = ConnectedSocket(caller, receive, send, keys_epoch=self._feed.keys_epoch)
        self._connected.add(socket)
        # What was learnt since the caller was judged, such as while their user was read, has looked past this one.
        self._judge(socket)
        try:
            yield socket
        finally:
            self._connected.discard(socket)
            socket.forget()

    def recheck_all(self) -> None:
        """Judge each of them again, by what this process knows."""
        try:
            self._feed.refuse_if_stale()
        except RevocationsUnknownError as error:
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
            # Its token says that it is of an epoch which had not begun here: of somebody who signed in elsewhere a
            # moment ago, or of a thief who made it with the key that was retired. Let in anew, only the first is.
            self._close(socket, CLOSED_TRY_AGAIN, Code.REVOCATIONS_UNKNOWN)

    async def recheck(self) -> None:
        """Ask the database about those whose token would have expired by now: a session may end by itself.

        Raises:
            UnavailableError: the database is away; the next time will do.
        """
        now = self._clock.now()
        due = [socket for socket in self._connected if socket.holds_until_unix <= now.timestamp()]
        for start in range(0, len(due), _PAGE_SIZE):
            page = due[start : start + _PAGE_SIZE]
            living = await self._active_sessions({socket.caller.session_id for socket in page}, now=now)
            for socket in page:
                ends_at = living.get(socket.caller.session_id)
                if ends_at is not None:
                    socket.holds_until_unix = min(now + self._asked_every, ends_at).timestamp()
                else:
                    self._close(socket, CLOSED_UNAUTHORIZED, Code.SESSION_ENDED)

    def _close(self, socket: ConnectedSocket, close_code: int, code: Code) -> None:
        self._connected.discard(socket)
        task = asyncio.create_task(socket.close(close_code, code), name="latchstring socket")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
