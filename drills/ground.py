"""What the drills stand on: a database, a server as a stranger runs it, and a table of figures with a verdict.

def drill(url: str, *, rounds: int) -> list[Figure]: ...       what a drill is; the suite runs it with few rounds

if __name__ == "__main__":
    sys.exit(main(drill, rounds=200))                          the command line: both databases, all the rounds
"""

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from tests.support.postgres import server_for_tests
from tests.support.process import CHEAP_HASH, ServerProcess, serve
from tests.support.service import SECRET

DATABASES = ("sqlite", "postgresql")


class Says(StrEnum):
    """What a figure is about, and whether a machine with other work to do may break it.

    A drill by hand judges all three, on a machine with nothing else to do. The suite must pass on any machine, and
    judges promises.
    """

    PROMISE = "promise"
    SPEED = "speed"
    """A bound in seconds."""
    CONDITION = "condition"
    """What has to be tried, so that the promises say something, and depends on who comes first."""


@dataclass(frozen=True)
class Figure:
    """One line of the table: what was promised, what was seen, and whether the promise was kept."""

    promise: str
    seen: str
    is_kept: bool
    says: Says = Says.PROMISE

    def line(self) -> str:
        """Return the line, in Markdown."""
        return f"| {self.promise} | {self.seen} | {'kept' if self.is_kept else '**broken**'} |"


class Drill(Protocol):
    """A drill, on a database that is empty."""

    def __call__(self, url: str, *, rounds: int) -> Sequence[Figure]:
        """Return what was seen."""
        ...


@contextlib.contextmanager
def empty_database(kind: str) -> Iterator[str]:
    """Give the URL of a database nobody has used: a SQLite file, or PostgreSQL on a server of its own."""
    with contextlib.ExitStack() as stack:
        if kind == "postgresql":
            yield stack.enter_context(server_for_tests()).create_database()
        else:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="latchstring-drill-"))
            yield f"sqlite:///{folder}/latchstring.db"


@contextlib.contextmanager
def serving(
    url: str,
    *,
    workers: int = 4,
    variables: Mapping[str, str] | None = None,
    program: Callable[[], None] = serve,
) -> Iterator[ServerProcess]:
    """Run `latchstring serve`, or a `program` like it, on a database: cheap hashes, and no limits."""
    settings = {
        **CHEAP_HASH,
        "LATCHSTRING_DATABASE_URL": url,
        "LATCHSTRING_SECRET": SECRET,
        "LATCHSTRING_LIMITS": "off",
        **(variables or {}),
    }
    with (
        tempfile.TemporaryDirectory(prefix="latchstring-drill-") as home,
        ServerProcess(Path(home), variables=settings, workers=workers, program=program) as server,
    ):
        yield server


def main(drill: Drill, *, rounds: int, databases: Sequence[str] = DATABASES) -> int:
    """Run a drill from the command line; return the exit code: 1 when a promise was broken."""
    name = Path(sys.argv[0]).name
    parser = argparse.ArgumentParser(prog=f"drills/{name}", description=(sys.modules["__main__"].__doc__ or "").strip())
    parser.add_argument("--rounds", type=int, default=rounds, help=f"how often ({rounds})")
    parser.add_argument("--database", choices=databases, help="this one alone")
    given = parser.parse_args()
    figures: list[Figure] = []
    print("| promise | seen | verdict |\n| --- | --- | --- |")
    for kind in [given.database] if given.database else databases:
        began = time.monotonic()
        with empty_database(kind) as url:
            for figure in drill(url, rounds=given.rounds):
                print(figure.line(), flush=True)
                figures.append(figure)
        print(f"| *{kind}, {given.rounds} rounds* | *{time.monotonic() - began:.0f} s* | |", flush=True)
    return 0 if figures and all(figure.is_kept for figure in figures) else 1


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which `share` of the values lie."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def bearer(token: str) -> dict[str, str]:
    """Return the header that shows a token."""
    return {"Authorization": f"Bearer {token}"}
