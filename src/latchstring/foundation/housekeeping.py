"""Housekeeping: deletes old rows in small batches, once a minute.

Every worker tries once a minute, and one at a time does the work. Each batch is a short transaction of its own, so that
no sign-in waits for a cleanup, however many rows there are.
"""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Protocol

from latchstring.errors import UnavailableError
from latchstring.foundation.clock import Clock, happens
from latchstring.foundation.database import Connection, Database, lock_if_free

INTERVAL_SECONDS = 60.0
BATCH_SIZE = 500
_PAUSE_SECONDS = 0.05
_PURPOSE = "latchstring_housekeeping"

_log = logging.getLogger(__name__)


class Cleanup(Protocol):
    """A function that deletes old rows of one kind."""

    async def __call__(self, connection: Connection, *, now: datetime, most: int) -> int:
        """Delete at most `most` old rows; return how many."""
        ...


PeriodicTask = Callable[[], Awaitable[object]]
"""Other work to do once a minute in every worker."""


class Housekeeping:
    """Runs the cleanups and the periodic tasks."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        cleanups: Sequence[Cleanup],
        *,
        periodic_tasks: Sequence[PeriodicTask] = (),
    ) -> None:
        self._database = database
        self._clock = clock
        self._cleanups = cleanups
        self._periodic_tasks = periodic_tasks

    async def clean_up(self, *, ending: asyncio.Event | None = None) -> int:
        """Run every cleanup until nothing is left to delete or another worker runs them; return the number of rows.

        Args:
            ending: when set, no further batch is begun.

        Raises:
            UnavailableError: the database is unavailable; the next run will do the work.
        """
        cleared = 0
        for cleanup in self._cleanups:
            while ending is None or not ending.is_set():
                async with self._database.transaction() as connection:
                    if not await lock_if_free(connection, _PURPOSE):
                        return cleared
                    deleted = await cleanup(connection, now=self._clock.now(), most=BATCH_SIZE)
                cleared += deleted
                if deleted < BATCH_SIZE:
                    break
                # SQLite has one writer: sign-ins get their turn between two batches.
                await asyncio.sleep(_PAUSE_SECONDS)
        return cleared

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the cleanups and periodic tasks once a minute while the block runs."""
        ending = asyncio.Event()
        task = asyncio.create_task(self._go_on(ending), name="latchstring housekeeping")
        try:
            yield
        finally:
            # A batch that is under way may finish. `wait` and not `await task`: a loop that is shutting down has
            # cancelled it, which must not raise here.
            ending.set()
            await asyncio.wait([task])

    async def _go_on(self, ending: asyncio.Event) -> None:
        # A random first pause, so that workers that started together do not all try at the same moment.
        wait = INTERVAL_SECONDS * (0.5 + secrets.randbelow(1000) / 1000)
        while not await happens(ending, within_seconds=wait):
            wait = INTERVAL_SECONDS
            works: list[PeriodicTask] = [*self._periodic_tasks, partial(self.clean_up, ending=ending)]
            for work in works:
                try:
                    await work()
                except UnavailableError:
                    _log.info("housekeeping waits: the database is away")
                except Exception:  # noqa: BLE001 -- see below
                    # No request depends on it; old rows stay a while longer.
                    _log.exception("housekeeping failed")
