"""Which tokens a request shows: `Authorization: Bearer`, and the cookies in force. Pure; believes nothing."""

import re
from collections.abc import Iterable

from latchstring.errors import Code, Refused
from latchstring.foundation.web.cookies import read_cookies

RawHeaders = Iterable[tuple[bytes, bytes]]

# RFC 6750, section 2.1: the scheme, at least one space, one b64token.
_BEARER = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr] +([A-Za-z0-9\-._~+/]+=*) *")


def bearer_token(headers: RawHeaders) -> str | Refused | None:
    """Return the token of the Authorization header; None where there is none, or one of another scheme."""
    values = [value for name, value in headers if name == b"authorization"]
    bearers = [value for value in values if value.lower().split()[:1] == [b"bearer"]]
    if not bearers:
        return None
    match = _BEARER.fullmatch(bearers[0])
    if match is None or len(values) > 1:
        return Refused(Code.INVALID_AUTHORIZATION_HEADER)
    return match[1].decode("ascii")


def cookie_token(headers: RawHeaders, name: bytes) -> str | Refused | None:
    """Return the one cookie of exactly this name; None where there is none or it is empty."""
    values = read_cookies(headers, name)
    if len(values) > 1:
        return Refused(Code.DUPLICATE_COOKIE)
    return values[0] if values and values[0] else None


def every_token(headers: RawHeaders, names: Iterable[bytes]) -> list[str]:
    """Return all that could be a token, malformed and duplicate ones too: whoever signs out means all of them."""
    headers = list(headers)
    shown = []
    for header, value in headers:
        if header == b"authorization":
            shown += value.decode("latin-1").replace(",", " ").split()[1:]
    return list(dict.fromkeys([*shown, *cookie_tokens(headers, names)]))


def cookie_tokens(headers: RawHeaders, names: Iterable[bytes]) -> list[str]:
    """Return every cookie of these names, duplicates too."""
    headers = list(headers)
    return [value for name in names for value in read_cookies(headers, name)]
