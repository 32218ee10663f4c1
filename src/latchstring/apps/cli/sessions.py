"""The commands `sessions list | revoke`."""

from typing import Annotated, Any
from uuid import UUID

import typer

from latchstring.apps.cli.output import Exit, JsonOption, fail, print_json, print_table
from latchstring.apps.cli.target import command_parts, find_user, run
from latchstring.core.revocations.rules import RevocationReason
from latchstring.foundation.events import OPERATOR

sessions = typer.Typer(no_args_is_help=True, help="List and revoke sessions.")


@sessions.command("list")
def list_sessions(
    who: Annotated[str, typer.Argument(metavar="EMAIL|ID", help="The user's email or id.")],
    as_json: JsonOption = False,
) -> None:
    """List a user's active sessions, the most recently used first."""

    # Never a token: whoever reads the output must not be able to act as the user.
    async def work() -> list[dict[str, Any]]:
        async with command_parts() as parts:
            user = await find_user(parts, who)
            return [
                {
                    "id": str(listed.session.id),
                    "created_at": listed.session.created_at.isoformat(),
                    "last_used_at": listed.session.rotated_at.isoformat(),
                    "expires_at": listed.session.expires_at.isoformat(),
                    "ip": listed.address,
                    "user_agent": listed.user_agent,
                    "methods": list(listed.session.methods),
                    "repeats": listed.session.repeats,
                    "repeated_elsewhere_at": elsewhere.isoformat() if elsewhere else None,
                }
                for listed in await parts.core.sessions.list_sessions(user.id)
                for elsewhere in [listed.session.repeated_elsewhere_at]
            ]

    rows = run(work())
    if as_json:
        print_json(rows)
    else:
        print_table(rows)


@sessions.command()
def revoke(
    session_id: Annotated[str | None, typer.Argument(metavar="ID", help="The session to revoke.")] = None,
    user: Annotated[str | None, typer.Option(metavar="EMAIL|ID", help="Revoke all sessions of this user.")] = None,
    everyone: Annotated[bool, typer.Option("--all", help="Revoke all sessions of all users.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Revoke one session, a user's, or everyone's, on every worker within a second. Users can sign in again."""
    # Exactly one, so that a forgotten argument never means everyone.
    if [session_id is not None, user is not None, everyone].count(True) != 1:
        fail("pass exactly one of: a session's id, --user, --all", Exit.USAGE)

    async def work() -> str:
        async with command_parts() as parts:
            if user is not None:
                found = await find_user(parts, user)
                await parts.core.sessions.revoke_sessions_of_user(
                    found.id, reason=RevocationReason.OPERATOR, source=OPERATOR
                )
                return f"all of {found.email}"
            if session_id is not None:
                if not await parts.core.sessions.revoke_session(
                    _parsed(session_id), reason=RevocationReason.OPERATOR, source=OPERATOR
                ):
                    _no_session(session_id)
                return session_id
            await parts.core.sessions.revoke_everyone(source=OPERATOR)
            return "everyone's"

    revoked = run(work())
    if as_json:
        print_json({"revoked": revoked})
    else:
        print(f"revoked {revoked}")


def _parsed(session_id: str) -> UUID:
    try:
        return UUID(session_id)
    except ValueError:
        return _no_session(session_id)


def _no_session(session_id: str) -> UUID:
    fail(f"there is no active session {session_id}", Exit.NOT_FOUND)
