"""`/healthz`: the process is up. `/readyz`: what an answer depends on is there."""

import contextlib

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from latchstring.auth import Auth
from latchstring.errors import UnavailableError
from latchstring.inspection import public
from latchstring.migrations import schema_is_current


class Health(BaseModel):
    """Up."""

    status: str


class Readiness(BaseModel):
    """Whether each of them is there."""

    database: bool
    schema_current: bool
    keys: bool
    revocations: bool


def health_router(auth: Auth) -> APIRouter:
    """Return both routes."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz", operation_id="get_health", summary="The process is up")
    @public
    async def get_health() -> Health:
        return Health(status="ok")

    @router.get(
        "/readyz",
        operation_id="get_readiness",
        summary="Database, schema, keys and revocations are there",
        response_model=Readiness,
        responses={503: {"model": Readiness, "description": "Something is not there"}},
    )
    @public
    async def get_readiness() -> Response:
        state = {"database": False, "schema_current": False, "keys": False, "revocations": False}
        with contextlib.suppress(UnavailableError):
            state["schema_current"] = await schema_is_current(auth.parts.tools.database)
            state["database"] = True
        with contextlib.suppress(UnavailableError):
            state["keys"] = bool(auth.parts.ring.current)
        with contextlib.suppress(UnavailableError):
            auth.parts.core.feed.refuse_if_stale()
            state["revocations"] = True
        return JSONResponse(
            state, status_code=200 if all(state.values()) else 503, headers={"Cache-Control": "no-store"}
        )

    return router
