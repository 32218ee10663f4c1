"""Something looked at again and again, as long as a block runs, whatever becomes of one look."""

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
    """Call `poll` as long as the block runs. The first has been tried when it begins.

    Args:
        poll: what to call; it keeps itself how recent its last success is.
        what: what is followed, for the log, in the plural. Of several failures the first is told, and their end.
        every_seconds: the pause between two.
        expected: what it raises where there is nothing to see for now. Anything else is logged with its traceback.
        log: where the words go.
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
        # A look that is under way may finish: cut off while it connects, it would leave half a connection behind.
        ending.set()
        # Not for its result: a loop that goes has cancelled it by now.
        await asyncio.wait([task])
