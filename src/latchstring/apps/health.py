"""`/healthz`: the process is up. `/readyz`: whether traffic should come to this instance."""

import contextlib
from enum import StrEnum
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from latchstring.auth import Auth
from latchstring.errors import Code, UnavailableError
from latchstring.foundation.database import OWN_CAUSES, OWN_DISK_CAUSES, Database
from latchstring.foundation.web.problem import refusals
from latchstring.foundation.web.route import ProblemRoute
from latchstring.inspection import public
from latchstring.migrations import schema_is_current

DRAINING = "draining"
"""Set in the lifespan's state, and so in that of each request, once the server is stopping (`apps.shutdown`)."""

_TRY_INTERVAL_SECONDS = 5.0


class Health(BaseModel):
    """The process is up."""

    status: str


class Status(StrEnum):
    """Whether traffic should come to this instance."""

    READY = "ready"
    DEGRADED = "degraded"
    """Guards let people in, and nobody can sign in, refresh or sign out: no instance can write to the database."""
    UNAVAILABLE = "unavailable"


class Readiness(BaseModel):
    """Whether each dependency is available."""

    status: Status
    database: bool
    schema_current: bool
    keys: bool
    revocations: bool
    sign_in: bool = Field(description="Whether the database can be written to, as far as anybody has tried.")
    draining: bool = Field(description="Whether the server is stopping.")

    def http_status(self, *, requires_sign_in: bool) -> int:
        """Return the status of the response, which load balancers read."""
        is_down = self.status is Status.UNAVAILABLE or (requires_sign_in and not self.sign_in)
        return 503 if is_down else 200


class _WriteCheck:
    """Whether writes work: known from the writes that were tried, and tried again while they fail."""

    def __init__(self, auth: Auth) -> None:
        self._parts = auth.parts
        self._tried_at: float | None = None

    async def succeeds(self) -> bool:
        """Return whether writes work. At most one is tried in five seconds: the route is public."""
        writes = self._parts.tools.database.writes
        now = self._parts.tools.clock.uptime()
        # An instance that gets no traffic, because it can't write, would otherwise never learn that it can.
        if writes.is_failing and (self._tried_at is None or now - self._tried_at >= _TRY_INTERVAL_SECONDS):
            self._tried_at = now
            with contextlib.suppress(UnavailableError):
                async with self._parts.tools.database.transaction() as connection:
                    await self._parts.tools.limits.try_writing(connection)
        return not writes.is_failing


def health_router(auth: Auth) -> APIRouter:
    """Return `/healthz` and `/readyz`."""
    # Not a router that begins the background work: `/healthz` must not wait for the database.
    router = APIRouter(route_class=ProblemRoute, tags=["health"])
    write_check = _WriteCheck(auth)

    @router.get(
        "/healthz",
        operation_id="get_health",
        summary="The process is up",
        responses=refusals(Code.BODY_TOO_LARGE),
    )
    @public
    async def get_health() -> Health:
        # Reads nothing: a database that is down is no reason to restart every instance.
        return Health(status="ok")

    @router.get(
        "/readyz",
        operation_id="get_readiness",
        summary="Whether traffic should come to this instance",
        response_model=Readiness,
        responses={
            503: {"model": Readiness, "description": "Send traffic to another instance"},
            **refusals(Code.BODY_TOO_LARGE, Code.VALIDATION_FAILED),
        },
    )
    @public
    async def get_readiness(
        request: Request,
        require: Annotated[
            Literal["sign_in"] | None, Query(description="`sign_in`: respond with 503 also where nobody can sign in.")
        ] = None,
    ) -> Response:
        # Yes or no for each, without a reason: the route is public. The log has the reasons.
        draining = bool(getattr(request.state, DRAINING, False))
        readiness = await _readiness(auth, write_check, draining=draining)
        return JSONResponse(
            readiness.model_dump(mode="json"),
            status_code=readiness.http_status(requires_sign_in=require == "sign_in"),
            headers={"Cache-Control": "no-store"},
        )

    return router


async def _readiness(auth: Auth, write_check: _WriteCheck, *, draining: bool) -> Readiness:
    database = schema_current = keys = revocations = False
    with contextlib.suppress(UnavailableError):
        schema_current = await schema_is_current(auth.parts.tools.database)
        database = True
    with contextlib.suppress(UnavailableError):
        keys = bool(auth.parts.ring.current)
    with contextlib.suppress(UnavailableError):
        # While revocations are unknown, guards refuse everybody: traffic should go to another instance.
        auth.parts.core.feed.refuse_if_stale()
        revocations = True
    sign_in = database and await write_check.succeeds()
    return Readiness(
        status=_status(
            serves=all((database, schema_current, keys, revocations)) and not draining,
            sign_in=sign_in,
            is_only_here=_is_only_here(auth.parts.tools.database),
        ),
        database=database,
        schema_current=schema_current,
        keys=keys,
        revocations=revocations,
        sign_in=sign_in,
        draining=draining,
    )


def _is_only_here(database: Database) -> bool:
    # The pool is this instance's own, and so is the disk of a SQLite file: another one may do better. A PostgreSQL that
    # can't be written to is everybody's, and taking all instances away would end what still works.
    return not database.writes.causes.isdisjoint(OWN_CAUSES | (OWN_DISK_CAUSES if database.is_sqlite else set()))


def _status(*, serves: bool, sign_in: bool, is_only_here: bool) -> Status:
    if not serves or (is_only_here and not sign_in):
        return Status.UNAVAILABLE
    return Status.READY if sign_in else Status.DEGRADED
