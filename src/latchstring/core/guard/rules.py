"""Whether a proof is recent enough. Pure; the time is passed in."""

from datetime import timedelta


def is_fresh(*, proven_at_unix: int, now: float, within: timedelta) -> bool:
    """Tell whether the user proved who they are no longer than `within` ago."""
    return now - proven_at_unix <= within.total_seconds()
