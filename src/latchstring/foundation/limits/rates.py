"""A rate: a number of times within a number of seconds."""

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Self

from pydantic import BeforeValidator

_NOTATION = re.compile(r"([0-9]{1,9})\s*/\s*([0-9]{1,6})\s*([smh])")
_UNITS = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True, slots=True)
class Rate:
    """A number of times within a number of seconds."""

    times: int
    seconds: int

    def __post_init__(self) -> None:
        """Check that both numbers are at least 1."""
        # No times would lock every account; a window of no seconds would limit nothing.
        if self.times < 1 or self.seconds < 1:
            raise ValueError("must be a rate of at least once, in at least a second")

    @property
    def window(self) -> timedelta:
        """The length of the window."""
        return timedelta(seconds=self.seconds)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the rate written as `10/15m`: times, a slash, a number of seconds, minutes or hours (`s`, `m`, `h`).

        Raises:
            ValueError: another notation, or one of the numbers is 0.
        """
        match = _NOTATION.fullmatch(text.strip())
        if match is None:
            raise ValueError("must be a rate such as 10/15m: times, a slash, a number of s, m or h")
        return cls(int(match[1]), int(match[2]) * _UNITS[match[3]])

    def __str__(self) -> str:
        """Return the notation that `parse` reads."""
        unit = next(unit for unit in ("h", "m", "s") if self.seconds % _UNITS[unit] == 0)
        return f"{self.times}/{self.seconds // _UNITS[unit]}{unit}"


def _rate(value: object) -> object:
    return Rate.parse(value) if isinstance(value, str) else value


RateSetting = Annotated[Rate, BeforeValidator(_rate)]
