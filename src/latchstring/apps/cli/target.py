"""What a command works on: an `Auth` with a current schema, and a user.

The `Auth` is made from the environment's settings. With `latchstring --app MODULE:NAME …` it is the application's own.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextvars import ContextVar
from typing import Any, TypeVar
from uuid import UUID

from latchstring import Auth, Feature, Settings, User
from latchstring.apps.cli.application import auth_of, loaded
from latchstring.apps.cli.output import Exit, fail
from latchstring.apps.data_directory import prepare_data_directory
from latchstring.apps.environment import read_variables, settings_from
from latchstring.core.accounts.rules import InvalidEmailError, canonical_email
from latchstring.migrations import schema_is_current
from latchstring.wiring import Parts

_Result = TypeVar("_Result")

application: ContextVar[str | None] = ContextVar("application", default=None)
"""The value of `--app`."""


def environment_settings() -> Settings:
    """Return the settings from the environment and `.env`."""
    return settings_from(read_variables())


def chosen_auth(*, features: Iterable[Feature] = ()) -> Auth:
    """Return the `Auth` of the application that `--app` names, or else one made from the environment's settings.

    `features` are those of the latter. Most commands need none: they call actions, and no route is mounted.
    """
    app_name = application.get()
    if app_name is None:
        return Auth.from_settings(prepare_data_directory(environment_settings()), features=features)
    return auth_of(loaded(app_name))


def refuse_application(hint: str) -> None:
    """Exit with code 2 if `--app` was given; `hint` says what to do instead."""
    if application.get() is not None:
        fail(f"--app can't be used with this command: {hint}", Exit.USAGE)


@contextlib.asynccontextmanager
async def command_parts(*, features: Iterable[Feature] = ()) -> AsyncIterator[Parts]:
    """Provide the parts of the chosen `Auth` to one command, and close them afterwards; `features` as `chosen_auth`.

    Exits with code 1 if the schema is not current.
    """
    auth = chosen_auth(features=features)
    try:
        # Commands never migrate by themselves: the service may still run an older version.
        if not await schema_is_current(auth.parts.tools.database):
            fail("the database schema is not current: run latchstring migrate")
        yield auth.parts
    finally:
        await auth.close()


def run(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Run a command's coroutine."""
    return asyncio.run(work)


async def find_user(parts: Parts, who: str) -> User:
    """Return the user with an email or id; exit with code 4 if there is none."""
    try:
        user = await parts.core.users.get(UUID(who))
    except ValueError:
        try:
            user = await parts.core.users.find_by_email(canonical_email(who))
        except InvalidEmailError:
            user = None
    return user or no_user(who)


def no_user(who: str) -> User:
    """Exit with code 4, because there is no such user."""
    fail(f"there is no user {who}", Exit.NOT_FOUND)
