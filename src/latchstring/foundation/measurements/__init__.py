"""Measurements: what this process counts and times, for `/metrics`.

    meter.py       the interface that every other package uses, and the meter that does nothing
    names.py       the name of every metric
    settings.py    the settings
    catalogue.py   every metric: its kind, labels with the values they may have, and meaning
    table.py       the numbers of one process in a flat piece of memory, which may be a file
    recorder.py    the meter that records: adds to the table, and shares it with other processes
    reading.py     the numbers of all processes in one directory, added up
    exposition.py  the numbers as Prometheus reads them; alone in importing prometheus_client

Without metrics only the first three are imported. With them, each worker owns one file of a fixed size, and whoever is
asked for `/metrics` reads all of them. Nobody has to notice that a worker died: its lock is gone then, and the reader
keeps its counters with those of all ended workers (decision 29).
"""

from latchstring.foundation.measurements.meter import UNMETERED, Meter
from latchstring.foundation.measurements.names import Metric
from latchstring.foundation.measurements.settings import MetricsSettings

__all__ = ["UNMETERED", "Meter", "Metric", "MetricsSettings"]
