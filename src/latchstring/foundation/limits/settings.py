"""How often what may be tried."""

from pydantic import BaseModel, ConfigDict

from latchstring.foundation.limits.rates import Rate, RateSetting


class LimitSettings(BaseModel):
    """How often what may be tried, each as `times/period`."""

    model_config = ConfigDict(frozen=True)

    limits: bool = True
    """`off` for a load test."""
    limit_account: RateSetting = Rate(10, 15 * 60)
    """Failed proofs of one account's password, whichever door they are tried at and however the address is spelled."""
    limit_address: RateSetting = Rate(100, 15 * 60)
    """The same from one network address; of IPv6 a whole /64 is one."""
    limit_register: RateSetting = Rate(20, 60 * 60)
    """Registrations from one network address, those refused included."""
    limit_refresh: RateSetting = Rate(60, 60)
    """Refreshes of one session, repeated answers included."""
