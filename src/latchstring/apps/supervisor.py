"""The parent of several workers: starts them, replaces those that end or hang, and stops all of them.

A worker that ends is replaced at once. If it ends again within seconds, or cannot start, each replacement waits longer,
up to 30 s. If none can serve, the server ends with a failure: a service manager and a load balancer see that, but not
a port behind which nobody accepts connections.
"""

import contextlib
import logging
import multiprocessing
import multiprocessing.process
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait

import uvicorn

from latchstring.apps.shutdown import COMPLETION_SECONDS, NEW_CONNECTION_SECONDS, SYSTEM_CLOCK, nothing
from latchstring.apps.worker import DRAIN, PING, READY, SIGNALS, STOP, run_worker
from latchstring.foundation.clock import Clock

PING_SECONDS = 1.0
UNANSWERED_PINGS = 10
"""So many in a row, and a worker counts as hung. Counted, and not timed: a parent that was suspended as well must not
take all of its workers for hung."""
START_PINGS = 120
"""Until it has answered for the first time: imports take seconds, and on a busy machine a minute."""
STABLE_SECONDS = 10.0
"""A worker that has served for so long is no failed start."""
FAILURES = 5
"""So many failures in a row, with nobody serving, end the server."""
MAX_DELAY_SECONDS = 30.0
_LIFESPAN_SECONDS = 5.0
# A new interpreter and not a fork: a fork copies locks and threads in whatever state they are.
PROCESSES: multiprocessing.context.BaseContext = multiprocessing.get_context("spawn")
_log = logging.getLogger(__name__)


def restart_delay(failures: int) -> float:
    """Return how many seconds to wait before a worker is replaced that failed so many times in a row."""
    return 0.0 if failures <= 1 else min(2.0 ** (failures - 2), MAX_DELAY_SECONDS)


def cause_of(exit_code: int) -> str:
    """Return why a process ended: `exit code 3`, or the name of the signal that killed it."""
    if exit_code >= 0:
        return f"exit code {exit_code}"
    try:
        return signal.Signals(-exit_code).name
    except ValueError:
        return f"signal {-exit_code}"


@dataclass
class _Worker:
    """A process that serves, or is about to."""

    process: multiprocessing.process.BaseProcess
    pid: int
    control: Connection
    started_at: float
    is_ready: bool = False
    unanswered: int = UNANSWERED_PINGS - START_PINGS
    """Pings since its last word; below nought in its beginning, which gives it more time."""

    def say(self, word: bytes) -> None:
        # One that is ending can't hear it; its exit is noticed by itself.
        with contextlib.suppress(OSError):
            self.control.send_bytes(word)


@dataclass
class _Slot:
    """The place of one worker, filled again when it ends."""

    worker: _Worker | None = None
    failures: int = 0
    start_at: float = 0.0


