"""What tokens say that no service issued: callers, and bearers of refresh tokens, who are nobody in particular."""

from typing import Any

from latchstring.core.caller import Caller
from latchstring.core.tokens.rules import RefreshClaims
from latchstring.foundation.clock import SystemClock, new_id


def a_caller(*, now: int, **changes: Any) -> Caller:  # noqa: ANN401 -- the fields' own types
    """Returns a caller who signed in at `now`, for a quarter of an hour, with changes; another session each time."""
    moment = SystemClock().now()
    fields: dict[str, Any] = {
        "user_id": new_id(moment),
        "session_id": new_id(moment),
        "claims_version": 1,
        "epoch": 0,
        "roles": (),
        "methods": ("pwd",),
        "proven_at_unix": now,
        "issued_at_unix": now,
        "expires_at_unix": now + 900,
    }
    return Caller(**fields | changes)


def bearer_of(caller: Caller, *, generation: int = 1) -> RefreshClaims:
    """Returns what the refresh token that came along says, for an hour."""
    return RefreshClaims(
        user_id=caller.user_id,
        session_id=caller.session_id,
        issued_at_unix=caller.issued_at_unix,
        expires_at_unix=caller.issued_at_unix + 3600,
        generation=generation,
        proven=caller.proven,
    )
