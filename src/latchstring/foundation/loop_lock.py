"""A lock that outlives an event loop.

asyncio's own belongs to the loop in which somebody first waited for it. An application that is started again, as each
of its tests does, has another loop.
"""

import asyncio
from types import TracebackType
from weakref import WeakKeyDictionary


class LoopLock:
    """One lock for each event loop: what is done in one waits for what is done in it, and for nothing else."""

    def __init__(self) -> None:
        self._locks: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()

    async def acquire(self) -> None:
        """Wait for it, and take it."""
        await self._locks.setdefault(asyncio.get_running_loop(), asyncio.Lock()).acquire()

    def release(self) -> None:
        """Give it back."""
        self._locks[asyncio.get_running_loop()].release()

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()
