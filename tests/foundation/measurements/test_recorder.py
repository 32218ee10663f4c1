"""What one process counts is right, and what several count adds up, whichever of them has ended and however."""

import fcntl
import json
import logging
import os
import signal
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from latchstring.foundation.measurements.catalogue import BUCKETS
from latchstring.foundation.measurements.names import Metric
from latchstring.foundation.measurements.recorder import Recorder
from latchstring.foundation.measurements.table import SIZE, Series
from tests.support.hang import HANG_SECONDS
from tests.support.process import FORKED

REUSED = (Metric.REFRESHES.value, "reused")
PENDING = (Metric.HASHES_PENDING.value,)
LAG = (Metric.REVOCATION_LAG.value,)
ENTRIES = (Metric.REVOCATION_ENTRIES.value, "session")


def worker(directory: Path, *, reused: float = 0, pending: float = 0, uptime: float = 100.0) -> Recorder:
    """Returns the recorder of a worker that runs and has counted something."""
    recorder = Recorder(directory)
    recorder.share(uptime=uptime)
    for _ in range(int(reused)):
        recorder.count(Metric.REFRESHES, "reused")
    recorder.gauge(Metric.HASHES_PENDING, pending)
    return recorder


Workers = Callable[..., Recorder]


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Workers]:
    """Starts workers on the test's directory; they end with it."""
    with ExitStack() as stack:

        def start(**counted: float) -> Recorder:
            recorder = worker(tmp_path, **counted)
            stack.callback(recorder.withdraw)
            return recorder

        yield start


def read(directory: Path) -> dict[Series, list[float]]:
    """Returns what somebody reads who has counted nothing."""
    return Recorder(directory).read().series


def files(directory: Path) -> int:
    """Returns how many workers have a file."""
    return len(list(directory.glob("*.values")))


def test_a_counter_begins_at_zero_and_a_histogram_fills_its_buckets() -> None:
    """A series that begins with its first event would hide that event from `rate`."""
    recorder = Recorder(None)
    assert recorder.read().series[REUSED] == [0.0]
    recorder.count(Metric.REFRESHES, "reused")
    for seconds in (0.0, BUCKETS[0], 0.02, 99.0):
        recorder.observe(Metric.HASH, seconds)
    series = recorder.read().series
    assert series[REUSED] == [1.0]
    *counts, total = series[Metric.HASH.value,]
    assert (counts[0], counts[BUCKETS.index(0.025)], counts[-1], sum(counts)) == (2, 1, 1, 4)
    assert total == pytest.approx(99.021)


def test_hostile_values_make_no_series_and_take_no_memory() -> None:
    """A label is not an open door, even if a caller passes what a client sent."""
    recorder = Recorder(None)
    before = set(recorder.read().series)
    for number in range(1000):
        recorder.count(Metric.EVENTS, f"ada{number}@example.com")
        recorder.count(Metric.SIGN_INS, "pwd", '"} 1\nlatchstring_fake 1')
    series = recorder.read().series
    assert set(series) - before == {(Metric.EVENTS.value, "other"), (Metric.SIGN_INS.value, "pwd", "other")}
    assert series[Metric.EVENTS.value, "other"] == [1000.0]


def test_a_table_that_is_full_drops_series_and_raises_nothing() -> None:
    """Routes are the only label without a list; a host with thousands of ours does not exist."""
    recorder = Recorder(None)
    for number in range(5000):
        recorder.observe(Metric.HTTP_REQUEST, 0.1, f"/route/{number}", "GET")
    recorder.count(Metric.REFRESHES, "reused")
    assert recorder.read().series[REUSED] == [1.0]


def test_threads_lose_nothing() -> None:
    """Hashes are timed in threads of their own."""
    recorder = Recorder(None)

    def work() -> None:
        for _ in range(2000):
            recorder.count(Metric.REFRESHES, "reused")
            recorder.observe(Metric.HASH, 0.01)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    series = recorder.read().series
    assert series[REUSED] == [16_000.0]
    assert sum(series[Metric.HASH.value,][:-1]) == 16_000


def test_workers_are_added_up(workers: Workers) -> None:
    """Counters and queues: the sum. Sizes: the largest. Ages: the oldest instant."""
    one, other = workers(reused=2, pending=3, uptime=50.0), workers(reused=5, pending=4)
    one.gauge(Metric.REVOCATION_ENTRIES, 7, "session")
    other.gauge(Metric.REVOCATION_ENTRIES, 9, "session")
    readings = one.read()
    assert readings.workers == 2
    assert (readings.series[REUSED], readings.series[PENDING]) == ([7.0], [7.0])
    assert (readings.series[ENTRIES], readings.series[LAG]) == ([9.0], [50.0])


