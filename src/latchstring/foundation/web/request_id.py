"""The id of a request, in its answer, in a problem and in the audit trail, so that one leads to the others."""

import secrets

from starlette.types import Scope

_KEY = "latchstring.request_id"


def request_id(scope: Scope) -> str:
    """Return the id of this request, giving it one first where it has none. A visitor's own is never taken over."""
    known: str | None = scope.get(_KEY)
    if known is None:
        known = scope[_KEY] = secrets.token_hex(8)
    return known
