"""A clock that stands still until a test turns it."""

from datetime import UTC, datetime, timedelta


class TurnedClock:
    """Starts at the present, with half a second on it, so that nothing can depend on whole seconds."""

    def __init__(self) -> None:
        self._now = datetime.now(UTC).replace(microsecond=500_000)
        self._uptime = 1_000.0

    def now(self) -> datetime:
        return self._now

    def uptime(self) -> float:
        return self._uptime

    def turn(self, *, seconds: float = 0, minutes: float = 0, days: float = 0) -> None:
        """Moves the time of day, forward or back. A worker goes on following the database meanwhile."""
        self._now += timedelta(seconds=seconds, minutes=minutes, days=days)

    def suspend(self, *, seconds: float) -> None:
        """Lets the machine sleep: time passes, and no worker looks at anything."""
        self.turn(seconds=seconds)
        self._uptime += seconds
