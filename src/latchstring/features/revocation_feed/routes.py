"""`GET /revocations` over HTTP."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.openapi.models import HTTPBearer as HTTPBearerModel
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection
from starlette.responses import Response

from latchstring.core.guard.credentials import bearer_token
from latchstring.core.revocations.feed import RevocationFeed
from latchstring.core.revocations.schemas import FeedPageResponse
from latchstring.errors import Code, Refused
from latchstring.features.revocation_feed.actions import FeedTokens
from latchstring.foundation.web.context import WebContext
from latchstring.foundation.web.problem import ProblemError, refusals

Cursor = Annotated[str | None, Query(pattern=r"^[0-9]{1,18}(-[0-9]{1,18})?$", description="From the answer before.")]


class _Follower(SecurityBase):
    """Lets in who shows a feed token."""

    allows_anonymous = False

    def __init__(self, tokens: FeedTokens) -> None:
        self._tokens = tokens
        self.model = HTTPBearerModel(description="What `latchstring feed-token create` printed.")
        self.scheme_name = "feedToken"

    async def __call__(self, connection: HTTPConnection) -> None:
        token = bearer_token(connection.scope["headers"])
        if isinstance(token, Refused):
            raise ProblemError(token.code)
        if token is None or not await self._tokens.admits(token):
            raise ProblemError(Code.FEED_TOKEN_REQUIRED, token_sent=token is not None)


def revocations_router(feed: RevocationFeed, tokens: FeedTokens, web: WebContext) -> APIRouter:
    """Return the route that services poll."""
    router = web.router(tags=["revocations"], dependencies=[Depends(_Follower(tokens))])

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
        """What a service has to know to refuse the tokens of sessions that ended, and of keys that were stolen.

        Ask again with the `cursor`: at once while there is `more`, and twice a second after that. Without `after`, and
        where it can't be gone on from, everything is told anew (`resync`): forget what you knew.
        """
        page = FeedPageResponse.model_validate(await feed.page(after))
        return Response(page.model_dump_json(), media_type="application/json")

    return router
