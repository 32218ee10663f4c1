"""Which requests of a browser may change something: Fetch metadata first, then Origin (ASVS 5.0, 3.5).

A client that sends neither is no browser, and SameSite=Lax lies beneath for one that is very old.
"""

from collections.abc import Iterable

RawHeaders = Iterable[tuple[bytes, bytes]]

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def origin_allowed(headers: RawHeaders, *, own_origin: str | None, client_origin: str | None) -> bool:
    """Tell whether a request came from our own pages, from the front end, or from no browser at all.

    Args:
        headers: the raw headers of the request, names in lower case.
        own_origin: the public URL; None means the request's own host, by http.
        client_origin: the front end's origin, if there is one.
    """
    site = origin = host = None
    # Two headers of one name are no browser's doing: a second one never mends the first.
    for name, value in headers:
        if name == b"sec-fetch-site":
            site = value if site is None else b"cross-site"
        elif name == b"origin":
            origin = value if origin is None else b"null"
        elif name == b"host":
            host = value
    if site in {b"same-origin", b"none"}:
        return True
    if origin is None:
        return site is None
    claimed = origin.decode("latin-1")
    if own_origin is None and host is not None:
        own_origin = "http://" + host.decode("latin-1")
    return claimed in {own_origin, client_origin}


def is_navigation(headers: RawHeaders) -> bool:
    """Tell whether a browser is going to this address as a page, rather than a script or an image loading it."""
    sent = dict(headers)
    return sent.get(b"sec-fetch-mode") == b"navigate" and sent.get(b"sec-fetch-dest", b"document") == b"document"
