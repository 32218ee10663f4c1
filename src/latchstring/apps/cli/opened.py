"""What most commands begin with: the settings of the environment, and an Auth on a database with a schema."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

from latchstring import Auth, Settings
from latchstring.apps.cli.output import fail
from latchstring.apps.environment import read_variables, settings_from
from latchstring.apps.home import move_in
from latchstring.apps.migrations import schema_is_current

_Result = TypeVar("_Result")


def environment_settings() -> Settings:
    """Return the settings that the environment and `.env` describe."""
    return settings_from(read_variables())


@contextlib.asynccontextmanager
async def opened_auth() -> AsyncIterator[Auth]:
    """Open the environment's Auth for one command."""
    auth = Auth(move_in(environment_settings()), features=())
    try:
        if not await schema_is_current(auth.database):
            fail("the database's schema is not current: run latchstring migrate")
        yield auth
    finally:
        await auth.close()


def run(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Run a command's coroutine."""
    return asyncio.run(work)
