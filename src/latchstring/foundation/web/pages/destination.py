"""Where `next` may lead after signing in. Pure.

An open redirect makes a sign-in page useful for phishing: a link to the genuine page leads, after signing in, to a copy
of the site that asks for the password again. So `next` is a path on our own origin, or exactly one of the listed URLs
(CVE-2021-32618, CVE-2023-49438, CVE-2026-5467).
"""

import re
from collections.abc import Collection

MAX_LENGTH = 2048

# The characters of a path and a query (RFC 3986, 3.3 and 3.4). Two slashes begin an authority; browsers read a
# backslash as a slash, and remove tabs and line ends. None of these is allowed.
_LOCAL = re.compile(r"/(?![/\\])(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/?]|%[0-9A-Fa-f]{2})*")
_DOTS = re.compile(r"(?:/|%2f|%5c)(?:\.|%2e){1,2}(?=/|%2f|%5c|$)", re.IGNORECASE)


def is_allowed(destination: str, *, listed: Collection[str] = ()) -> bool:
    """Return whether a visitor may be redirected there.

    Args:
        destination: the value of `next`.
        listed: whole URLs that are allowed as well.
    """
    # Whole URLs, compared exactly: a prefix `https://app.example` would also match `https://app.example.evil`.
    if destination in listed:
        return True
    return len(destination) <= MAX_LENGTH and is_local(destination)


def is_local(destination: str) -> bool:
    """Return whether it is a path, with or without a query, that browsers resolve to this origin unchanged."""
    if _LOCAL.fullmatch(destination) is None:
        return False
    # Browsers remove dot segments (RFC 3986, 5.2.4), also encoded ones: `/.//evil.example` becomes `//evil.example`.
    return _DOTS.search(destination.partition("?")[0]) is None
