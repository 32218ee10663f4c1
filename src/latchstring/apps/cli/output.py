"""Results on stdout, words on stderr, and what the exit code says."""

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


def say(words: str) -> None:
    """Say something to the person at the terminal."""
    print(words, file=sys.stderr, flush=True)


def fail(words: str, code: Exit = Exit.FAILED) -> NoReturn:
    """Say what is wrong, and end with `code`."""
    say(f"error: {words}")
    raise typer.Exit(code)


def print_json(value: object) -> None:
    """Print a result for a program."""
    print(json.dumps(value, indent=2, default=str))


def print_record(record: Mapping[str, object]) -> None:
    """Print one result for a person: a line for each field."""
    width = max(len(name) for name in record)
    for name, value in record.items():
        print(f"{name:<{width}}  {_shown(value)}")


def print_table(rows: Sequence[Mapping[str, object]]) -> None:
    """Print results for a person: a line each, in columns."""
    if not rows:
        return
    table = [list(rows[0]), *([_shown(value) for value in row.values()] for row in rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    for line in table:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())


def _shown(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return (", ".join(map(str, value)) or "-") if isinstance(value, list | tuple) else str(value)
