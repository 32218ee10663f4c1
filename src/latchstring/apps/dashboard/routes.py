"""`GET /api/dashboard/dashboard`, and the same without the repetition."""

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from latchstring.apps.dashboard.schemas import Greeting
from latchstring.core.sessions.guard import GUARD_REFUSALS, CallerDep
from latchstring.errors import Code
from latchstring.foundation.web.problem import refusals
from latchstring.foundation.web.route import ProblemRoute

router = APIRouter(prefix="/api/dashboard", tags=["dashboard"], route_class=ProblemRoute)

_RESPONSES = refusals(*GUARD_REFUSALS, Code.BODY_TOO_LARGE)


@router.get("/dashboard", operation_id="get_tutorial_dashboard", response_model=Greeting, responses=_RESPONSES)
@router.get("", operation_id="get_dashboard", response_model=Greeting, responses=_RESPONSES)
async def get_dashboard(caller: CallerDep) -> Response:  # noqa: ARG001 -- the guard is the point
    """Greet a caller whose session lives."""
    return JSONResponse({"message": "Hello from the dashboard!"})
