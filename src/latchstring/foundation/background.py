"""What goes on beside the requests: begun by the application's lifespan, or by the first request that needs it.

The lifespan of a mounted application never runs, and a test client may leave it out, or give each request an event loop
of its own. What was begun in a loop that is gone is begun anew in the next one.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

Begin = Callable[[AsyncExitStack], Awaitable[None]]
"""Begins something, and says on a stack how each part of it ends."""


class Background:
    """Begins something once, and ends it."""

    def __init__(self, enter: Begin) -> None:
        """Have `enter` begin it, and say on a stack how each part of it ends.

        Each part by itself: a loop that goes ends all generators at once, and one within another could not.
        """
        self._enter = enter
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stack = AsyncExitStack()
        self._beginning: asyncio.Task[None] | None = None

    @property
    def is_begun(self) -> bool:
        """Whether it goes on in the event loop that asks."""
        return self._loop is not None and self._loop is asyncio.get_running_loop()

    async def begin(self) -> bool:
        """Begin, unless that is done; tell whether it was this call that did.

        Whoever asks while it begins waits for that, and hears the same: where the database hangs, a hundred requests
        wait for it once, and not one after the other.

        Raises:
            UnavailableError: it can't begin now; the next call tries again.
        """
        if self.is_begun:
            return False
        under_way = self._under_way()
        task = under_way or asyncio.create_task(self._begin(), name="latchstring begins")
        # Whoever asked may have hung up meanwhile: a failure that nobody hears of is no news for the log.
        task.add_done_callback(_heard)
        self._beginning = task
        await asyncio.shield(task)
        return under_way is None

    async def end(self) -> None:
        """End it, where it goes on in this loop."""
        under_way = self._under_way()
        if under_way is not None:
            await asyncio.wait([under_way])
        if self.is_begun:
            self._loop = None
            await self._stack.aclose()

    def _under_way(self) -> asyncio.Task[None] | None:
        # One of a loop that is gone will never be done.
        task = self._beginning
        is_here = task is not None and task.get_loop() is asyncio.get_running_loop()
        return task if task is not None and is_here and not task.done() else None

    async def _begin(self) -> None:
        async with AsyncExitStack() as stack:
            await self._enter(stack)
            self._loop, self._stack = asyncio.get_running_loop(), stack.pop_all()


def _heard(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()
