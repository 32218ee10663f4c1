"""The numbers of all workers in one directory, added up.

    <pid>-<random>.values   a table; its worker holds an exclusive lock on it for as long as it lives
    ended.json              the counters of all workers that have ended
    lock                    held by the one process that reads

A worker that ended leaves a file that nobody locks. The next reader adds its counters to `ended.json` and deletes it,
so that files do not pile up, however often a worker crashes. Gauges end with their worker.

A power cut may leave any of these files empty, or with anything in it. One that can't be read is skipped.
"""

import contextlib
import errno
import fcntl
import json
import logging
import math
import os
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from mmap import ACCESS_READ, mmap
from pathlib import Path

from latchstring.foundation.measurements.catalogue import BY_NAME, Kind
from latchstring.foundation.measurements.table import SIZE, Series, Table

_TRIES, _PAUSE_SECONDS = 40, 0.05
_KEPT = {Kind.COUNTER, Kind.HISTOGRAM}
_ENDED = "ended.json"
# What parsing raises on bytes that nobody wrote; the last two on a number and a nesting without end.
_DAMAGE = (ValueError, TypeError, KeyError, OverflowError, RecursionError)
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Readings:
    """The series of several workers, merged."""

    workers: int = 0
    """How many of them run."""
    series: dict[Series, list[float]] = field(default_factory=dict)

    def add(self, found: Iterable[tuple[Series, list[float]]], *, runs: bool) -> None:
        """Add the numbers of one worker."""
        self.workers += runs
        for series, values in found:
            described = BY_NAME.get(series[0])
            # A file may be that of another version, during a rolling update.
            if described is None or (len(series) - 1, len(values)) != (len(described.labels), described.cells):
                continue
            if runs or described.kind in _KEPT:
                before = self.series.get(series)
                self.series[series] = values if before is None else _merged(described.kind, before, values)


def of_one_process(table: Table) -> Readings:
    """Return the numbers of one process."""
    readings = Readings()
    readings.add(table.series(), runs=True)
    return readings


def ensure_private(directory: Path) -> None:
    """Make the directory, unless it is there and nobody else may write to it.

    Raises:
        PermissionError: another user owns it or may write to it, and could plant a link in place of a file of ours.
        OSError: it can't be made.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = directory.stat()
    if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(errno.EPERM, "other users may write to the metrics directory", str(directory))


def read_directory(directory: Path, *, damaged: set[str]) -> Readings:
    """Return the numbers of all workers that share `directory`.

    Args:
        directory: the directory.
        damaged: the files that could not be read the last time. A further one is logged, and put in here: a scrape
            comes every few seconds.

    Raises:
        OSError: the directory can't be read.
        TimeoutError: another process has been reading it for two seconds.
    """
    ensure_private(directory)
    running, ended, folded, skipped = Readings(), Readings(), set[str](), set[str]()
    with _read_by_one(directory):
        with _skipping(_ENDED, skipped):
            folded = _read_ended(directory, ended)
        gone: list[Path] = []
        for path in sorted(directory.glob("*.values")):
            if path.name not in folded:
                with path.open("r+b") as file:
                    runs = not _is_free(file.fileno())
                    with _skipping(path.name, skipped):
                        _read_table(file.fileno(), into=running if runs else ended, runs=runs)
                if runs:
                    continue
            gone.append(path)
        if gone or _ENDED in skipped:
            _fold(directory, ended, gone)
    _report(skipped, damaged)
    running.add(ended.series.items(), runs=False)
    return running


@contextlib.contextmanager
def _skipping(name: str, skipped: set[str]) -> Iterator[None]:
    try:
        yield
    except _DAMAGE:
        skipped.add(name)


def _report(skipped: set[str], damaged: set[str]) -> None:
    for name in sorted(skipped - damaged):
        extra = {"event": "metrics.file_damaged", "file": name}
        _log.warning("a file of metrics can't be read; its numbers are missing from /metrics", extra=extra)
    damaged.clear()
    damaged.update(skipped)


def _merged(kind: Kind, one: list[float], other: list[float]) -> list[float]:
    match kind:
        case Kind.MAXIMUM:
            return [max(one[0], other[0])]
        # The earliest instant is the largest age.
        case Kind.AGE | Kind.AGE_BY_DATE:
            return [min((each for each in (one[0], other[0]) if not math.isnan(each)), default=math.nan)]
        case _:
            return [mine + theirs for mine, theirs in zip(one, other, strict=True)]


def _is_free(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_table(descriptor: int, *, into: Readings, runs: bool) -> None:
    if os.fstat(descriptor).st_size != SIZE:
        raise ValueError("not a table, or that of another version")
    found = list(Table(mmap(descriptor, SIZE, access=ACCESS_READ)).series())
    # In full before any of it is added: half a file would be counted otherwise.
    into.add([(tuple(map(str, series)), values) for series, values in found], runs=runs)


def _read_ended(directory: Path, into: Readings) -> set[str]:
    try:
        stored = json.loads((directory / _ENDED).read_text())
    except FileNotFoundError:
        return set()
    found = [(tuple(map(str, series)), list(map(float, values))) for series, values in stored["series"]]
    files = set(map(str, stored["files"]))
    into.add(found, runs=False)
    return files


def _fold(directory: Path, ended: Readings, gone: list[Path]) -> None:
    # With the files' names: a reader that is killed between the two steps must not let the next one count them twice.
    content = {"files": [path.name for path in gone], "series": list(ended.series.items())}
    # On a full disk the files stay, and the next reader tries again: the sum it returns is the same.
    with contextlib.suppress(OSError):
        temporary = directory / "ended.new"
        temporary.write_text(json.dumps(content))
        temporary.replace(directory / _ENDED)
        for path in gone:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _read_by_one(directory: Path) -> Iterator[None]:
    with (directory / "lock").open("a") as lock:
        for _ in range(_TRIES):
            if _is_free(lock.fileno()):
                break
            time.sleep(_PAUSE_SECONDS)
        else:
            # Bounded: a reader that was stopped must not hold up all others.
            raise TimeoutError("another process is reading the metrics")
        yield
