"""The commands `users create | list | show | disable | enable | grant | withdraw | delete`."""

import sys
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from latchstring import User
from latchstring.apps.cli.output import Exit, JsonOption, fail, print_json, print_record, print_table
from latchstring.apps.cli.target import command_parts, find_user, no_user, run
from latchstring.core.accounts.rules import InvalidRoleError
from latchstring.errors import Refused
from latchstring.features.password.actions import Passwords
from latchstring.features.password.schemas import Registration
from latchstring.foundation.events import OPERATOR

users = typer.Typer(no_args_is_help=True, help="Manage users.")

Who = Annotated[str, typer.Argument(metavar="EMAIL|ID", help="The user's email or id.")]
Role = Annotated[str, typer.Argument(help="The name of the role.")]
# Read in pages: a single query for all users would run into the database's timeout.
_PAGE = 1000


@users.command()
def create(
    email: Annotated[str, typer.Argument(help="The user's email.")],
    first_name: Annotated[str, typer.Option(help="First name.")],
    last_name: Annotated[str, typer.Option(help="Last name.")],
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Create a user. The password is prompted for, or read from standard input."""
    # No `--password VALUE`: every user of the machine could read it in the list of processes.
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
        # Without the input: the message goes to the terminal, and the input may be the password.
        problem = error.errors(include_input=False)[0]
        fail(f"{problem['loc'][0]}: {problem['msg'].removeprefix('Value error, ')}", Exit.USAGE)

    outcome = run(_created(registration))
    if isinstance(outcome, Refused):
        fail("an account with this email is registered already", Exit.CONFLICT)
    _show(outcome, as_json=as_json)


async def _created(registration: Registration) -> User | Refused:
    async with command_parts() as parts:
        tools = parts.tools
        passwords = Passwords(tools.database, tools.clock, tools.passwords, tools.limits, sign_in=parts.core.sign_in)
        return await passwords.create_user(
            email=registration.email,
            first_name=registration.first_name,
            last_name=registration.last_name,
            password=registration.password.get_secret_value(),
            source=OPERATOR,
        )


@users.command("list")
def list_users(as_json: JsonOption = False) -> None:
    """List all users, the oldest first."""

    async def work() -> list[User]:
        listed: list[User] = []
        async with command_parts() as parts:
            # By the last id of the page before, not by an offset: users who register meanwhile shift nothing.
            while page := await parts.core.users.list(after=listed[-1].id if listed else None, limit=_PAGE):
                listed += page
        return listed

    rows = [_record(user) for user in run(work())]
    if as_json:
        print_json(rows)
    else:
        print_table(rows)


@users.command()
def show(who: Who, as_json: JsonOption = False) -> None:
    """Show one user."""

    async def work() -> User:
        async with command_parts() as parts:
            return await find_user(parts, who)

    _show(run(work()), as_json=as_json)


@users.command()
def disable(who: Who, as_json: JsonOption = False) -> None:
    """Disable a user: all sessions end within a second, and sign-in is refused."""

    async def work() -> User:
        async with command_parts() as parts:
            user = await parts.core.users.disable((await find_user(parts, who)).id, source=OPERATOR)
            return user or no_user(who)

    _show(run(work()), as_json=as_json)


@users.command()
def enable(who: Who, as_json: JsonOption = False) -> None:
    """Let a disabled user sign in again."""

    async def work() -> User:
        async with command_parts() as parts:
            user = await parts.core.users.enable((await find_user(parts, who)).id, source=OPERATOR)
            return user or no_user(who)

    _show(run(work()), as_json=as_json)


@users.command()
def grant(who: Who, role: Role, as_json: JsonOption = False) -> None:
    """Grant a user a role. Within a second their old access tokens are refused; refreshed ones have the role."""

    async def work() -> User:
        async with command_parts() as parts:
            found = await find_user(parts, who)
            try:
                user = await parts.core.users.grant_role(found.id, role, source=OPERATOR)
            except InvalidRoleError as error:
                fail(str(error), Exit.USAGE)
            return user or no_user(who)

    _show(run(work()), as_json=as_json)


@users.command()
def withdraw(who: Who, role: Role, as_json: JsonOption = False) -> None:
    """Withdraw a role from a user. Within a second, access tokens that still have it are refused."""

    async def work() -> User:
        async with command_parts() as parts:
            user = await parts.core.users.withdraw_role((await find_user(parts, who)).id, role, source=OPERATOR)
            return user or no_user(who)

    _show(run(work()), as_json=as_json)


@users.command()
def delete(
    who: Who,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete a user permanently: all sessions end, and the email can be registered again."""
    if not yes:
        # Without a terminal a prompt would wait for ever, in a cron job for instance.
        if not sys.stdin.isatty():
            fail("confirmation needs a terminal: pass --yes", Exit.USAGE)
        typer.confirm(f"Delete {who} for good?", abort=True, err=True)

    async def work() -> User:
        async with command_parts() as parts:
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
            # Only the line end is cut off: blanks may belong to the password. In UTF-8 whatever the terminal's locale.
            return sys.stdin.buffer.readline().decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            fail("the password on standard input must be UTF-8 text", Exit.USAGE)
    if not sys.stdin.isatty():
        fail("the password prompt needs a terminal: pass --password-stdin", Exit.USAGE)
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
