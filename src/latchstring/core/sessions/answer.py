"""What every sign-in ends with: both cookies, and the user in JSON or a page to go on to."""

from starlette.responses import Response

from latchstring.core.accounts.schemas import UserResponse
from latchstring.core.sessions.actions import SignedIn
from latchstring.foundation.clock import Clock
from latchstring.foundation.web.edge import Edge


class SignedInAnswer:
    """Turns a `SignedIn` into an answer."""

    def __init__(self, edge: Edge, clock: Clock) -> None:
        self._edge = edge
        self._clock = clock

    def __call__(self, signed_in: SignedIn, *, status: int = 200) -> Response:
        """Return the user's JSON, with both cookies."""
        user = UserResponse.of(signed_in.user).model_dump_json()
        response = Response(user, status_code=status, media_type="application/json")
        self.put_cookies(response, signed_in)
        return response

    def put_cookies(self, response: Response, signed_in: SignedIn) -> None:
        """Put both cookies on an answer."""
        now = int(self._clock.now().timestamp())
        tokens = signed_in.tokens
        self._edge.cookies.set(
            response,
            access=(tokens.access, max(tokens.access_expires_at_unix - now, 0)),
            refresh=(tokens.refresh, max(tokens.refresh_expires_at_unix - now, 0)),
        )
