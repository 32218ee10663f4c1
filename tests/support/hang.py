"""How long a test waits for what must happen by itself.

A hang is found by these bounds, and not a slow machine: what takes milliseconds has a minute. How soon something
happens is measured by `drills/` and `benchmarks/`.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator

import pytest

from latchstring.core.revocations import feed
from latchstring.foundation.database import engine, postgresql, pragmas

HANG_SECONDS = 60

OUTAGES = {
    (engine, "TIMEOUT_SECONDS"): HANG_SECONDS,
    (postgresql, "TIMEOUT_SECONDS"): HANG_SECONDS,
    (engine, "SQLITE_LOCK_SECONDS"): HANG_SECONDS / 2,
    (pragmas, "SQLITE_LOCK_SECONDS"): HANG_SECONDS / 2,
    (feed, "POLL_TIMEOUT_SECONDS"): HANG_SECONDS / 2,
}
"""After a few seconds the product calls a database away. A busy machine may need them for itself, and is no outage."""


@contextlib.contextmanager
def patience() -> Iterator[None]:
    """Lets a database in this process take as long as a hang."""
    with pytest.MonkeyPatch.context() as patch:
        for (module, name), seconds in OUTAGES.items():
            patch.setattr(module, name, seconds)
        yield


async def until(happened: Callable[[], object]) -> None:
    """Waits for what tells nobody that it has happened.

    Raises:
        TimeoutError: it hangs.
    """
    async with asyncio.timeout(HANG_SECONDS):
        while not happened():  # noqa: ASYNC110 -- see above
            await asyncio.sleep(0.005)


def sleep_until(happened: Callable[[], object]) -> None:
    """Waits likewise, where there is no event loop.

    Raises:
        TimeoutError: it hangs.
    """
    deadline = time.monotonic() + HANG_SECONDS
    while not happened():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.01)
