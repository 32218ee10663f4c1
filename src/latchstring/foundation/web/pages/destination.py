"""Where a visitor may be sent on to after signing in: `next`. Pure.

An address somebody else chose is how a sign-in page becomes bait: it leads, signed in and unsuspecting, to a copy of
the site. So it is a path on our own origin, or one of the addresses that are listed, to the letter
(CVE-2021-32618, CVE-2023-49438, CVE-2026-5467).
"""

import re
from collections.abc import Collection

MAX_LENGTH = 2048

# RFC 3986, what a path and a query are made of. Two slashes begin an authority, and browsers take a backslash for a
# slash and leave out tabs and line ends: none of these is here.
_LOCAL = re.compile(r"/(?![/\\])(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/?]|%[0-9A-Fa-f]{2})*")
_DOTS = re.compile(r"(?:/|%2f|%5c)(?:\.|%2e){1,2}(?=/|%2f|%5c|$)", re.IGNORECASE)


def is_allowed(destination: str, *, listed: Collection[str] = ()) -> bool:
    """Tell whether a visitor may be sent there.

    Args:
        destination: what came as `next`.
        listed: whole addresses that are allowed as well.
    """
    if destination in listed:
        return True
    return len(destination) <= MAX_LENGTH and is_local(destination)


def is_local(destination: str) -> bool:
    """Tell whether it is a path, perhaps with a query, that stays on this origin and means what it says."""
    if _LOCAL.fullmatch(destination) is None:
        return False
    # A browser takes dots away before it goes there: `/.//evil.example` would begin with two slashes.
    return _DOTS.search(destination.partition("?")[0]) is None
