"""Time, waiting and ids. The only module that reads the clock; everywhere else the time is an argument."""

import asyncio
import secrets
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol
from uuid import UUID

MAX_CLOCK_SKEW = timedelta(hours=1)
"""More than the clocks of instances ever differ: what has expired by one of them may still be valid by another."""


def beyond_every_count(now: datetime) -> int:
    """Return a number above any that was counted one by one until now, at less than a thousand a second.

    For counters of a restored database: the numbers that were given after the copy was taken are not in the copy, and
    must not be given again.
    """
    return int((now + MAX_CLOCK_SKEW).timestamp() * 1000)


class Clock(Protocol):
    """The clock that the package uses; tests pass one that they set."""

    def now(self) -> datetime:
        """Return the time of day, in UTC."""
        ...

    def uptime(self) -> float:
        """Return seconds since some fixed instant; never steps, and counts the time in which the machine sleeps."""
        ...


# After a suspension the last poll of the revocations is old, but CLOCK_MONOTONIC stops meanwhile, and would let in
# sessions that have ended since. CLOCK_BOOTTIME counts the suspension; only Linux has it.
_UPTIME_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Return the time of day, in UTC."""
        return datetime.now(UTC)

    def uptime(self) -> float:
        """Return seconds since boot, suspension included."""
        return time.clock_gettime(_UPTIME_CLOCK)


def stopwatch() -> float:
    """Return seconds for measuring how long something takes. Nothing is decided by them, so tests do not set them."""
    return time.perf_counter()


async def happens(event: asyncio.Event, *, within_seconds: float) -> bool:
    """Wait for an event for at most `within_seconds`; return whether it was set."""
    try:
        async with asyncio.timeout(within_seconds):
            return await event.wait()
    except TimeoutError:
        return False


def new_id(now: datetime) -> UUID:
    """Return a UUIDv7 (RFC 9562): 48 bits of milliseconds, so that ids sort by time, then 74 random bits."""
    milliseconds = int(now.timestamp() * 1000)
    random_bits = secrets.randbits(74)
    high, low = random_bits >> 62, random_bits & ((1 << 62) - 1)
    return UUID(int=milliseconds << 80 | 0x7 << 76 | high << 64 | 0b10 << 62 | low)
