"""The machine's clock: which of them, since a wrong one is right until the day the machine sleeps."""

import asyncio
import time

import pytest

from latchstring.foundation.clock import SystemClock, happens


def test_uptime_counts_the_time_the_machine_was_suspended(monkeypatch: pytest.MonkeyPatch) -> None:
    """T38: on Linux only CLOCK_BOOTTIME does. By CLOCK_MONOTONIC, knowledge from before a sleep would be fresh."""
    expected = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    seconds = dict.fromkeys((time.CLOCK_MONOTONIC, time.CLOCK_REALTIME), 1.0) | {expected: 28_801.0}
    monkeypatch.setattr(time, "clock_gettime", seconds.__getitem__)
    assert SystemClock().uptime() == 28_801


async def test_waiting_tells_whether_it_happened() -> None:
    """Something that has happened is told at once, and something that does not is not waited for any longer."""
    event = asyncio.Event()
    assert not await happens(event, within_seconds=0)
    event.set()
    assert await happens(event, within_seconds=60)
