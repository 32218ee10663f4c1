"""Whether a proof is recent enough. Pure; time is an argument."""

from datetime import timedelta


def is_fresh(*, proven_at_unix: int, now: float, within: timedelta) -> bool:
    """Return whether the user proved who they are no longer than `within` ago."""
    # `auth_time` and not `iat`: a refresh issues a new token without a new proof (RFC 9470).
    return now - proven_at_unix <= within.total_seconds()
