"""Conditions: what works or fails, logged when it changes.

During an outage a thousand requests fail for one reason. An operator gets one line when it begins, one for each further
cause, and one when it is over.
"""

import logging
from collections.abc import Callable

from latchstring.foundation.clock import SystemClock

SETTLING_SECONDS = 5.0
"""How long nothing may have failed before a condition counts as over: a pool that is full fails every other request."""

_CLOCK = SystemClock()


class Condition:
    """Whether something works, and since when not."""

    def __init__(
        self,
        name: str,
        *,
        subject: str,
        log: logging.Logger,
        count: Callable[[str], None] = lambda _: None,
        uptime: Callable[[], float] = _CLOCK.uptime,
    ) -> None:
        """Begin as working.

        Args:
            name: the first part of the names of the log events, `NAME_failing` and `NAME_restored`.
            subject: what works or fails, in the plural, as a log line begins: "writes to the database".
            log: the logger to use.
            count: is called with the cause of each failure.
            uptime: seconds on a clock that never steps.
        """
        self._name = name
        self._subject = subject
        self._log = log
        self._count = count
        self._uptime = uptime
        self._causes: set[str] = set()
        self._failed_at = 0.0

    @property
    def is_failing(self) -> bool:
        """Whether it fails, as far as anybody has tried."""
        return bool(self._causes)

    @property
    def causes(self) -> frozenset[str]:
        """Why it has failed since it last worked."""
        return frozenset(self._causes)

    def fails(self, cause: str, *, reason: str) -> None:
        """Note a failure; log it, if it is the first one of its cause.

        Args:
            cause: a short stable name, for programs.
            reason: the same for people, as a clause.
        """
        self._failed_at = self._uptime()
        self._count(cause)
        if cause in self._causes:
            return
        self._causes.add(cause)
        self._log.warning(
            "%s fail: %s", self._subject, reason, extra={"event": f"{self._name}_failing", "cause": cause}
        )

    def works(self) -> None:
        """Note a success; log it, if it ends a time of failures."""
        # First, because it is asked after every transaction.
        if not self._causes or self._uptime() - self._failed_at < SETTLING_SECONDS:
            return
        self._causes.clear()
        self._log.warning("%s work again", self._subject, extra={"event": f"{self._name}_restored"})
