"""A lock that can be used in one event loop after another.

An `asyncio.Lock` is bound to the loop in which a task first waits for it. An application that is started again, as each
of its tests does, has another loop.
"""

import asyncio
from types import TracebackType
from weakref import WeakKeyDictionary


class LoopLock:
    """One lock for each event loop. Tasks of one loop exclude each other; tasks of different loops do not."""

    def __init__(self) -> None:
        self._locks: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()

    async def acquire(self) -> None:
        """Wait for the lock of this loop, and take it."""
        await self._locks.setdefault(asyncio.get_running_loop(), asyncio.Lock()).acquire()

    def release(self) -> None:
        """Release the lock of this loop."""
        self._locks[asyncio.get_running_loop()].release()

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()
