"""`users create | list | show | disable | enable | grant | withdraw | delete`."""

import sys
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from latchstring import User
from latchstring.apps.cli.output import Exit, JsonOption, fail, print_json, print_record, print_table
from latchstring.apps.cli.target import find_user, no_user, opened_parts, run
from latchstring.core.accounts.rules import InvalidRoleError
from latchstring.errors import Refused
from latchstring.features.password.actions import Passwords
from latchstring.features.password.schemas import Registration
from latchstring.foundation.events import OPERATOR

users = typer.Typer(no_args_is_help=True, help="Manage users.")

Who = Annotated[str, typer.Argument(metavar="EMAIL|ID", help="The user's address or id.")]
Role = Annotated[str, typer.Argument(help="The role's name.")]
_PAGE = 1000


@users.command()
def create(
    email: Annotated[str, typer.Argument(help="The user's address.")],
    first_name: Annotated[str, typer.Option(help="First name.")],
    last_name: Annotated[str, typer.Option(help="Last name.")],
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Create a user. The password is asked for, or read from standard input."""
    password = _password(from_stdin=password_stdin)
    try:
        registration = Registration.model_validate(
            {
                "first_name": first_name,
                "last_name": last_name,
                "email": email,
                "password": password,
                "passwordConfirm": password,
            }
        )
    except ValidationError as error:
        problem = error.errors(include_input=False)[0]
        fail(f"{problem['loc'][0]}: {problem['msg'].removeprefix('Value error, ')}", Exit.USAGE)

    async def work() -> User | Refused:
        async with opened_parts() as parts:
            passwords = Passwords(
                parts.tools.database,
                parts.tools.clock,
                parts.tools.passwords,
                parts.tools.limits,
                sign_in=parts.core.sign_in,
            )
            return await passwords.create_user(
                email=registration.email,
                first_name=registration.first_name,
                last_name=registration.last_name,
                password=registration.password.get_secret_value(),
                source=OPERATOR,
            )

    outcome = run(work())
    if isinstance(outcome, Refused):
        fail("an account by that address is registered already", Exit.CONFLICT)
    _show(outcome, as_json=as_json)


@users.command("list")
def list_users(as_json: JsonOption = False) -> None:
    """List all users, in the order they came."""

    async def work() -> list[User]:
        found: list[User] = []
        async with opened_parts() as parts:
            while page := await parts.core.users.list(after=found[-1].id if found else None, limit=_PAGE):
                found += page
        return found

    rows = [_record(user) for user in run(work())]
    if as_json:
        print_json(rows)
    else:
        print_table(rows)


@users.command()
def show(who: Who, as_json: JsonOption = False) -> None:
    """Show one user."""

    async def work() -> User:
        async with opened_parts() as parts:
            return await find_user(parts, who)

    _show(run(work()), as_json=as_json)


@users.command()
def disable(who: Who, as_json: JsonOption = False) -> None:
    """Shut a user out: sessions end everywhere within a second, and no sign-in succeeds."""

    async def work() -> User:
        async with opened_parts() as parts:
            user = await parts.core.users.disable((await find_user(parts, who)).id, source=OPERATOR)
            return user or no_user(who)

    _show(run(work()), as_json=as_json)


@users.command()
def enable(who: Who, as_json: JsonOption = False) -> None:
    """Let a disabled user sign in again."""

    async def work() -> User:
        async with opened_parts() as parts:
            user = await parts.core.users.enable((await find_user(parts, who)).id, source=OPERATOR)
            return user or no_user(who)

    _show(run(work()), as_json=as_json)


@users.command()
def grant(who: Who, role: Role, as_json: JsonOption = False) -> None:
    """Give a user a role; within a second their tokens are refused, until they are refreshed and say so."""

    async def work() -> User:
        async with opened_parts() as parts:
            found = await find_user(parts, who)
            try:
                user = await parts.core.users.grant_role(found.id, role, source=OPERATOR)
            except InvalidRoleError as error:
                fail(str(error), Exit.USAGE)
            return user or no_user(who)

    _show(run(work()), as_json=as_json)


@users.command()
def withdraw(who: Who, role: Role, as_json: JsonOption = False) -> None:
    """Take a role from a user; within a second no token that says so is believed any more."""

    async def work() -> User:
        async with opened_parts() as parts:
            user = await parts.core.users.withdraw_role((await find_user(parts, who)).id, role, source=OPERATOR)
            return user or no_user(who)

    _show(run(work()), as_json=as_json)


@users.command()
def delete(
    who: Who,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete a user for good: sessions end everywhere, and the address is free."""
    if not yes:
        if not sys.stdin.isatty():
            fail("nobody is there to ask: say --yes", Exit.USAGE)
        typer.confirm(f"Delete {who} for good?", abort=True, err=True)

    async def work() -> User:
        async with opened_parts() as parts:
            user = await find_user(parts, who)
            return user if await parts.core.users.delete(user.id, source=OPERATOR) else no_user(who)

    user = run(work())
    if as_json:
        print_json({"deleted": str(user.id)})
    else:
        print(f"deleted {user.email}")


def _password(*, from_stdin: bool) -> str:
    if from_stdin:
        try:
            return sys.stdin.buffer.readline().decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            fail("the password must be text in UTF-8", Exit.USAGE)
    if not sys.stdin.isatty():
        fail("nobody is there to ask for the password: say --password-stdin", Exit.USAGE)
    password: str = typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    return password


def _show(user: User, *, as_json: bool) -> None:
    if as_json:
        print_json(_record(user))
    else:
        print_record(_record(user))


def _record(user: User) -> dict[str, Any]:
    return {
        "id": str(user.id),
        "email": user.email,
        "first_name": user.first_name,
        "last_name": user.last_name,
        "created_at": user.created_at.isoformat(),
        "email_verified": user.email_verified,
        "disabled": user.is_disabled,
        "roles": list(user.roles),
    }
