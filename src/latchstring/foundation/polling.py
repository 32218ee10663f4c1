"""Call a function at an interval while a block runs, whether or not a call fails."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

from latchstring.foundation.clock import happens


@contextlib.asynccontextmanager
async def polling(
    poll: Callable[[], Awaitable[None]],
    *,
    what: str,
    every_seconds: float,
    expected: type[Exception],
    log: logging.Logger,
) -> AsyncIterator[None]:
    """Call `poll` while the block runs. The first call has been tried when the block begins.

    Args:
        poll: the function to call; it records itself when it last succeeded.
        what: what is polled, in the plural, for the log. Logged are the first of several failures, and their end.
        every_seconds: the pause between two calls.
        expected: the exception of an outage, logged without a traceback. Any other is logged with its traceback.
        log: the logger to use.
    """

    async def succeeds(*, quiet: bool) -> bool:
        try:
            await poll()
        except expected as error:
            if not quiet:
                log.warning("%s can't be followed: %s", what, error)
            return False
        except Exception:
            if not quiet:
                log.exception("%s can't be followed", what)
            return False
        return True

    async def go_on(*, failing: bool) -> None:
        while not await happens(ending, within_seconds=every_seconds):
            succeeded = await succeeds(quiet=failing)
            if failing and succeeded:
                log.info("%s are followed again", what)
            failing = not succeeded

    failing = not await succeeds(quiet=False)
    ending = asyncio.Event()
    task = asyncio.create_task(go_on(failing=failing), name=f"latchstring {what}")
    try:
        yield
    finally:
        # A poll that is under way may finish: cancelled while it connects, it would leak a half-open connection.
        ending.set()
        # `wait` and not `await task`: a loop that is shutting down has cancelled it, which must not raise here.
        await asyncio.wait([task])