def test_an_ended_worker_leaves_its_counters_and_no_gauge(workers: Workers, tmp_path: Path) -> None:
    """Its file goes with the next reading, so that files do not pile up while a worker crashes again and again."""
    lasting = workers(reused=1, pending=1)
    for _ in range(5):
        ending = workers(reused=10, pending=10, uptime=1.0)
        ending.withdraw()
        lasting.read()
        assert files(tmp_path) == 1
    readings = lasting.read()
    assert readings.workers == 1
    assert (readings.series[REUSED], readings.series[PENDING], readings.series[LAG]) == ([51.0], [1.0], [100.0])
    assert read(tmp_path)[REUSED] == [51.0], "reading twice counts nothing twice"


def test_one_that_begins_again_counts_from_zero_in_a_new_file(workers: Workers) -> None:
    """An `Auth` that is closed and used again, as in tests: what it counted before is there once."""
    recorder = workers(reused=3)
    recorder.withdraw()
    recorder.share(uptime=100.0)
    recorder.share(uptime=100.0)
    recorder.count(Metric.REFRESHES, "reused")
    assert recorder.read().series[REUSED] == [4.0]


def run_until_killed(directory: Path, ready: Event) -> None:
    """A worker that counts, and is never asked to end."""
    recorder = worker(directory, reused=4, pending=4)
    ready.set()
    signal.pause()
    recorder.withdraw()


def test_a_killed_worker_has_ended(tmp_path: Path) -> None:
    """Nobody has to notice: the kernel takes its lock away, and a process id that is used again does not matter."""
    ready = FORKED.Event()
    process = FORKED.Process(target=run_until_killed, args=(tmp_path, ready))
    process.start()
    assert ready.wait(HANG_SECONDS)
    readings = Recorder(tmp_path).read()
    assert (readings.workers, readings.series[REUSED], readings.series[PENDING]) == (1, [4.0], [4.0])
    process.kill()
    process.join(HANG_SECONDS)
    readings = Recorder(tmp_path).read()
    assert (readings.workers, readings.series[REUSED]) == (0, [4.0])
    assert PENDING not in readings.series


def fork_after_sharing(directory: Path) -> None:
    """A server that builds and starts the application, and then forks."""
    recorder = worker(directory, reused=1)
    child = os.fork()
    recorder.share(uptime=100.0)
    recorder.count(Metric.REFRESHES, "reused")
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


def fork_without_room(directory: Path) -> None:
    """The same on a disk that has become full: the child may write no file of more than a kilobyte."""
    import resource  # noqa: PLC0415 -- in the process that is limited

    recorder = worker(directory, reused=1)
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        for _ in range(2):
            recorder.share(uptime=1.0)
            recorder.count(Metric.REFRESHES, "reused")
        is_right = dict(recorder._table.series())[REUSED] == [2.0] and recorder.read().workers == 1
        os._exit(0 if is_right else 1)
    _, status = os.waitpid(child, 0)
    sys.exit(status)


def test_a_fork_without_room_leaves_the_parents_file_alone(tmp_path: Path) -> None:
    """It counts in memory, in a table of its own that it keeps when it tries again."""
    process = FORKED.Process(target=fork_without_room, args=(tmp_path,))
    process.start()
    process.join(HANG_SECONDS)
    assert process.exitcode == 0
    assert read(tmp_path)[REUSED] == [1.0]


def test_a_fork_gets_a_file_of_its_own(tmp_path: Path) -> None:
    """Two that wrote into one would lose counts, and the parent's would be counted twice."""
    process = FORKED.Process(target=fork_after_sharing, args=(tmp_path,))
    process.start()
    process.join(HANG_SECONDS)
    assert process.exitcode == 0
    assert files(tmp_path) == 2
    assert read(tmp_path)[REUSED] == [3.0]


def test_a_reader_that_dies_between_its_two_steps_counts_nothing_twice(tmp_path: Path) -> None:
    """The counters are in `ended.json`, and the file they come from is still there."""
    worker(tmp_path, reused=6).withdraw()
    (path,) = tmp_path.glob("*.values")
    content = path.read_bytes()
    assert read(tmp_path)[REUSED] == [6.0]
    path.write_bytes(content)
    assert json.loads((tmp_path / "ended.json").read_text())["files"] == [path.name]
    assert read(tmp_path)[REUSED] == [6.0]
    assert files(tmp_path) == 0
    assert read(tmp_path)[REUSED] == [6.0]


