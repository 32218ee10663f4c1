"""Output of commands: results on stdout, messages on stderr, and exit codes."""

import json
import sys
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Annotated, NoReturn

import typer


class Exit(IntEnum):
    """Exit codes; scripts may rely on them."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    CONFIGURATION = 3
    NOT_FOUND = 4
    CONFLICT = 5


JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def say(message: str) -> None:
    """Print a message to stderr, so that stdout contains nothing but the result."""
    print(message, file=sys.stderr, flush=True)


def fail(message: str, code: Exit = Exit.FAILED) -> NoReturn:
    """Print an error message and exit with `code`."""
    # One sentence and no traceback, which may show the arguments of functions.
    say(f"error: {message}")
    raise typer.Exit(code)


def confirm(question: str) -> None:
    """Ask before something that can't be undone; exit with code 1 on a no, and with 2 without a terminal."""
    # Without a terminal the prompt would wait for ever, in the middle of an emergency.
    if not sys.stdin.isatty():
        fail("confirmation needs a terminal: pass --yes", Exit.USAGE)
    typer.confirm(question, abort=True, err=True)


def print_json(value: object) -> None:
    """Print a result as JSON, for programs."""
    print(json.dumps(value, indent=2, default=str))


def print_record(record: Mapping[str, object]) -> None:
    """Print one result for people: a line for each field."""
    width = max(len(name) for name in record)
    for name, value in record.items():
        print(f"{name:<{width}}  {_formatted(value)}")


def print_table(rows: Sequence[Mapping[str, object]]) -> None:
    """Print results for people: a line for each, in columns."""
    if not rows:
        return
    table = [list(rows[0]), *([_formatted(value) for value in row.values()] for row in rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    for line in table:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())


def _formatted(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return (", ".join(map(str, value)) or "-") if isinstance(value, list | tuple) else str(value)
