"""Background work: started by the application's lifespan, or by the first request that needs it.

The lifespan of a mounted application never runs, and a test client may skip it, or give each request an event loop of
its own. Work that was started in a loop which is closed is started again in the next one.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

Begin = Callable[[AsyncExitStack], Awaitable[None]]
"""Starts the work, and pushes onto the stack how to stop each part of it."""


class Background:
    """Starts background work once for each event loop, and stops it."""

    def __init__(self, begin: Begin) -> None:
        # A stack, and not one generator around all parts: a loop that closes ends all generators at once, and nested
        # ones could not end.
        self._begin_on = begin
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stack = AsyncExitStack()
        self._beginning: asyncio.Task[None] | None = None

    @property
    def is_begun(self) -> bool:
        """Whether the work runs in the current event loop."""
        return self._loop is not None and self._loop is asyncio.get_running_loop()

    async def begin(self) -> bool:
        """Start the work unless it runs; return whether this call started it.

        Concurrent callers wait for the same start and get the same outcome: if the database hangs, a hundred requests
        wait for it once, and not one after the other.

        Raises:
            UnavailableError: the work can't start now; the next call tries again.
        """
        if self.is_begun:
            return False
        under_way = self._under_way()
        task = under_way or asyncio.create_task(self._begin(), name="latchstring begins")
        # All callers may have disconnected meanwhile: asyncio would log their failure as "never retrieved".
        task.add_done_callback(_retrieve_exception)
        self._beginning = task
        await asyncio.shield(task)
        return under_way is None

    async def end(self) -> None:
        """Stop the work if it runs in the current event loop."""
        under_way = self._under_way()
        if under_way is not None:
            await asyncio.wait([under_way])
        if self.is_begun:
            self._loop = None
            await self._stack.aclose()

    def _under_way(self) -> asyncio.Task[None] | None:
        # A task of a closed loop will never finish.
        task = self._beginning
        if task is None or task.done() or task.get_loop() is not asyncio.get_running_loop():
            return None
        return task

    async def _begin(self) -> None:
        async with AsyncExitStack() as stack:
            await self._begin_on(stack)
            self._loop, self._stack = asyncio.get_running_loop(), stack.pop_all()


def _retrieve_exception(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()
