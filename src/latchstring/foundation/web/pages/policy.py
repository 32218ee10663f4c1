"""The security headers of every page: the content security policy and others (OWASP Secure Headers)."""

from collections.abc import Mapping

from starlette.responses import Response

FORM_ACTION = "form-action 'self'"
# Nothing but what is listed (`default-src 'none'`), and no inline script: injected markup on a page with a password
# field runs nothing (CVE-2024-28855, CVE-2025-67495). `frame-ancestors` is against clickjacking, `base-uri` keeps
# injected markup from redirecting relative URLs, and trusted types keep our own scripts from writing HTML.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    f"{FORM_ACTION}; frame-ancestors 'none'; base-uri 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": (
        "accelerometer=(), camera=(), geolocation=(), gyroscope=(), magnetometer=(), microphone=(), payment=(), usb=()"
    ),
    # Not `no-referrer`: browsers then send `Origin: null` with a form, and old ones have no Fetch metadata to check.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    # For browsers that do not know `frame-ancestors`.
    "X-Frame-Options": "DENY",
}
"""The headers of every page, redirects and refusals included."""


def with_headers(response: Response) -> Response:
    """Add the headers of every page to a response."""
    # A page may have a policy of its own: one that redirects to a listed URL has a wider `form-action`.
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    # After signing out, Back must not show the page from the cache.
    response.headers.setdefault("Cache-Control", "no-store")
    return response
