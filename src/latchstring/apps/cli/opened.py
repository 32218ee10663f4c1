"""What most commands begin with: the settings of the environment, an Auth on a database with a schema, a user."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar
from uuid import UUID

from latchstring import Auth, Settings, User
from latchstring.apps.cli.output import Exit, fail
from latchstring.apps.environment import read_variables, settings_from
from latchstring.apps.home import move_in
from latchstring.apps.migrations import schema_is_current
from latchstring.core.accounts.rules import InvalidEmailError, canonical_email

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


async def find_user(auth: Auth, who: str) -> User:
    """Read a user by address or id; end with exit code 4 where there is none."""
    try:
        user = await auth.accounts.user(UUID(who))
    except ValueError:
        try:
            user = await auth.accounts.user_with_email(canonical_email(who))
        except InvalidEmailError:
            user = None
    return user or no_user(who)


def no_user(who: str) -> User:
    """Say that there is no such user, and end."""
    fail(f"there is no user {who}", Exit.NOT_FOUND)
