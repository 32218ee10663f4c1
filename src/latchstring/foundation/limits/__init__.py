"""Limits on attempts, in the database, so that all workers and instances share them.

    reservation = await limits.reserve_sign_in(connection, account=…, address=…)   # before the hash
    …                                                                              # the hash, with no connection held
    await limits.release(connection, reservation)                                  # if the password was right

Each attempt takes a slot in the account's window and one in the client address's window. If a window is full, the
attempt is refused before anything is hashed, and takes no slot. A successful attempt releases its own slots and no
others: a success in between does not reset what an attacker has used up (allauth 65.8.1). Attempts for one window take
their slots one after the other, so that parallel guesses do not get more slots than there are.

The windows slide: no period of fifteen minutes has more failures than the rate allows. A full window is not queried
again for a second, so that a flood of attempts on a locked account costs other users nothing.
"""

from latchstring.foundation.limits.limits import Limits, Reservation
from latchstring.foundation.limits.rates import Rate, RateSetting
from latchstring.foundation.limits.settings import LimitSettings
from latchstring.foundation.limits.store import prune_limits

__all__ = ["LimitSettings", "Limits", "Rate", "RateSetting", "Reservation", "prune_limits"]
