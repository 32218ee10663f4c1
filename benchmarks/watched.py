"""The ready server, and a task on its event loop that sees how long the loop is held.

`GET /held` answers the longest time since it was last asked, in milliseconds:

    late_ms   by how much the task woke too late
    held_ms   the same, without what the kernel gave to others while this thread was ready to run: the server can't
              be blamed for its neighbours
    busy_ms   the processor time this thread used in that very interval; the rest it waited, for the GIL most likely

uvicorn --factory benchmarks.watched:create_app
"""

import asyncio
import os
import time
from collections.abc import Callable

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from latchstring.apps.server import create_app as create_server

INTERVAL_SECONDS = 0.001
_SCHEDULE = "/proc/thread-self/schedstat"  # Linux: time on the CPU, time ready but waiting for one, in ns


class Watched:
    """An application beside a task that watches its loop."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._late = self._held = self._busy = 0.0
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer `/held`; pass on everything else."""
        if scope["type"] != "http" or scope["path"] != "/held":
            await self._app(scope, receive, send)
            return
        if self._task is None:
            self._task = asyncio.create_task(self._watch())
        seen = {"late_ms": self._late * 1000, "held_ms": self._held * 1000, "busy_ms": self._busy * 1000}
        self._late = self._held = self._busy = 0.0
        await JSONResponse(seen)(scope, receive, send)

    async def _watch(self) -> None:
        waited = _wait_for_a_core_meter()
        while True:
            began, waited_before, busy_before = time.perf_counter(), waited(), time.thread_time()
            await asyncio.sleep(INTERVAL_SECONDS)
            late = time.perf_counter() - began - INTERVAL_SECONDS
            self._late = max(self._late, late)
            if late > self._held:
                held = late - (waited() - waited_before)
                if held > self._held:
                    self._held, self._busy = held, time.thread_time() - busy_before


def create_app() -> ASGIApp:
    """Return the application that the environment describes, watched."""
    return Watched(create_server())


def _wait_for_a_core_meter() -> Callable[[], float]:
    """Return what tells the seconds this thread has been ready to run while others ran; always 0 where unknown."""
    try:
        schedule = os.open(_SCHEDULE, os.O_RDONLY)  # follows the thread that opened it
    except OSError:
        return lambda: 0.0
    return lambda: int(os.pread(schedule, 100, 0).split()[1]) / 1e9
