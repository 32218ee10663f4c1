"""The commands `keys list | rotate | retire`."""

from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Annotated, Any, NoReturn

import typer

from latchstring.apps.cli.output import Exit, JsonOption, confirm, fail, print_json, print_table, say
from latchstring.apps.cli.target import command_parts, run
from latchstring.core.keys.ring import ListedKey
from latchstring.core.keys.rotation import KeyChange, KeyConflict
from latchstring.foundation.events import OPERATOR
from latchstring.wiring import Parts

keys = typer.Typer(no_args_is_help=True, help="List, rotate and retire signing keys.")

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Change nothing; print what would change.")]

_SIGNS_OUT = "This ends every key, and signs everyone out, everywhere and at once."


@keys.command("list")
def list_keys(as_json: JsonOption = False) -> None:
    """List the keys with their states, the oldest first."""

    async def work() -> list[dict[str, Any]]:
        async with command_parts() as parts:
            return [_record(key) for key in await parts.ring.list_keys()]

    rows = run(work())
    if as_json:
        print_json(rows)
    else:
        print_table(rows)


@keys.command()
def rotate(dry_run: DryRunOption = False, as_json: JsonOption = False) -> None:
    """Publish a new key now. It begins to sign when all caches have it. Nobody is signed out."""

    # One transaction writes the whole rotation: there is no second step that could be forgotten, or done twice.
    async def change(parts: Parts) -> KeyChange | KeyConflict:
        return await parts.keys.rotate(source=OPERATOR, dry_run=dry_run)

    _change(change, "no rotation", dry_run=dry_run, as_json=as_json)


@keys.command()
def retire(
    kid: Annotated[str, typer.Argument(metavar="KID", help="The key's id, from `keys list`.")],
    now: Annotated[bool, typer.Option("--now", help=f"The key was stolen. {_SIGNS_OUT}")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Retire a key. Another one takes over, as in a rotation. With --now every key ends, everywhere and at once."""

    # With --now every key, whichever is named: a thief of one had the database and the secret, or the memory.
    async def change(parts: Parts) -> KeyChange | KeyConflict:
        if now:
            return await parts.core.sessions.retire_key_at_once(kid, source=OPERATOR, dry_run=dry_run)
        return await parts.keys.retire(kid, source=OPERATOR, dry_run=dry_run)

    if now:
        say(_SIGNS_OUT)
    if now and not (yes or dry_run):
        confirm(f"Retire key {kid} at once?")
    _change(change, f"key {kid} is not retired", dry_run=dry_run, as_json=as_json)


def _change(
    change: Callable[[Parts], Coroutine[Any, Any, KeyChange | KeyConflict]],
    failure: str,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    async def work() -> tuple[KeyChange | KeyConflict, list[ListedKey]]:
        async with command_parts() as parts:
            outcome = await change(parts)
            return outcome, await parts.ring.list_keys() if outcome is KeyConflict.UNDER_WAY else []

    outcome, listed = run(work())
    if isinstance(outcome, KeyConflict):
        _refuse(outcome, listed, failure)
    new = {"kid": outcome.new_kid, "signs_from": _time(outcome.new_signs_from)}
    result = {
        "dry_run": dry_run,
        "retired": [
            {"kid": key.kid, "retired_at": _time(key.retired_at), "verifies_until": _time(key.verifies_until)}
            for key in outcome.changed
            if key.retired_at is not None
        ],
        "recalled": [key.kid for key in outcome.changed if key.retired_at is None],
        "new": new if outcome.new_signs_from else None,
    }
    if as_json:
        print_json(result)
    else:
        _print_change(outcome)
    if dry_run:
        say("this was a dry run: nothing was changed")


def _print_change(change: KeyChange) -> None:
    if change.new_signs_from is not None:
        print(f"new key {change.new_kid or '(not made yet)'}: published now, signs from {_time(change.new_signs_from)}")
    for key in change.changed:
        if key.retired_at is None:
            print(f"key {key.kid} keeps signing")
        elif key.is_ended_at_once:
            print(f"key {key.kid}: no token of it is taken any more")
        else:
            print(f"key {key.kid}: signs until {_time(key.retired_at)}, verifies until {_time(key.verifies_until)}")


def _refuse(conflict: KeyConflict, listed: list[ListedKey], failure: str) -> NoReturn:
    # A code for each kind, so that a script can distinguish a misspelt key from a rotation that is under way.
    match conflict:
        case KeyConflict.UNKNOWN:
            fail(f"{failure}: {conflict}", Exit.NOT_FOUND)
        case KeyConflict.NOTHING_TO_ROTATE:
            fail(f"{failure}: {conflict}")
        case KeyConflict.UNDER_WAY:
            pending = [key for key in listed if key.retired_at is None][-1]
            fail(f"{failure}: {conflict}, key {pending.kid} signs from {_time(pending.signs_from)}", Exit.CONFLICT)
        case KeyConflict.RETIRED_ALREADY | KeyConflict.GONE_ALREADY:
            fail(f"{failure}: {conflict}", Exit.CONFLICT)


def _record(key: ListedKey) -> dict[str, Any]:
    return {
        "kid": key.kid,
        "algorithm": key.algorithm.value,
        "state": key.state.value,
        "source": key.source,
        "published_at": _time(key.published_at),
        "signs_from": _time(key.signs_from),
        "retired_at": _time(key.retired_at),
        "verifies_until": _time(key.verifies_until),
    }


def _time(instant: datetime | None) -> str | None:
    return None if instant is None else instant.isoformat(timespec="seconds")
