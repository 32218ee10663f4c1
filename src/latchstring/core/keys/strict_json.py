"""A strict JSON parser for tokens and key sets: no duplicate names, and in tokens only whole numbers. Pure."""

import json
from typing import Any, NoReturn


class StrictJsonError(ValueError):
    """The JSON has a duplicate name, or a number that is not whole."""


def unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object's members.

    Raises:
        StrictJsonError: a name is given twice.
    """
    # Parsers disagree about which duplicate counts, so a check and the code behind it could read different values
    # (RFC 7515, section 4; RFC 7519, section 4).
    members = dict(pairs)
    if len(members) != len(pairs):
        raise StrictJsonError("a name is given twice")
    return members


# Python's parser accepts NaN and Infinity, and reads 1e400 as infinity; a NaN `exp` compares false with every time.
def _refused_number(_text: str) -> NoReturn:
    raise StrictJsonError("a number that is not whole")


read_json = json.JSONDecoder(
    object_pairs_hook=unique_names, parse_float=_refused_number, parse_constant=_refused_number
).decode
"""Parse JSON, and refuse duplicate names and numbers that are not whole."""
