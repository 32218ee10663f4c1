"""`GET /me` and `PATCH /me`."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from latchstring.core.accounts.schemas import UserResponse
from latchstring.core.guard.decide import GUARD_REFUSALS
from latchstring.core.guard.dependencies import CallerDep, CurrentUser
from latchstring.core.users.actions import Users
from latchstring.errors import Code
from latchstring.features.profile.schemas import ProfileChanges
from latchstring.foundation.web.context import WebContext
from latchstring.foundation.web.problem import ProblemError, refusals
from latchstring.foundation.web.route import BODY_REFUSALS


def profile_router(users: Users, web: WebContext) -> APIRouter:
    """Return `GET /me` and `PATCH /me`."""
    router = web.router(tags=["auth"])

    @router.get(
        "/me",
        operation_id="get_me",
        summary="Who is signed in",
        response_model=UserResponse,
        responses=refusals(*GUARD_REFUSALS, Code.BODY_TOO_LARGE, Code.DATABASE_UNAVAILABLE),
    )
    async def get_me(user: CurrentUser) -> Response:
        # Serialized here, once: FastAPI would validate a returned model again and serialize it more slowly.
        return Response(UserResponse.of(user).model_dump_json(), media_type="application/json")

    @router.patch(
        "/me",
        operation_id="change_me",
        summary="Change one's names",
        responses=refusals(*GUARD_REFUSALS, *BODY_REFUSALS, Code.DATABASE_UNAVAILABLE),
    )
    async def change_me(changes: ProfileChanges, request: Request, caller: CallerDep) -> UserResponse:
        # The id comes from the verified token, never from the body (CVE-2025-61928).
        user = await users.rename(
            caller.user_id,
            first_name=changes.first_name,
            last_name=changes.last_name,
            source=web.source(request),
        )
        if user is None:
            raise ProblemError(Code.USER_NOT_FOUND)
        return UserResponse.of(user)

    return router
