"""`GET /api/dashboard/dashboard`, the tutorial's path, and `GET /api/dashboard`."""

from fastapi import FastAPI
from starlette.responses import Response

from latchstring.apps.dashboard.schemas import GREETING, Greeting
from latchstring.core.guard.decide import GUARD_REFUSALS
from latchstring.core.guard.dependencies import CallerDep
from latchstring.errors import Code
from latchstring.foundation.web.problem import refusals
from latchstring.foundation.web.route import ProblemRoute

# Serialized once: the route is also the one by which the cost of a guard is measured.
_BODY = GREETING.model_dump_json()


async def get_dashboard(caller: CallerDep) -> Response:  # noqa: ARG001 -- the guard is the point
    """Return a greeting to a caller with an active session."""
    return Response(_BODY, media_type="application/json")


def add_dashboard(app: FastAPI) -> None:
    """Add the protected route at the tutorial's path, and at a shorter one without the repetition."""
    for path, operation_id in (("/dashboard", "get_tutorial_dashboard"), ("", "get_dashboard")):
        app.router.add_api_route(
            "/api/dashboard" + path,
            get_dashboard,
            operation_id=operation_id,
            tags=["dashboard"],
            response_model=Greeting,
            responses=refusals(*GUARD_REFUSALS, Code.BODY_TOO_LARGE),
            route_class_override=ProblemRoute,
        )
