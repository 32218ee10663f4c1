"""Settings of the limits on attempts."""

from pydantic import BaseModel, ConfigDict

from latchstring.foundation.limits.rates import Rate, RateSetting


class LimitSettings(BaseModel):
    """The limits on attempts, each as `times/period`."""

    model_config = ConfigDict(frozen=True)

    limits: bool = True
    """`off` switches all limits off, for a load test."""
    # Per account and not per endpoint or spelling of the email: else each would be a fresh limit (CVE-2025-24806).
    limit_account: RateSetting = Rate(10, 15 * 60)
    """Failed password attempts for one account, at all endpoints and for all spellings of its email together."""
    limit_address: RateSetting = Rate(100, 15 * 60)
    """Failed password attempts from one client address; an IPv6 /64 counts as one address."""
    limit_register: RateSetting = Rate(20, 60 * 60)
    """Registrations from one client address, refused ones included."""
    limit_refresh: RateSetting = Rate(60, 60)
    """Refreshes of one session, repeated responses included."""
