"""`feed-token create | list | revoke`."""

from typing import Annotated

import typer

from latchstring.apps.cli.output import Exit, JsonOption, fail, print_json, print_table, say
from latchstring.apps.cli.target import opened_parts, run
from latchstring.features.revocation_feed.actions import FeedTokens
from latchstring.features.revocation_feed.store import FeedToken
from latchstring.foundation.events import OPERATOR
from latchstring.wiring import Parts

feed_tokens = typer.Typer(no_args_is_help=True, help="Let other services follow revocations.")

Name = Annotated[str, typer.Argument(help="Which service it is for.")]
_NAME_MAX_LENGTH = 100


@feed_tokens.command()
def create(name: Name, as_json: JsonOption = False) -> None:
    """Make a token for a service, and print it: it is shown this once, and kept nowhere."""
    if not 0 < len(name) <= _NAME_MAX_LENGTH or not name.isprintable():
        fail(f"a name has 1 to {_NAME_MAX_LENGTH} characters that can be printed", Exit.USAGE)

    async def work() -> str | None:
        async with opened_parts() as parts:
            return await _tokens(parts).create(name, source=OPERATOR)

    token = run(work())
    if token is None:
        fail(f"there is a feed token {name} already", Exit.CONFLICT)
    say("keep it like a password: it is not shown again")
    if as_json:
        print_json({"name": name, "token": token})
    else:
        print(token)


@feed_tokens.command("list")
def list_feed_tokens(as_json: JsonOption = False) -> None:
    """List the services that have one, the oldest first."""

    async def work() -> list[FeedToken]:
        async with opened_parts() as parts:
            return await _tokens(parts).tokens()

    rows = [{"name": token.name, "created_at": token.created_at.isoformat()} for token in run(work())]
    if as_json:
        print_json(rows)
    else:
        print_table(rows)


@feed_tokens.command()
def revoke(name: Name, as_json: JsonOption = False) -> None:
    """Refuse a service's token from its next request on."""

    async def work() -> bool:
        async with opened_parts() as parts:
            return await _tokens(parts).revoke(name, source=OPERATOR)

    if not run(work()):
        fail(f"there is no feed token {name}", Exit.NOT_FOUND)
    if as_json:
        print_json({"revoked": name})
    else:
        print(f"revoked {name}")


def _tokens(parts: Parts) -> FeedTokens:
    return FeedTokens(parts.tools.database, parts.tools.clock)
