"""Limits on guessing, in the database, so that all workers and instances share them.

    reservation = await limits.reserve_sign_in(connection, account=…, address=…)     before the hash
    …the password is checked, with no connection held…
    await limits.release(connection, reservation)                                where it was right

Each try takes a slot in the account's window and in the address's; where one is full, the try is refused before
anything is hashed, and takes no slot. Tries that turn out right give theirs back, and no others': a success in
between does not reset what an attacker has used up (allauth 65.8.1). A slot is taken in one transaction, one try after
the other, so that parallel guesses get no more of them than there are.

The windows slide: in any fifteen minutes, wherever they begin, there are no more failures than the rate says. A window
that was found full is not asked about again for a second: whoever floods a locked account costs everybody else nothing.
"""

from latchstring.foundation.limits.limits import Limits, Reservation
from latchstring.foundation.limits.rates import Rate, RateSetting
from latchstring.foundation.limits.settings import LimitSettings
from latchstring.foundation.limits.store import prune_limits

__all__ = ["LimitSettings", "Limits", "Rate", "RateSetting", "Reservation", "prune_limits"]