def test_a_file_of_another_version_is_read_as_far_as_it_is_known(workers: Workers, tmp_path: Path) -> None:
    """During a rolling update both versions share the directory."""
    other = workers(reused=2)
    other._table.add(("latchstring_of_tomorrow_total",), cells=1)
    other._table.add((Metric.HASH.value, "a label"), cells=15)
    (tmp_path / "half.values").write_bytes(b"not a table")
    series = read(tmp_path)
    assert series[REUSED] == [2.0]
    assert not {name for name, *_ in series} - {metric.value for metric in Metric}


LEFT_BY_A_POWER_CUT = [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000]
NOT_THE_COUNTERS = [
    b"{}",
    b'{"series": 1, "files": []}',
    b'{"series": [[["latchstring_refreshes_total", "reused"], ["1"]], [7, []]], "files": []}',
    b'{"series": [[["latchstring_refreshes_total", "reused"], [1%s]]], "files": []}' % (b"0" * 400),
]


def damage_logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Returns the files that were logged as damaged."""
    return [vars(line)["file"] for line in caplog.records if vars(line).get("event") == "metrics.file_damaged"]


@pytest.mark.parametrize("content", LEFT_BY_A_POWER_CUT + NOT_THE_COUNTERS)
def test_damaged_counters_of_ended_workers_begin_anew(
    content: bytes, workers: Workers, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A directory survives a power cut, and `ended.json` perhaps not: one line says so, and all else is read."""
    lasting = workers(reused=2)
    (tmp_path / "ended.json").write_bytes(content)
    for _ in range(3):
        assert lasting.read().series[REUSED] == [2.0]
    assert damage_logged(caplog) == ["ended.json"]
    workers(reused=3).withdraw()
    assert read(tmp_path)[REUSED] == read(tmp_path)[REUSED] == [5.0]
    assert damage_logged(caplog) == ["ended.json"]


def tables() -> list[bytes]:
    """Returns files of a worker's size that no worker wrote."""
    known = b'["latchstring_refreshes_total", ["reused"], 1]\n'
    lines = [b"\xff\xfe\n", b"{\n", b"7\n", b'["a", ["b"], "c"]\n', b'[["a"], null, 1]\n', b"[" * 60_000 + b"\n"]
    indexes = [known + line for line in lines]
    return [(struct.pack("=qq", len(index), 1) + index).ljust(SIZE, b"\0") for index in indexes] + [b"\xff" * SIZE]


@pytest.mark.parametrize("content", [b"", b"half a table", *tables()], ids=range(9))
def test_a_damaged_file_is_skipped(
    content: bytes, workers: Workers, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whole, and logged once, even where a worker that runs has it locked."""
    lasting = workers(reused=2)
    (tmp_path / "1-ended.values").write_bytes(content)
    with (tmp_path / "2-running.values").open("wb") as running:
        running.write(content)
        running.flush()
        fcntl.flock(running, fcntl.LOCK_EX)
        for _ in range(3):
            readings = lasting.read()
            assert (readings.workers, readings.series[REUSED]) == (1, [2.0])
    assert damage_logged(caplog) == ["1-ended.values", "2-running.values"]
    assert files(tmp_path) == 2
    lasting.read()
    assert files(tmp_path) == 1


def without_room(directory: Path, outcome: Path) -> None:
    """A worker that may write no file of more than a kilobyte, as on a full disk."""
    import resource  # noqa: PLC0415 -- in the process that is limited

    handler = logging.FileHandler(outcome)
    handler.setFormatter(logging.Formatter("%(event)s %(message)s"))
    logging.getLogger("latchstring").addHandler(handler)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    assert dict(worker(directory, reused=2)._table.series())[REUSED] == [2.0]


def test_a_full_disk_ends_no_worker(tmp_path: Path) -> None:
    """It says so, goes on in memory, and leaves no half a file. Found out later, it would be a SIGBUS."""
    process = FORKED.Process(target=without_room, args=(tmp_path / "shared", tmp_path / "log"))
    process.start()
    process.join(HANG_SECONDS)
    assert process.exitcode == 0
    assert (tmp_path / "log").read_text().startswith("metrics.not_shared this worker's metrics can't be shared")
    assert list((tmp_path / "shared").iterdir()) == []


def test_a_file_has_its_room_before_it_is_mapped(workers: Workers, tmp_path: Path) -> None:
    """As one has that is written in full: a page without a place on the disk is a SIGBUS when it is counted in."""
    workers()
    (path,) = tmp_path.glob("*.values")
    (tmp_path / "written").write_bytes(bytes(SIZE))
    assert path.stat().st_blocks >= (tmp_path / "written").stat().st_blocks
