"""Requests to our routes, counted and timed, by the route's template and never by the path that was asked for."""

from collections.abc import Callable, Coroutine
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from latchstring.foundation.clock import stopwatch
from latchstring.foundation.measurements import UNMETERED, Meter, Metric

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
"""FastAPI's handler of a route: it resolves the dependencies and calls the route."""


def measured(handle: Handler, meter: Meter, *, template: str) -> Handler:
    """Return `handle` with measurements around it; without metrics `handle` itself, so that nothing is called.

    Args:
        handle: the handler of a route.
        meter: gets the measurements.
        template: the route's path as it was declared, such as `/sessions/{session_id}`.
    """
    if meter is UNMETERED:
        return handle

    async def handle_measured(request: Request) -> Response:
        began, status = stopwatch(), 500
        try:
            response = await handle(request)
            status = response.status_code
            return response
        finally:
            meter.observe(Metric.HTTP_REQUEST, stopwatch() - began, template, request.method)
            meter.count(Metric.HTTP_RESPONSES, template, request.method, f"{status // 100}xx")

    return handle_measured
