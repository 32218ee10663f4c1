"""`GET /revocations`."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.openapi.models import HTTPBearer as HTTPBearerModel
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection
from starlette.responses import Response

from latchstring.core.guard.credentials import bearer_token
from latchstring.core.revocations.cursor import CURSOR_PATTERN
from latchstring.core.revocations.feed import RevocationFeed
from latchstring.core.revocations.schemas import FeedPageResponse
from latchstring.errors import Code, Refused
from latchstring.features.revocation_feed.actions import FeedTokens
from latchstring.foundation.web.context import WebContext
from latchstring.foundation.web.problem import ProblemError, refusals

Cursor = Annotated[
    str | None,
    Query(pattern=rf"^{CURSOR_PATTERN}(-[0-9]{{1,18}})?$", description="The `cursor` of the previous response."),
]


class _FeedTokenGuard(SecurityBase):
    """A guard that requires a feed token."""

    # The doctor takes a dependency with this attribute for a guard.
    allows_anonymous = False

    def __init__(self, tokens: FeedTokens) -> None:
        self._tokens = tokens
        self.model = HTTPBearerModel(description="The token that `latchstring feed-token create` printed.")
        self.scheme_name = "feedToken"

    async def __call__(self, connection: HTTPConnection) -> None:
        # Only the header: a token in the query string ends up in logs and in browser histories (RFC 6750, 5.3).
        token = bearer_token(connection.scope["headers"])
        if isinstance(token, Refused):
            raise ProblemError(token.code)
        if token is None or not await self._tokens.admits(token):
            raise ProblemError(Code.FEED_TOKEN_REQUIRED, token_sent=token is not None)


def revocations_router(feed: RevocationFeed, tokens: FeedTokens, web: WebContext) -> APIRouter:
    """Return `GET /revocations`, which other services poll."""
    router = web.router(tags=["revocations"], dependencies=[Depends(_FeedTokenGuard(tokens))])

    @router.get(
        "/revocations",
        operation_id="get_revocations",
        summary="What has ended since",
        response_model=FeedPageResponse,
        responses=refusals(
            Code.BODY_TOO_LARGE,
            Code.DATABASE_UNAVAILABLE,
            Code.FEED_TOKEN_REQUIRED,
            Code.INVALID_AUTHORIZATION_HEADER,
            Code.REVOCATIONS_UNKNOWN,
            Code.VALIDATION_FAILED,
        ),
    )
    async def get_revocations(after: Cursor = None) -> Response:
        """Return what a service must know to refuse the tokens of ended sessions and of stolen keys.

        Poll with the `cursor` of the previous response: at once while `more` is true, then twice a second. Without
        `after`, or when the cursor can't be continued, the feed starts again (`resync`): discard what you have stored.
        """
        # One bounded page per response: a follower that was away for long must not hold a connection for all of it.
        page = FeedPageResponse.model_validate(await feed.page(after))
        return Response(page.model_dump_json(), media_type="application/json")

    return router
