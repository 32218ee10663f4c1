"""Read the tokens that a request presents: `Authorization: Bearer`, and cookies. Pure; verifies nothing."""

import re
from collections.abc import Iterable

from latchstring.errors import Code, Refused
from latchstring.foundation.web.cookies import RawHeaders, read_cookies

# RFC 6750, section 2.1: the scheme, at least one space, one b64token.
_BEARER = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr] +([A-Za-z0-9\-._~+/]+=*) *")


def bearer_token(headers: RawHeaders) -> str | Refused | None:
    """Return the token of the Authorization header (RFC 6750, section 2.1).

    Returns None without a header of the Bearer scheme, and a refusal if the header is malformed or not the only one.
    """
    values = [value for name, value in headers if name == b"authorization"]
    bearers = [value for value in values if value.lower().split()[:1] == [b"bearer"]]
    if not bearers:
        return None
    # Two headers are refused: a proxy and this server might each read another one.
    match = _BEARER.fullmatch(bearers[0])
    if match is None or len(values) > 1:
        return Refused(Code.INVALID_AUTHORIZATION_HEADER)
    return match[1].decode("ascii")


def cookie_token(headers: RawHeaders, name: bytes) -> str | Refused | None:
    """Return the cookie with exactly this name; None without one, or if it is empty. Two are refused."""
    # A sibling subdomain can set a cookie of the same name beside ours, and the order in which browsers send the two is
    # not defined (PortSwigger, "Cookie Chaos", 2025).
    values = read_cookies(headers, name)
    if len(values) > 1:
        return Refused(Code.DUPLICATE_COOKIE)
    return values[0] if values and values[0] else None


def every_token(headers: RawHeaders, names: Iterable[bytes]) -> list[str]:
    """Return everything that may be a token, without duplicates, for a sign-out.

    Malformed headers and cookies sent twice are included: a sign-out revokes every session that the request names.
    """
    headers = list(headers)
    presented = []
    for header, value in headers:
        if header == b"authorization":
            presented += value.decode("latin-1").replace(",", " ").split()[1:]
    return list(dict.fromkeys([*presented, *cookie_tokens(headers, names)]))


def cookie_tokens(headers: RawHeaders, names: Iterable[bytes]) -> list[str]:
    """Return every cookie with one of these names, including duplicates."""
    headers = list(headers)
    return [value for name in names for value in read_cookies(headers, name)]
