"""`latchstring keys rotate`, whose process dies in the middle: in the phase that the first argument names.

    python drills/crashing.py "after the new key"

It dies as by a power cut: nothing is rolled back or closed by it.
"""

import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # makes `drills` importable

from latchstring.apps.cli import main
from latchstring.core.keys import store
from latchstring.core.keys.actions import DatabaseKeys

EXIT_CODE = 86
PHASES = ("before anything is written", "after the old key's dates", "after the new key", "after the commit")

_Step = Callable[..., Coroutine[Any, Any, Any]]


def _dies(step: _Step, *, first: bool) -> _Step:
    async def dying(*arguments: object, **named: object) -> None:
        if not first:
            await step(*arguments, **named)
        os._exit(EXIT_CODE)

    return dying


def crash_in(phase: str) -> None:
    """Make the command die there."""
    match PHASES.index(phase):
        case 0:
            store.update_dates = _dies(store.update_dates, first=True)
        case 1:
            store.update_dates = _dies(store.update_dates, first=False)
        case 2:
            store.insert_key = _dies(store.insert_key, first=False)
        case _:
            DatabaseKeys.rotate = _dies(DatabaseKeys.rotate, first=False)  # type: ignore[method-assign]


if __name__ == "__main__":
    crash_in(sys.argv[1])
    sys.argv = ["latchstring", "keys", "rotate"]
    main()