class Supervisor:
    """Runs several workers on one listening socket."""

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        listener: socket.socket,
        drain_seconds: float,
        on_ready: Callable[[], None] = nothing,
        on_stopping: Callable[[], None] = nothing,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._clock = clock
        self._config = config
        self._listener = listener
        self._drain_seconds = drain_seconds
        self._on_ready = on_ready
        self._on_stopping = on_stopping
        self._slots = [_Slot() for _ in range(config.workers)]
        self._was_ready = False
        self._stop_deadline: float | None = None
        self._was_interrupted = False
        self._has_failed = False
        self._next_ping = 0.0

    def run(self) -> bool:
        """Serve until a signal says to stop. Return False if it ended because no worker could serve."""
        try:
            with _signals() as signals:
                while True:
                    self._start_due()
                    if not self._workers() and self._stop_deadline is not None:
                        return not self._has_failed
                    self._wait(signals)
                    self._ping()
        finally:
            # After an error of our own: Python would wait for the workers, and they for ever.
            for worker in self._workers():
                worker.process.kill()

    def _workers(self) -> list[_Worker]:
        return [slot.worker for slot in self._slots if slot.worker is not None]

    def _start_due(self) -> None:
        for slot in self._slots:
            if self._stop_deadline is None and slot.worker is None and self._clock.uptime() >= slot.start_at:
                self._start(slot)

    def _start(self, slot: _Slot) -> None:
        try:
            slot.worker = self._started()
        except OSError as error:
            # No process, memory or descriptor is left, perhaps because of another program. The others serve on.
            delay = self._postpone(slot, failures=slot.failures + 1)
            cause = error.strerror or type(error).__name__
            _log.error(
                "A worker could not be started (%s); the next try is in %g seconds.",
                *(cause, delay),
                extra={"event": "worker.start_failed", "cause": cause, "restart_seconds": delay},
            )
            if self._is_nobody_left(slot):
                self._fail()

    def _postpone(self, slot: _Slot, *, failures: int) -> float:
        slot.failures = failures
        delay = restart_delay(failures)
        slot.start_at = self._clock.uptime() + delay
        return delay

    def _is_nobody_left(self, slot: _Slot) -> bool:
        return slot.failures >= FAILURES and not any(each.is_ready for each in self._workers())

    def _fail(self) -> None:
        self._has_failed = True
        self._stop(STOP, 0.0)

    def _started(self) -> _Worker:
        control, theirs = multiprocessing.Pipe()
        try:
            process = self._started_process(theirs)
        except OSError:
            control.close()
            raise
        finally:
            theirs.close()
        return _Worker(process=process, pid=process.pid or 0, control=control, started_at=self._clock.uptime())

    def _started_process(self, theirs: Connection) -> multiprocessing.process.BaseProcess:
        process: multiprocessing.process.BaseProcess
        process = PROCESSES.Process(  # type: ignore[attr-defined]  # every context has it; typeshed's base has not
            target=run_worker, args=(self._config, self._listener, theirs, self._drain_seconds)
        )
        # A signal that comes before the worker can handle it waits, and neither kills it nor prints a traceback.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        return process

    def _wait(self, signals: socket.socket) -> None:
        """Wait until something happens, and deal with it. Signals come first: one may be why a worker has ended."""
        workers = self._workers()
        # None is started while it stops: an empty slot would be due all the time.
        empty = [slot for slot in self._slots if slot.worker is None and self._stop_deadline is None]
        timeout = max(0.0, min([self._next_ping, *(slot.start_at for slot in empty)]) - self._clock.uptime())
        happened = wait([signals, *(w.control for w in workers), *(w.process.sentinel for w in workers)], timeout)
        if signals in happened:
            for number in signals.recv(64):
                self._on_signal(number)
        for slot in self._slots:
            worker = slot.worker
            if worker is None:
                continue
            if worker.control in happened:
                self._on_word(worker)
            if worker.process.sentinel in happened:
                self._on_exit(slot, worker)

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGTERM:
            self._stop(DRAIN, self._drain_seconds)
        elif self._was_interrupted:
            self._stop_deadline = self._next_ping = self._clock.uptime()
        else:
            self._was_interrupted = True
            self._stop(STOP, 0.0)

    def _stop(self, word: bytes, drain_seconds: float) -> None:
        slack = NEW_CONNECTION_SECONDS + COMPLETION_SECONDS + _LIFESPAN_SECONDS
        deadline = self._clock.uptime() + drain_seconds + slack
        if self._stop_deadline is None:
            self._on_stopping()
            # Ours would keep the port open when the workers have closed theirs, with nobody to accept connections.
            self._listener.close()
        self._stop_deadline = min(deadline, self._stop_deadline or deadline)
        for worker in self._workers():
            if worker.unanswered < 0:
                worker.process.kill()  # it has not said a word yet, and so serves nobody
            else:
                worker.say(word)

    def _on_word(self, worker: _Worker) -> None:
        try:
            word = worker.control.recv_bytes()
        except (EOFError, OSError):
            return
        worker.unanswered = 0
        if word != READY:
            return
        worker.is_ready = True
        if not self._was_ready and all(slot.worker and slot.worker.is_ready for slot in self._slots):
            self._was_ready = True
            self._on_ready()

    def _on_exit(self, slot: _Slot, worker: _Worker) -> None:
        worker.process.join()
        exit_code = worker.process.exitcode or 0
        self._remove(slot, worker)
        if self._stop_deadline is not None:
            return
        was_stable = worker.is_ready and self._clock.uptime() - worker.started_at >= STABLE_SECONDS
        is_failure = not was_stable and not (worker.is_ready and exit_code == 0)
        delay = self._postpone(slot, failures=slot.failures + 1 if is_failure else 0)
        _log.log(
            logging.ERROR if exit_code else logging.INFO,
            "Worker %d ended (%s); another one starts in %g seconds.",
            *(worker.pid, cause_of(exit_code), delay),
            extra={
                "event": "worker.exited",
                "worker": worker.pid,
                "cause": cause_of(exit_code),
                "was_ready": worker.is_ready,
                "restart_seconds": delay,
            },
        )
        # Before anything was served, it is the installation that is broken, and every start would end the same way.
        is_broken = not self._was_ready and not worker.is_ready and exit_code > 0
        if is_broken or self._is_nobody_left(slot):
            self._fail()

    def _ping(self) -> None:
        now = self._clock.uptime()
        if now < self._next_ping:
            return
        self._next_ping = now + PING_SECONDS
        for slot in self._slots:
            worker = slot.worker
            if worker is None:
                continue
            is_late = self._stop_deadline is not None and now >= self._stop_deadline
            if is_late or worker.unanswered >= UNANSWERED_PINGS:
                self._end_hung(slot, worker)
                continue
            worker.unanswered += 1
            worker.say(PING)

    def _end_hung(self, slot: _Slot, worker: _Worker) -> None:
        if not self._was_interrupted:
            _log.error(
                "Worker %d does not respond and is killed.",
                worker.pid,
                extra={"event": "worker.hung", "worker": worker.pid},
            )
        worker.process.kill()
        worker.process.join()
        self._remove(slot, worker)

    def _remove(self, slot: _Slot, worker: _Worker) -> None:
        worker.control.close()
        worker.process.close()
        slot.worker = None


@contextlib.contextmanager
def _signals() -> Iterator[socket.socket]:
    """Give a socket on which the number of each signal arrives, so that one wait is for everything."""
    reading, writing = socket.socketpair()
    with reading, writing:
        writing.settimeout(0)
        previous = {each: signal.signal(each, lambda *_: None) for each in SIGNALS}
        previous_fd = signal.set_wakeup_fd(writing.fileno())
        try:
            yield reading
        finally:
            signal.set_wakeup_fd(previous_fd)
            for each, handler in previous.items():
                signal.signal(each, handler)
