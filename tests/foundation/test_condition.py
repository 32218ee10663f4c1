"""A condition: two lines for an outage, and one for each further cause, however many requests fail."""

import logging
from dataclasses import dataclass

import pytest

from latchstring.foundation.condition import SETTLING_SECONDS, Condition

_log = logging.getLogger("latchstring.tests.condition")


@dataclass
class Uptime:
    """Seconds that pass when a test says so."""

    seconds: float = 100.0

    def __call__(self) -> float:
        return self.seconds


def events(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str | None]]:
    """Returns the event and cause of each line."""
    return [(record.event, getattr(record, "cause", None)) for record in caplog.records]  # type: ignore[attr-defined]  # by `extra`


def test_an_outage_is_two_lines(caplog: pytest.LogCaptureFixture) -> None:
    """However often it fails, and from each cause one more."""
    uptime = Uptime()
    writes = Condition("database.writes", subject="writes to the database", log=_log, uptime=uptime)
    writes.works()
    assert caplog.records == []
    for _ in range(3):
        writes.fails("disk_full", reason="the disk is full")
        writes.fails("timed_out", reason="no response in time")
    assert writes.is_failing
    assert writes.causes == {"disk_full", "timed_out"}
    uptime.seconds += SETTLING_SECONDS
    writes.works()
    writes.works()
    assert writes.causes == frozenset()
    assert events(caplog) == [
        ("database.writes_failing", "disk_full"),
        ("database.writes_failing", "timed_out"),
        ("database.writes_restored", None),
    ]
    assert [record.getMessage() for record in caplog.records] == [
        "writes to the database fail: the disk is full",
        "writes to the database fail: no response in time",
        "writes to the database work again",
    ]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_what_fails_now_and_then_is_one_outage(caplog: pytest.LogCaptureFixture) -> None:
    """A full pool lets every other request through: the log must not have a line for each."""
    uptime = Uptime()
    reads = Condition("database.reads", subject="reads of the database", log=_log, uptime=uptime)
    for _ in range(10):
        reads.fails("pool_empty", reason="all connections are in use")
        uptime.seconds += SETTLING_SECONDS - 0.1
        reads.works()
    assert reads.is_failing
    assert len(caplog.records) == 1
    uptime.seconds += 0.1
    reads.works()
    assert reads.causes == frozenset()
    reads.fails("pool_empty", reason="all connections are in use")
    assert len(caplog.records) == 3, "a new outage"
