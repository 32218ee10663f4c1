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
    attempts = _Attempts(poll, what=what, expected=expected, log=log)
    await attempts.next()
    ending = asyncio.Event()

    async def go_on() -> None:
        while not await happens(ending, within_seconds=every_seconds):
            await attempts.next()

    task = asyncio.create_task(go_on(), name=f"latchstring {what}")
    try:
        yield
    finally:
        # A poll that is under way may finish: cancelled while it connects, it would leak a half-open connection.
        ending.set()
        # `wait` and not `await task`: a loop that is shutting down has cancelled it, which must not raise here.
        await asyncio.wait([task])


class _Attempts:
    """Calls `poll`, and logs when it begins and stops to fail, so that an outage of an hour is two lines."""

    def __init__(
        self, poll: Callable[[], Awaitable[None]], *, what: str, expected: type[Exception], log: logging.Logger
    ) -> None:
        self._poll = poll
        self._what = what
        self._expected = expected
        self._log = log
        self._is_failing = False

    async def next(self) -> None:
        try:
            await self._poll()
        except self._expected as error:
            if not self._is_failing:
                self._log.warning("%s can't be followed: %s", self._what, error, extra=self._event("failing"))
            self._is_failing = True
        except Exception:  # noqa: BLE001 -- whatever it was, the next attempt may succeed
            if not self._is_failing:
                self._log.exception("%s can't be followed", self._what, extra=self._event("failing"))
            self._is_failing = True
        else:
            if self._is_failing:
                self._log.warning("%s are followed again", self._what, extra=self._event("restored"))
            self._is_failing = False

    def _event(self, change: str) -> dict[str, str]:
        return {"event": f"{self._what}.polls_{change}"}
