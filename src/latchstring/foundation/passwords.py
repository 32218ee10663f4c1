"""Password hashes: Argon2id in a bounded pool of threads; the tutorial's bcrypt hashes are verified and upgraded.

A hash costs tens of milliseconds and megabytes on purpose. It never runs on the event loop. The number of hashes that
run at once is bounded by the threads, the number that wait by the queue; further ones are refused with 503.
"""

import asyncio
import base64
import logging
import os
import secrets
import sys
import threading
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self, TypeVar

import argon2
from pydantic import BaseModel, ConfigDict, Field, model_validator

from latchstring.errors import HashQueueFullError
from latchstring.foundation.clock import stopwatch
from latchstring.foundation.condition import Condition
from latchstring.foundation.measurements import UNMETERED, Meter, Metric
from latchstring.foundation.spans import span

_BCRYPT_PREFIXES = ("$2b$", "$2a$", "$2y$")
_BCRYPT_MAX_BYTES = 72
_MIN_KIB_PER_LANE = 8  # RFC 9106, section 3.1
# Hashing threads yield to the event loop's thread on Linux, where each thread has its own niceness.
_THREAD_NICENESS = 15

_Result = TypeVar("_Result")

_log = logging.getLogger(__name__)


class PasswordHashSettings(BaseModel):
    """How passwords are hashed. The defaults are OWASP's: Argon2id with 19 MiB, two passes, one lane."""

    model_config = ConfigDict(frozen=True)

    password_hash_memory_kib: int = Field(default=19_456, ge=8, le=4_194_304)
    """Memory of one hash, in KiB."""
    password_hash_passes: int = Field(default=2, ge=1, le=64)
    """Passes over the memory (Argon2's t)."""
    password_hash_lanes: int = Field(default=1, ge=1, le=16)
    """Argon2's parallelism p; one hash still runs on one thread of the pool."""
    password_hash_threads: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1, le=256)
    """How many hashes run at the same time in one process; by default one for each core."""
    password_hash_queue: int = Field(default=64, ge=0, le=10_000)
    """How many more hashes may wait; beyond that the response is 503 with Retry-After."""

    @model_validator(mode="after")
    def _enough_memory_for_the_lanes(self) -> Self:
        if self.password_hash_memory_kib < _MIN_KIB_PER_LANE * self.password_hash_lanes:
            raise ValueError(
                f"LATCHSTRING_PASSWORD_HASH_MEMORY_KIB must be at least {_MIN_KIB_PER_LANE} for each of the "
                "LATCHSTRING_PASSWORD_HASH_LANES"
            )
        return self


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of a password check: whether it matches, and a new hash to store if the old one is outdated."""

    matches: bool
    upgraded_hash: str | None = None


class PasswordHasher:
    """Hashes and verifies passwords off the event loop."""

    def __init__(self, settings: PasswordHashSettings, *, meter: Meter = UNMETERED) -> None:
        self._meter = meter
        self._argon2 = argon2.PasswordHasher(
            time_cost=settings.password_hash_passes,
            memory_cost=settings.password_hash_memory_kib,
            parallelism=settings.password_hash_lanes,
        )
        self._thread_count = settings.password_hash_threads
        self._threads: ThreadPoolExecutor | None = None
        self._capacity = settings.password_hash_threads + settings.password_hash_queue
        self._pending = 0
        self._pending_lock = threading.Lock()
        self._queueing = Condition("passwords.hashing", subject="password hashes", log=_log)
        self._decoy_hash = _decoy_hash(settings)

    async def hash(self, password: str) -> str:
        """Return the encoded Argon2id hash of `password`.

        Raises:
            HashQueueFullError: the queue is full.
        """
        return await self._run(lambda: self._argon2.hash(_normalized(password)))

    async def verify(self, password: str, encoded_hash: str | None) -> Verdict:
        """Check `password` against a stored hash; with None (no such user, no password) do equal work and refuse.

        If an outdated hash (other Argon2 parameters, or bcrypt) matches, the verdict has its replacement.

        Raises:
            HashQueueFullError: the queue is full.
        """
        return await self._run(lambda: self._verify(password, encoded_hash))

    def close(self) -> None:
        """Stop the threads and drop waiting hashes. A later call starts new threads."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None

    async def _run(self, work: Callable[[], _Result]) -> _Result:
        with self._pending_lock:
            if self._pending >= self._capacity:
                # Unbounded, a flood of sign-ins would make every later one wait longer than its client does.
                self._queueing.fails("queue_full", reason=f"{self._capacity} of them run or wait")
                self._meter.count(Metric.HASHES_REFUSED)
                raise HashQueueFullError("too many passwords wait to be hashed")
            self._pending += 1
            self._meter.gauge(Metric.HASHES_PENDING, self._pending)
            if self._threads is None:
                self._threads = ThreadPoolExecutor(
                    self._thread_count, thread_name_prefix="latchstring-hash", initializer=_yield_to_the_event_loop
                )
            threads = self._threads
        self._queueing.works()
        future = threads.submit(self._timed, work, stopwatch())
        # The permit belongs to the work, not to the request: a client that disconnects and tries again must not get
        # past the bound while its first hash still runs.
        future.add_done_callback(self._release)
        with span("latchstring.hash"):
            return await asyncio.wrap_future(future)

    def _timed(self, work: Callable[[], _Result], submitted: float) -> _Result:
        began = stopwatch()
        self._meter.observe(Metric.HASH_WAIT, began - submitted)
        try:
            return work()
        finally:
            self._meter.observe(Metric.HASH, stopwatch() - began)

    def _release(self, _future: object) -> None:
        with self._pending_lock:
            self._pending -= 1
            self._meter.gauge(Metric.HASHES_PENDING, self._pending)

    def _verify(self, password: str, encoded_hash: str | None) -> Verdict:
        if encoded_hash is None:
            # The work of a real check, so that the time does not reveal which emails have an account (CVE-2016-2513,
            # CVE-2024-39329).
            self._matches_argon2(password, self._decoy_hash)
            return Verdict(matches=False)
        if encoded_hash.startswith(_BCRYPT_PREFIXES):
            if not _matches_bcrypt(password, encoded_hash):
                return Verdict(matches=False)
            return Verdict(matches=True, upgraded_hash=self._argon2.hash(_normalized(password)))
        if not self._matches_argon2(password, encoded_hash):
            return Verdict(matches=False)
        outdated = self._argon2.check_needs_rehash(encoded_hash)
        return Verdict(matches=True, upgraded_hash=self._argon2.hash(_normalized(password)) if outdated else None)

    def _matches_argon2(self, password: str, encoded_hash: str) -> bool:
        try:
            return self._argon2.verify(encoded_hash, _normalized(password))
        except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
            return False


