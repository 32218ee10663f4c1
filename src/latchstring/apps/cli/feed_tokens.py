"""The commands `feed-token create | list | revoke`."""

from typing import Annotated

import typer

from latchstring.apps.cli.output import Exit, JsonOption, fail, print_json, print_table, say
from latchstring.apps.cli.target import command_parts, run
from latchstring.features.revocation_feed.actions import FeedTokens
from latchstring.features.revocation_feed.store import FeedToken
from latchstring.foundation.events import OPERATOR
from latchstring.wiring import Parts

feed_tokens = typer.Typer(no_args_is_help=True, help="Manage the tokens with which other services read revocations.")

Name = Annotated[str, typer.Argument(help="The name of the service.")]
_NAME_MAX_LENGTH = 100


@feed_tokens.command()
def create(name: Name, as_json: JsonOption = False) -> None:
    """Create a token for a service and print it. It is not stored, and can't be shown again."""
    # Printable: a control character in a name would reach the terminal of whoever lists the tokens.
    if not 0 < len(name) <= _NAME_MAX_LENGTH or not name.isprintable():
        fail(f"the name must have 1 to {_NAME_MAX_LENGTH} printable characters", Exit.USAGE)

    async def work() -> str | None:
        async with command_parts() as parts:
            return await _tokens(parts).create(name, source=OPERATOR)

    token = run(work())
    if token is None:
        fail(f"there is a feed token {name} already: revoke it, or choose another name", Exit.CONFLICT)
    # On stderr, so that `latchstring feed-token create NAME > file` has the token alone.
    say("keep it like a password: it is not shown again")
    if as_json:
        print_json({"name": name, "token": token})
    else:
        print(token)


@feed_tokens.command("list")
def list_feed_tokens(as_json: JsonOption = False) -> None:
    """List the services that have a token, the oldest first."""

    async def work() -> list[FeedToken]:
        async with command_parts() as parts:
            return await _tokens(parts).tokens()

    rows = [{"name": token.name, "created_at": token.created_at.isoformat()} for token in run(work())]
    if as_json:
        print_json(rows)
    else:
        print_table(rows)


@feed_tokens.command()
def revoke(name: Name, as_json: JsonOption = False) -> None:
    """Revoke a service's token: it is refused from its next request on."""

    async def work() -> bool:
        async with command_parts() as parts:
            return await _tokens(parts).revoke(name, source=OPERATOR)

    if not run(work()):
        fail(f"there is no feed token {name}", Exit.NOT_FOUND)
    if as_json:
        print_json({"revoked": name})
    else:
        print(f"revoked {name}")


def _tokens(parts: Parts) -> FeedTokens:
    return FeedTokens(parts.tools.database, parts.tools.clock)
