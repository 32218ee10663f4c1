"""The id of a request, the same in its response, in a problem document and in the audit trail."""

import secrets

from starlette.types import Scope

_KEY = "latchstring.request_id"


def request_id(scope: Scope) -> str:
    """Return the id of this request, and make one if it has none yet."""
    # Never from a header: a client could use another request's id, or write into logs (CVE-2020-7694).
    existing: str | None = scope.get(_KEY)
    if existing is None:
        existing = scope[_KEY] = secrets.token_hex(8)
    return existing
