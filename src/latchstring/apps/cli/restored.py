"""The command `restored`: the step after restoring a backup."""

import asyncio
from dataclasses import asdict
from typing import Annotated

import typer

from latchstring import DEFAULT_FEATURES
from latchstring.apps.cli.output import JsonOption, confirm, print_json, say
from latchstring.apps.cli.target import command_parts, run
from latchstring.core.restore.actions import Restored
from latchstring.foundation.events import OPERATOR

_ENDS = "This signs everyone out, and replaces every signing key in the database, everywhere and at once."


def restored(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    as_json: JsonOption = False,
) -> None:
    """End every session and key of before: the step after restoring a backup of the database.

    Without it, what ended after the backup was taken is valid again: sessions, tokens and stolen keys.
    """
    say(_ENDS)
    if not yes:
        confirm("Was the database restored from a backup, and is everyone to sign in again?")

    async def work() -> Restored:
        # With features, because what they store may be voided as well.
        async with command_parts(features=DEFAULT_FEATURES) as parts:
            outcome = await parts.restore.restored(source=OPERATOR)
            # Until the next second: after another restore of the same copy, the next run must not give the same epoch.
            await asyncio.sleep(1 - parts.tools.clock.now().timestamp() % 1)
            return outcome

    result = run(work())
    if as_json:
        print_json(asdict(result))
        return
    print(f"epoch {result.epoch}: every session of before has ended")
    if result.new_key is not None:
        print(f"new key {result.new_key}: published now, signs from now on")
    for kid in result.ended_keys:
        print(f"key {kid}: no token of it is taken any more")
    for note in result.notes:
        print(f"- {note}")
