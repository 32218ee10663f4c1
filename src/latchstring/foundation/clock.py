"""Time, waiting and ids. Time is passed in everywhere; this is the one place that reads it."""

import asyncio
import secrets
import time
from datetime import UTC, datetime
from typing import Protocol
from uuid import UUID


class Clock(Protocol):
    """What the package asks of a clock; tests hand in one that they turn."""

    def now(self) -> datetime:
        """Return the time of day, in UTC."""
        ...

    def uptime(self) -> float:
        """Return seconds since some fixed instant; never steps, and counts the time the machine was suspended."""
        ...


# A laptop that slept, or a paused virtual machine, must not believe that its last poll was a moment ago:
# CLOCK_MONOTONIC stops while suspended, CLOCK_BOOTTIME does not. Only Linux has the latter.
_UPTIME_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Return the time of day, in UTC."""
        return datetime.now(UTC)

    def uptime(self) -> float:
        """Return seconds since boot, suspension included."""
        return time.clock_gettime(_UPTIME_CLOCK)


async def happens(event: asyncio.Event, *, within_seconds: float) -> bool:
    """Wait for an event; tell whether it came within so many seconds."""
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