def _normalized(password: str) -> str:
    # NIST SP 800-63B-4, 3.1.1.2: the same password typed on another keyboard must give the same bytes. Nothing else is
    # done to it (OWASP ASVS).
    return unicodedata.normalize("NFKC", password)


def _matches_bcrypt(password: str, encoded_hash: str) -> bool:
    import bcrypt  # noqa: PLC0415 -- only installations that came from the tutorial ever need it

    # The library that made these hashes silently cut passwords at 72 bytes. bcrypt 5 raises instead, which would lock
    # their owners out.
    try:
        return bcrypt.checkpw(password.encode()[:_BCRYPT_MAX_BYTES], encoded_hash.encode())
    except ValueError:
        return False


def _decoy_hash(settings: PasswordHashSettings) -> str:
    # A well-formed hash that no password has. Made from random bytes, not by hashing: so the first unknown email costs
    # no more time than the later ones.
    salt, digest = (base64.b64encode(secrets.token_bytes(size)).rstrip(b"=").decode() for size in (16, 32))
    memory, passes = settings.password_hash_memory_kib, settings.password_hash_passes
    return f"$argon2id$v=19$m={memory},t={passes},p={settings.password_hash_lanes}${salt}${digest}"


def _yield_to_the_event_loop() -> None:
    # Hashes fill the cores for tens of milliseconds each; requests that need no hash must not wait behind them.
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _THREAD_NICENESS)
