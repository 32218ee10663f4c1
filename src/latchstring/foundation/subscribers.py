"""Subscribers: an application's own code that hears of events, inside their transaction or after it.

inside   in the transaction of the event, at its end: what it writes is there with the event, or neither is
after    once that has committed, beside the requests: nobody waits for it, and what it raises is logged
"""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from latchstring.errors import ConfigurationError, SubscriberError
from latchstring.foundation.database import Connection, is_disconnection
from latchstring.foundation.events import Event, GrantingEvent

EventT = TypeVar("EventT", bound=Event)
GrantingEventT = TypeVar("GrantingEventT", bound=GrantingEvent)
Inside = Callable[[GrantingEventT, Connection], Awaitable[None]]
After = Callable[[EventT], Awaitable[None]]

END_SECONDS = 10.0

_log = logging.getLogger(__name__)


class Subscribers:
    """Tells an application's functions of events."""

    def __init__(self) -> None:
        self._inside: list[tuple[type[GrantingEvent], Callable[..., Awaitable[None]]]] = []
        self._after: list[tuple[type[Event], Callable[..., Awaitable[None]]]] = []
        self._notifying: set[asyncio.Task[None]] = set()

    def inside(self, kind: type[GrantingEventT]) -> Callable[[Inside[GrantingEventT]], Inside[GrantingEventT]]:
        """Return a decorator for a function that takes part in the transaction of each event of this kind."""
        if not issubclass(kind, GrantingEvent):
            raise ConfigurationError(
                f"{kind.__name__} can't be joined from inside: what takes access away must not "
                "depend on a subscriber. Subscribe to it with `after`"
            )

        def subscribe(function: Inside[GrantingEventT]) -> Inside[GrantingEventT]:
            self._inside.append((kind, _checked(function)))
            return function

        return subscribe

    def after(self, kind: type[EventT]) -> Callable[[After[EventT]], After[EventT]]:
        """Return a decorator for a function that is called after the transaction of each event of this kind."""
        if not issubclass(kind, Event):
            raise ConfigurationError(f"{kind} is no kind of fact")

        def subscribe(function: After[EventT]) -> After[EventT]:
            self._after.append((kind, _checked(function)))
            return function

        return subscribe

    async def notify_inside(self, events: Sequence[Event], connection: Connection) -> None:
        """Call everyone who takes part, in the order they subscribed.

        Raises:
            SubscriberError: one of them failed: the transaction must not commit.
        """
        for event in events:
            for kind, function in self._inside:
                if isinstance(event, kind):
                    try:
                        await _take_part(function, event, connection)
                    except Exception as error:
                        # A database that is gone is no subscriber's fault; all else is, whatever it resembles.
                        if is_disconnection(error):
                            raise
                        raise SubscriberError(f"{function.__qualname__} failed inside {kind.__name__}") from error

    def notify_after(self, events: Sequence[Event]) -> None:
        """Call everyone else, beside what goes on, in the order they subscribed."""
        calls = [(function, event) for event in events for kind, function in self._after if isinstance(event, kind)]
        if calls:
            task = asyncio.create_task(_called(calls), name="latchstring subscribers")
            self._notifying.add(task)
            task.add_done_callback(self._notifying.discard)

    async def drained(self) -> None:
        """Wait until everyone has heard of all that is committed."""
        while self._notifying:
            await asyncio.wait(self._notifying)

    async def end(self) -> None:
        """Wait so, but no longer than an application's end may take; cut off whoever is not done by then."""
        try:
            async with asyncio.timeout(END_SECONDS):
                await self.drained()
        except TimeoutError:
            _log.warning(
                "%d subscribers were not done in %g seconds and are cut off", len(self._notifying), END_SECONDS
            )
            for task in self._notifying:
                task.cancel()


class _EndedTransactionError(Exception):
    """A subscriber committed, or rolled back, what is not its own."""


async def _take_part(function: Callable[..., Awaitable[None]], event: Event, connection: Connection) -> None:
    # In a savepoint, so that a statement which failed, and whose error was caught, is seen: PostgreSQL would make a
    # rollback of the commit, and say nothing.
    async with connection.begin_nested() as savepoint:
        await function(event, connection)
        if not savepoint.is_active:
            raise _EndedTransactionError


async def _called(calls: Sequence[tuple[Callable[..., Awaitable[None]], Event]]) -> None:
    for function, event in calls:
        try:
            await function(event)
        except Exception:  # noqa: BLE001 -- see below
            # What happened has happened: nobody is let in or kept out for a mail that could not be sent.
            _log.exception("%s failed after %s", function.__qualname__, event.name)


def _checked(function: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    if not inspect.iscoroutinefunction(function):
        raise ConfigurationError(f"a subscriber is an async function, and {function!r} is none")
    return function
