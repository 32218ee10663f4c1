"""`keys list`."""

from typing import Any

import typer

from latchstring.apps.cli.opened import opened_auth, run
from latchstring.apps.cli.output import JsonOption, print_json, print_table

keys = typer.Typer(no_args_is_help=True, help="Look at the signing keys.")


@keys.callback()
def keys_group() -> None:
    """Look at the signing keys."""


@keys.command("list")
def list_keys(as_json: JsonOption = False) -> None:
    """List the keys, the oldest first, and which of them signs."""

    async def work() -> list[dict[str, Any]]:
        async with opened_auth() as auth:
            return [
                {
                    "kid": key.kid,
                    "algorithm": key.algorithm.value,
                    "state": key.state.value,
                    "source": key.source,
                    "published_at": key.published_at.isoformat() if key.published_at else None,
                    "signs_from": key.signs_from.isoformat() if key.signs_from else None,
                    "verifies_until": key.verifies_until.isoformat() if key.verifies_until else None,
                }
                for key in await auth.ring.list_keys()
            ]

    rows = run(work())
    if as_json:
        print_json(rows)
    else:
        print_table(rows)
