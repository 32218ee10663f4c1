"""The meter: what every package calls to count, time and gauge. By default it does nothing.

A label's value comes from the closed list in `catalogue`; any other becomes `other`. So no user, email, IP address or
token can become one, whatever a caller passes.
"""

from typing import Protocol

from latchstring.foundation.measurements.catalogue import Metric


class Meter(Protocol):
    """Records measurements. It never raises, does no I/O, and may be called from any thread."""

    def count(self, metric: Metric, *labels: str) -> None:
        """Add one to a counter. The labels are in the catalogue's order."""
        ...

    def observe(self, metric: Metric, seconds: float, *labels: str) -> None:
        """Add a duration to a histogram."""
        ...

    def gauge(self, metric: Metric, value: float, *labels: str) -> None:
        """Set this process's value of a gauge; for an age, the instant it counts from."""
        ...


class _Unmetered:
    """The meter that does nothing."""

    def count(self, metric: Metric, *labels: str) -> None:
        """Do nothing."""

    def observe(self, metric: Metric, seconds: float, *labels: str) -> None:
        """Do nothing."""

    def gauge(self, metric: Metric, value: float, *labels: str) -> None:
        """Do nothing."""


UNMETERED: Meter = _Unmetered()
"""The meter that does nothing."""
