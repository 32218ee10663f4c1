"""Housekeeping: what is old is deleted, a few rows at a time, by whichever worker gets to it.

Every worker looks once a minute, and one at a time works. A batch is a short transaction of its own, so that no sign-in
waits for a clean-up, however much there is to clear away.
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
    """Something that has to be deleted now and then."""

    async def __call__(self, connection: Connection, *, now: datetime, most: int) -> int:
        """Delete `most` rows whose time has come, or fewer; return how many."""
        ...


PeriodicTask = Callable[[], Awaitable[object]]
"""Something else to look after once a minute, in every worker."""


class Housekeeping:
    """Does the cleanups, and the periodic_tasks."""

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
        """Do every cleanup until nothing is left to do, or another worker is at it; return how many rows went.

        Args:
            ending: when set, no further batch is begun.

        Raises:
            UnavailableError: the database was away; the next time will do.
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
                await asyncio.sleep(_PAUSE_SECONDS)
        return cleared

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Clear away once a minute as long as the block runs."""
        ending = asyncio.Event()
        task = asyncio.create_task(self._go_on(ending), name="latchstring housekeeping")
        try:
            yield
        finally:
            # A batch that is under way may finish. Not for its result: a loop that goes has cancelled it by now.
            ending.set()
            await asyncio.wait([task])

    async def _go_on(self, ending: asyncio.Event) -> None:
        # Workers that started together need not look together.
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
                    # Nobody is refused for it; what is old stays a while longer.
                    _log.exception("housekeeping can't be done")
