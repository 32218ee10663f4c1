"""What most commands begin with: an Auth on a database with a schema, a user.

The Auth is that of the environment's settings, or, with `latchstring --app MODULE:NAME …`, the application's own.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from contextvars import ContextVar
from typing import Any, TypeVar
from uuid import UUID

from latchstring import Auth, Settings, User
from latchstring.apps.cli.application import auth_of, loaded
from latchstring.apps.cli.output import Exit, fail
from latchstring.apps.data_directory import prepare_data_directory
from latchstring.apps.environment import read_variables, settings_from
from latchstring.core.accounts.rules import InvalidEmailError, canonical_email
from latchstring.migrations import schema_is_current
from latchstring.wiring import Parts

_Result = TypeVar("_Result")


application: ContextVar[str | None] = ContextVar("application", default=None)
"""What `--app` names."""


def environment_settings() -> Settings:
    """Return the settings that the environment and `.env` describe."""
    return settings_from(read_variables())


def chosen_auth() -> Auth:
    """Return the Auth that is meant: the application's that `--app` names, or else the environment's."""
    named = application.get()
    if named is None:
        return Auth.from_settings(prepare_data_directory(environment_settings()), features=())
    return auth_of(loaded(named))


def refuse_application(words: str) -> None:
    """End with exit code 2, saying what to do instead, where `--app` was given."""
    if application.get() is not None:
        fail(f"--app does not go with this command: {words}", Exit.USAGE)


@contextlib.asynccontextmanager
async def opened_parts() -> AsyncIterator[Parts]:
    """Open the parts of the Auth that is meant for one command."""
    auth = chosen_auth()
    try:
        if not await schema_is_current(auth.parts.tools.database):
            fail("the database's schema is not current: run latchstring migrate")
        yield auth.parts
    finally:
        await auth.close()


def run(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Run a command's coroutine."""
    return asyncio.run(work)


async def find_user(parts: Parts, who: str) -> User:
    """Read a user by address or id; end with exit code 4 where there is none."""
    try:
        user = await parts.core.users.get(UUID(who))
    except ValueError:
        try:
            user = await parts.core.users.find_by_email(canonical_email(who))
        except InvalidEmailError:
            user = None
    return user or no_user(who)


def no_user(who: str) -> User:
    """Say that there is no such user, and end."""
    fail(f"there is no user {who}", Exit.NOT_FOUND)
