"""The meter that records: adds to a table, in memory or in a file of this process that others read."""

import fcntl
import logging
import os
import secrets
import threading
from array import array
from bisect import bisect_left
from mmap import mmap
from pathlib import Path
from typing import BinaryIO

from latchstring.foundation.measurements.catalogue import BUCKETS, CATALOGUE
from latchstring.foundation.measurements.names import Metric
from latchstring.foundation.measurements.reading import Readings, ensure_private, of_one_process, read_directory
from latchstring.foundation.measurements.table import SIZE, Series, Table, empty_table

_log = logging.getLogger(__name__)


class Recorder:
    """Records measurements.

    Args:
        directory: where the workers of one application share their numbers; None if there is one process only.
    """

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        # Hashes are timed in their own threads.
        self._lock = threading.Lock()
        self._file: BinaryIO | None = None
        self._owner = 0
        self._damaged: set[str] = set()
        self._use(empty_table())

    def count(self, metric: Metric, *labels: str) -> None:
        """Add one to a counter."""
        with self._lock:
            start = self._start_of(metric, labels)
            if start is not None:
                self._table.cells[start] += 1

    def observe(self, metric: Metric, seconds: float, *labels: str) -> None:
        """Add a duration to a histogram."""
        with self._lock:
            start = self._start_of(metric, labels)
            if start is not None:
                # Not cumulative: the reader adds up the buckets, so that an observation writes two numbers.
                self._table.cells[start + bisect_left(BUCKETS, seconds)] += 1
                self._table.cells[start + len(BUCKETS) + 1] += seconds

    def gauge(self, metric: Metric, value: float, *labels: str) -> None:
        """Set a gauge."""
        with self._lock:
            start = self._start_of(metric, labels)
            if start is not None:
                self._table.cells[start] = value

    def share(self, *, uptime: float) -> None:
        """Go on in a file of this process's own, if there is a directory. Without a place on the disk, go on in memory.

        Called when the background work begins and not before: a server may build the application and then fork.
        """
        self._share()
        # From now on and not from the first success: a worker that never polls has the lag of its whole life.
        self.gauge(Metric.REVOCATION_LAG, uptime)

    def _share(self) -> None:
        if self._directory is None or (self._file is not None and self._owner == os.getpid()):
            return
        with self._lock:
            if self._file is not None:
                # After a fork the file is the parent's, with what is in it. The parent's descriptor keeps the lock.
                self._file.close()
                self._file = None
                self._use(empty_table())
            try:
                self._file, memory = _new_file(self._directory, self._table)
            except OSError as error:
                # Never a reason not to serve: sign-in does not depend on being counted.
                extra = {"event": "metrics.not_shared", "cause": os.strerror(error.errno or 0)}
                _log.warning("this worker's metrics can't be shared, and are missing from /metrics", extra=extra)
                return
            self._owner = os.getpid()
            self._use(Table(memory))

    def withdraw(self) -> None:
        """Begin again in memory at zero. What was counted so far is left in the file, as that of an ended worker."""
        if self._file is not None and self._owner == os.getpid():
            with self._lock:
                self._file.close()
                self._file = None
                self._use(empty_table())

    def read(self) -> Readings:
        """Return the numbers of all workers that share the directory; without one, those of this process.

        Raises:
            OSError: the directory can't be read.
            TimeoutError: another process has been reading it for seconds.
        """
        if self._directory is not None:
            return read_directory(self._directory, damaged=self._damaged)
        with self._lock:
            return of_one_process(self._table)

    def _use(self, table: Table) -> None:
        self._table = table
        self._starts: dict[Series, int] = {}
        start = 0
        for series, values in table.series():
            self._starts[series] = start
            start += len(values)

    def _start_of(self, metric: Metric, labels: tuple[str, ...]) -> int | None:
        start = self._starts.get((metric, *labels))
        if start is not None:
            return start
        # Only checked labels are remembered: what a client sends must fill neither the memory nor `/metrics`.
        described = CATALOGUE[metric]
        series = (metric.value, *described.checked(labels))
        if series not in self._starts:
            added = self._table.add(series, cells=described.cells)
            if added is None:
                return None
            self._starts[series] = added
        return self._starts[series]


def _new_file(directory: Path, table: Table) -> tuple[BinaryIO, mmap]:
    ensure_private(directory)
    name = f"{os.getpid()}-{secrets.token_hex(8)}"
    hidden, visible = directory / f"{name}.new", directory / f"{name}.values"
    file = hidden.open("x+b")
    try:
        # Written in full, see `table`.
        file.write(bytes(SIZE))
        file.flush()
        memory = mmap(file.fileno(), SIZE)
        copy = Table(memory)
        for series, values in table.series():
            start = copy.add(series, cells=len(values))
            if start is not None:
                copy.cells[start : start + len(values)] = memoryview(array("d", values))
        # Held until this process ends, however it ends: the kernel releases it, and a process id may be used again.
        fcntl.flock(file, fcntl.LOCK_EX)
        hidden.rename(visible)
    except OSError:
        file.close()
        hidden.unlink(missing_ok=True)
        raise
    return file, memory
