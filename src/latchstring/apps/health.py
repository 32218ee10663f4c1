"""`/healthz`: the process is up. `/readyz`: database, schema, keys and revocations are available."""

import contextlib

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from latchstring.auth import Auth
from latchstring.errors import UnavailableError
from latchstring.inspection import public
from latchstring.migrations import schema_is_current


class Health(BaseModel):
    """The process is up."""

    status: str


class Readiness(BaseModel):
    """Whether each dependency is available."""

    database: bool
    schema_current: bool
    keys: bool
    revocations: bool


def health_router(auth: Auth) -> APIRouter:
    """Return `/healthz` and `/readyz`."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz", operation_id="get_health", summary="The process is up")
    @public
    async def get_health() -> Health:
        # Reads nothing: a database that is down is no reason to restart every instance.
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
        # Yes or no for each, without a reason: the route is public.
        state = {"database": False, "schema_current": False, "keys": False, "revocations": False}
        with contextlib.suppress(UnavailableError):
            state["schema_current"] = await schema_is_current(auth.parts.tools.database)
            state["database"] = True
        with contextlib.suppress(UnavailableError):
            state["keys"] = bool(auth.parts.ring.current)
        with contextlib.suppress(UnavailableError):
            # While revocations are unknown, guards refuse everybody: traffic should go to another instance.
            auth.parts.core.feed.refuse_if_stale()
            state["revocations"] = True
        return JSONResponse(
            state, status_code=200 if all(state.values()) else 503, headers={"Cache-Control": "no-store"}
        )

    return router
