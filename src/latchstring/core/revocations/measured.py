"""Polls of the revocation feed, counted and timed."""

from collections.abc import Awaitable, Callable, Mapping

from latchstring.foundation.clock import stopwatch
from latchstring.foundation.measurements import Meter, Metric
from latchstring.foundation.spans import span


def measured(
    poll: Callable[[], Awaitable[None]],
    meter: Meter,
    *,
    current_as_of: Callable[[], float | None],
    entries: Callable[[], Mapping[str, int]],
) -> Callable[[], Awaitable[None]]:
    """Return `poll` with measurements around it.

    Args:
        poll: polls the database once.
        meter: gets the measurements.
        current_as_of: when the last successful poll began, by `Clock.uptime`; None before the first.
        entries: how many entries are in memory, by their subject.
    """

    async def poll_measured() -> None:
        began, outcome = stopwatch(), "failed"
        try:
            with span("latchstring.poll"):
                await poll()
            outcome = "succeeded"
        finally:
            meter.count(Metric.REVOCATION_POLLS, outcome)
            meter.observe(Metric.REVOCATION_POLL, stopwatch() - began)
            as_of = current_as_of()
            if as_of is not None:
                meter.gauge(Metric.REVOCATION_LAG, as_of)
            for subject, number in entries().items():
                meter.gauge(Metric.REVOCATION_ENTRIES, number, subject)

    return poll_measured
