"""Subscribers: an application's own code that hears of facts, inside their transaction or after it.

inside   in the transaction of the fact, at its end: what it writes is there with the fact, or neither is
after    once that has committed, beside the requests: nobody waits for it, and what it raises is logged
"""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from latchstring.errors import ConfigurationError, SubscriberError
from latchstring.foundation.database import Connection, is_disconnection
from latchstring.foundation.events import Fact, GivingFact

FactT = TypeVar("FactT", bound=Fact)
GivingFactT = TypeVar("GivingFactT", bound=GivingFact)
Inside = Callable[[GivingFactT, Connection], Awaitable[None]]
After = Callable[[FactT], Awaitable[None]]

END_SECONDS = 10.0

_log = logging.getLogger(__name__)


class Subscribers:
    """Tells an application's functions of facts."""

    def __init__(self) -> None:
        self._inside: list[tuple[type[GivingFact], Callable[..., Awaitable[None]]]] = []
        self._after: list[tuple[type[Fact], Callable[..., Awaitable[None]]]] = []
        self._telling: set[asyncio.Task[None]] = set()

    def inside(self, kind: type[GivingFactT]) -> Callable[[Inside[GivingFactT]], Inside[GivingFactT]]:
        """Return a decorator for a function that takes part in the transaction of each fact of this kind."""
        if not issubclass(kind, GivingFact):
            raise ConfigurationError(
                f"{kind.__name__} can't be joined from inside: what takes access away must not "
                "depend on a subscriber. Subscribe to it with `after`"
            )

        def subscribe(function: Inside[GivingFactT]) -> Inside[GivingFactT]:
            self._inside.append((kind, _checked(function)))
            return function

        return subscribe

    def after(self, kind: type[FactT]) -> Callable[[After[FactT]], After[FactT]]:
        """Return a decorator for a function that is called after the transaction of each fact of this kind."""
        if not issubclass(kind, Fact):
            raise ConfigurationError(f"{kind} is no kind of fact")

        def subscribe(function: After[FactT]) -> After[FactT]:
            self._after.append((kind, _checked(function)))
            return function

        return subscribe

    async def tell_inside(self, facts: Sequence[Fact], connection: Connection) -> None:
        """Call everyone who takes part, in the order they subscribed.

        Raises:
            SubscriberError: one of them failed: the transaction must not commit.
        """
        for fact in facts:
            for kind, function in self._inside:
                if isinstance(fact, kind):
                    try:
                        await _take_part(function, fact, connection)
                    except Exception as error:
                        # A database that is gone is no subscriber's fault; all else is, whatever it resembles.
                        if is_disconnection(error):
                            raise
                        raise SubscriberError(f"{function.__qualname__} failed inside {kind.__name__}") from error

    def tell_after(self, facts: Sequence[Fact]) -> None:
        """Call everyone else, beside what goes on, in the order they subscribed."""
        calls = [(function, fact) for fact in facts for kind, function in self._after if isinstance(fact, kind)]
        if calls:
            task = asyncio.create_task(_called(calls), name="latchstring subscribers")
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    async def settled(self) -> None:
        """Wait until everyone has heard of all that is committed."""
        while self._telling:
            await asyncio.wait(self._telling)

    async def end(self) -> None:
        """Wait so, but no longer than an application's end may take; cut off whoever is not done by then."""
        try:
            async with asyncio.timeout(END_SECONDS):
                await self.settled()
        except TimeoutError:
            _log.warning("%d subscribers were not done in %g seconds and are cut off", len(self._telling), END_SECONDS)
            for task in self._telling:
                task.cancel()


class _EndedTransactionError(Exception):
    """A subscriber committed, or rolled back, what is not its own."""


async def _take_part(function: Callable[..., Awaitable[None]], fact: Fact, connection: Connection) -> None:
    # In a savepoint, so that a statement which failed, and whose error was caught, is seen: PostgreSQL would make a
    # rollback of the commit, and say nothing.
    async with connection.begin_nested() as savepoint:
        await function(fact, connection)
        if not savepoint.is_active:
            raise _EndedTransactionError


async def _called(calls: Sequence[tuple[Callable[..., Awaitable[None]], Fact]]) -> None:
    for function, fact in calls:
        try:
            await function(fact)
        except Exception:  # noqa: BLE001 -- see below
            # What happened has happened: nobody is let in or kept out for a mail that could not be sent.
            _log.exception("%s failed after %s", function.__qualname__, fact.name)


def _checked(function: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    if not inspect.iscoroutinefunction(function):
        raise ConfigurationError(f"a subscriber is an async function, and {function!r} is none")
    return function
