"""The watched server, watched from its start on: what is read before it is ready is seen, too.

uvicorn --factory benchmarks.watched_start:create_app
"""

import asyncio

from starlette.types import ASGIApp, Receive, Scope, Send

from benchmarks.watched import Watched
from latchstring.apps.server import create_app as create_server


class WatchedFromTheStart(Watched):
    """An application beside a task that watches its loop, begun with the application."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Begin to watch; then answer `/held`, and pass on everything else."""
        if self._task is None:
            self._task = asyncio.create_task(self._watch())
        await super().__call__(scope, receive, send)


def create_app() -> ASGIApp:
    """Return the application that the environment describes, watched."""
    return WatchedFromTheStart(create_server())
