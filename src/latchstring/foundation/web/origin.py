"""Which requests of a browser may change something: Fetch metadata first, then `Origin` (ASVS 5.0, 3.5).

A client that sends neither is not a browser; for very old browsers SameSite=Lax remains.
"""

from latchstring.foundation.web.cookies import RawHeaders

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def origin_allowed(headers: RawHeaders, *, own_origin: str | None, client_origin: str | None) -> bool:
    """Return whether a request came from our own pages, from the front end, or from a client that is not a browser.

    Args:
        headers: the raw headers of the request, names in lower case.
        own_origin: the public URL; None means the request's own host over http.
        client_origin: the front end's origin, if there is one.
    """
    site = origin = host = None
    # A browser sends each of these once. A second one was added by something else, and counts as cross-site.
    for name, value in headers:
        if name == b"sec-fetch-site":
            site = value if site is None else b"cross-site"
        elif name == b"origin":
            origin = value if origin is None else b"null"
        elif name == b"host":
            host = value
    # `none` is a navigation by the user's own hand, such as a bookmark. `same-site` is not enough: a sibling subdomain
    # may belong to an attacker.
    if site in {b"same-origin", b"none"}:
        return True
    # Without `Origin`: a cross-site GET of a browser has Fetch metadata and is refused; other clients have neither.
    if origin is None:
        return site is None
    claimed = origin.decode("latin-1")
    if own_origin is None and host is not None:
        own_origin = "http://" + host.decode("latin-1")
    return claimed in {own_origin, client_origin}


def is_navigation(headers: RawHeaders) -> bool:
    """Return whether a browser opens this URL as a page, and no script, image or frame loads it."""
    sent = dict(headers)
    return sent.get(b"sec-fetch-mode") == b"navigate" and sent.get(b"sec-fetch-dest", b"document") == b"document"
