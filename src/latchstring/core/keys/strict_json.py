"""JSON as tokens and key sets may spell it: no name twice. Pure."""

import json
from typing import Any, NoReturn


class StrictJsonError(ValueError):
    """The JSON has two readings, or a number that is not whole."""


def unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object's members.

    Raises:
        StrictJsonError: a name is given twice.
    """
    # Parsers disagree about which of two counts, so that a check and its user could each read another value.
    members = dict(pairs)
    if len(members) != len(pairs):
        raise StrictJsonError("a name is given twice")
    return members


def _refused_number(_text: str) -> NoReturn:
    raise StrictJsonError("a number that is not whole")


read_json = json.JSONDecoder(
    object_pairs_hook=unique_names, parse_float=_refused_number, parse_constant=_refused_number
).decode
"""Reads what a token may say: no name twice, and no number that is not whole."""
