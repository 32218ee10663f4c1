"""The meter: what every package calls to count, time and gauge. By default it does nothing.

A label's value comes from the closed list in `catalogue`; any other becomes `other`. So no user, email, IP address or
token can become one, whatever a caller passes.
"""

import importlib.util
from typing import TYPE_CHECKING, Protocol

from latchstring.errors import ConfigurationError
from latchstring.foundation.measurements.names import Metric
from latchstring.foundation.measurements.settings import MetricsSettings

if TYPE_CHECKING:
    from latchstring.foundation.measurements.recorder import Recorder


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


def meter_for(settings: MetricsSettings) -> Meter:
    """Return a `Recorder`, or the meter that does nothing if the settings ask for no metrics.

    Raises:
        ConfigurationError: they do, and prometheus_client is not installed.
    """
    if not settings.counts:
        return UNMETERED
    # At the start, and not at the first scrape.
    refuse_without_prometheus()
    # Imported here: an application without metrics pays for none of it.
    from latchstring.foundation.measurements.recorder import Recorder  # noqa: PLC0415 -- as above

    return Recorder(settings.metrics_dir)


def refuse_without_prometheus() -> None:
    """Refuse to start if prometheus_client is not installed. It is not imported: a worker does not need it.

    Raises:
        ConfigurationError: it is not installed.
    """
    if importlib.util.find_spec("prometheus_client") is None:
        raise ConfigurationError("metrics need prometheus-client: pip install 'latchstring[metrics]'")


def recorder_of(meter: Meter) -> "Recorder | None":
    """Return a meter that records; None for the one that does nothing."""
    if meter is UNMETERED:
        return None
    from latchstring.foundation.measurements.recorder import Recorder  # noqa: PLC0415 -- there is one: it is imported

    return meter if isinstance(meter, Recorder) else None
