"""Subscribers: an application's functions that are called for events, inside their transaction or after it.

inside   at the end of the event's transaction: what it writes commits with the event, or neither does
after    in the background once the transaction has committed: no request waits, and exceptions are logged
"""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from latchstring.errors import ConfigurationError, SubscriberError
from latchstring.foundation.database import Connection, is_disconnection
from latchstring.foundation.events import Event, GrantingEvent
from latchstring.foundation.measurements import UNMETERED, Meter, Metric

EventT = TypeVar("EventT", bound=Event)
GrantingEventT = TypeVar("GrantingEventT", bound=GrantingEvent)
Inside = Callable[[GrantingEventT, Connection], Awaitable[None]]
After = Callable[[EventT], Awaitable[None]]

END_SECONDS = 10.0

_log = logging.getLogger(__name__)


class Subscribers:
    """Calls an application's functions for events."""

    def __init__(self, *, meter: Meter = UNMETERED) -> None:
        self._meter = meter
        self._inside: list[tuple[type[GrantingEvent], Callable[..., Awaitable[None]]]] = []
        self._after: list[tuple[type[Event], Callable[..., Awaitable[None]]]] = []
        self._notifying: set[asyncio.Task[None]] = set()

    def inside(self, kind: type[GrantingEventT]) -> Callable[[Inside[GrantingEventT]], Inside[GrantingEventT]]:
        """Return a decorator for a function to call inside the transaction of each event of type `kind`."""
        if not issubclass(kind, GrantingEvent):
            raise ConfigurationError(
                f"{kind.__name__} can't be joined from inside: what takes access away must not "
                "depend on a subscriber. Subscribe with `after` instead"
            )

        def subscribe(function: Inside[GrantingEventT]) -> Inside[GrantingEventT]:
            self._inside.append((kind, _checked(function)))
            return function

        return subscribe

    def after(self, kind: type[EventT]) -> Callable[[After[EventT]], After[EventT]]:
        """Return a decorator for a function to call after the transaction of each event of type `kind`."""
        if not issubclass(kind, Event):
            raise ConfigurationError(f"{kind} is not a type of event: subscribe to Event or one of its subclasses")

        def subscribe(function: After[EventT]) -> After[EventT]:
            self._after.append((kind, _checked(function)))
            return function

        return subscribe

    async def notify_inside(self, events: Sequence[Event], connection: Connection) -> None:
        """Call the `inside` subscribers of the events, in the order they subscribed.

        Raises:
            SubscriberError: one of them failed, and the transaction must not commit.
        """
        for event in events:
            for kind, function in self._inside:
                if isinstance(event, kind):
                    try:
                        await _take_part(function, event, connection)
                    except Exception as error:
                        # A lost database is 503, and not the subscriber's fault. Everything else is, even another error
                        # of SQLAlchemy's, and must not be reported as an outage.
                        if is_disconnection(error):
                            raise
                        raise SubscriberError(f"{function.__qualname__} failed inside {kind.__name__}") from error

    def notify_after(self, events: Sequence[Event]) -> None:
        """Call the `after` subscribers of the events in the background, in the order they subscribed."""
        for event in events:
            self._meter.count(Metric.EVENTS, event.name)
        calls = [(function, event) for event in events for kind, function in self._after if isinstance(event, kind)]
        if calls:
            task = asyncio.create_task(_called(calls), name="latchstring subscribers")
            # The loop keeps only a weak reference: a task without another one could be collected before it has run.
            self._notifying.add(task)
            task.add_done_callback(self._notifying.discard)

    async def drained(self) -> None:
        """Wait until the subscribers of all committed events are done."""
        while self._notifying:
            await asyncio.wait(self._notifying)

    async def end(self) -> None:
        """Wait until subscribers are done, for at most ten seconds; cancel those that are not."""
        try:
            async with asyncio.timeout(END_SECONDS):
                await self.drained()
        except TimeoutError:
            _log.warning(
                "%d subscribers were not done after %g seconds and are cut off", len(self._notifying), END_SECONDS
            )
            for task in self._notifying:
                task.cancel()


class _EndedTransactionError(Exception):
    """A subscriber committed or rolled back the transaction that it was called in."""


async def _take_part(function: Callable[..., Awaitable[None]], event: Event, connection: Connection) -> None:
    # In a savepoint, to notice a failed statement whose error the subscriber caught: PostgreSQL would then turn the
    # COMMIT into a rollback without an error, and a success would be reported for a change that was not made.
    async with connection.begin_nested() as savepoint:
        await function(event, connection)
        if not savepoint.is_active:
            raise _EndedTransactionError


async def _called(calls: Sequence[tuple[Callable[..., Awaitable[None]], Event]]) -> None:
    for function, event in calls:
        try:
            await function(event)
        except Exception:  # noqa: BLE001 -- see below
            # The event is committed: a mail that could not be sent must neither grant nor deny access.
            _log.exception("%s failed after %s", function.__qualname__, event.name)


def _checked(function: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    if not inspect.iscoroutinefunction(function):
        raise ConfigurationError(f"a subscriber must be an async function, and {function!r} is not")
    return function
