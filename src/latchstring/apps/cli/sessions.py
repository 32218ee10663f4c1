"""`sessions list | revoke`."""

from typing import Annotated, Any
from uuid import UUID

import typer

from latchstring.apps.cli.output import Exit, JsonOption, fail, print_json, print_table
from latchstring.apps.cli.target import find_user, opened_parts, run
from latchstring.core.revocations.rules import RevocationReason
from latchstring.foundation.events import OPERATOR

sessions = typer.Typer(no_args_is_help=True, help="Look at sessions, and end them.")


@sessions.command("list")
def list_sessions(
    who: Annotated[str, typer.Argument(metavar="EMAIL|ID", help="The user's address or id.")],
    as_json: JsonOption = False,
) -> None:
    """List a user's living sessions, the one last used first."""

    async def work() -> list[dict[str, Any]]:
        async with opened_parts() as parts:
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
    session_id: Annotated[str | None, typer.Argument(metavar="ID", help="The session to end.")] = None,
    user: Annotated[str | None, typer.Option(metavar="EMAIL|ID", help="End all sessions of this user.")] = None,
    everyone: Annotated[bool, typer.Option("--all", help="End all sessions of everyone.")] = False,
    as_json: JsonOption = False,
) -> None:
    """End a session, a user's, or everyone's; every worker knows within a second. Whoever may sign in still may."""
    if [session_id is not None, user is not None, everyone].count(True) != 1:
        fail("say which: a session's id, or --user, or --all", Exit.USAGE)

    async def work() -> str:
        async with opened_parts() as parts:
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
    fail(f"there is no living session {session_id}", Exit.NOT_FOUND)
