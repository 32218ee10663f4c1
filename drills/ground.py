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
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Protocol

from tests.support.postgres import server_for_tests
from tests.support.process import CHEAP_HASH, ServerProcess, StartedTooLateError, serve
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
        return f"| {self.promise} | {self.seen} | {self._word()} |"

    def _word(self) -> str:
        if self.is_kept:
            return "kept"
        return "not tried" if self.says is Says.CONDITION else "**broken**"


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


class Verdict(IntEnum):
    """What a drill has shown; the exit code of its command."""

    KEPT = 0
    BROKEN = 1
    TOO_BUSY = 2
    """Nothing. Something that has to be tried was not, or a server took too long to start."""


def verdict(figures: Sequence[Figure]) -> Verdict:
    """Return what the figures have shown together."""
    missed = {figure.says for figure in figures if not figure.is_kept}
    if missed - {Says.CONDITION} or not figures:
        return Verdict.BROKEN
    return Verdict.TOO_BUSY if missed else Verdict.KEPT


_WORDS = {
    Verdict.KEPT: "every promise was kept",
    Verdict.BROKEN: "a promise was broken",
    Verdict.TOO_BUSY: "this machine was too busy to tell",
}


def main(drill: Drill, *, rounds: int, databases: Sequence[str] = DATABASES) -> int:
    """Run a drill from the command line; return its `Verdict`, which is also said on stderr."""
    name = Path(sys.argv[0]).name
    parser = argparse.ArgumentParser(prog=f"drills/{name}", description=(sys.modules["__main__"].__doc__ or "").strip())
    parser.add_argument("--rounds", type=int, default=rounds, help=f"how often ({rounds})")
    parser.add_argument("--database", choices=databases, help="this one alone")
    given = parser.parse_args()
    figures: list[Figure] = []
    print("| promise | seen | verdict |\n| --- | --- | --- |")
    for kind in [given.database] if given.database else databases:
        began = time.monotonic()
        try:
            with empty_database(kind) as url:
                for figure in drill(url, rounds=given.rounds):
                    print(figure.line(), flush=True)
                    figures.append(figure)
        except StartedTooLateError as error:
            figures.append(Figure("a server starts", str(error), is_kept=False, says=Says.CONDITION))
            print(figures[-1].line(), flush=True)
        print(f"| *{kind}, {given.rounds} rounds* | *{time.monotonic() - began:.0f} s* | |", flush=True)
    judged = verdict(figures)
    print(f"{name}: {_WORDS[judged]}", file=sys.stderr)
    return judged


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which `share` of the values lie."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def bearer(token: str) -> dict[str, str]:
    """Return the header that shows a token."""
    return {"Authorization": f"Bearer {token}"}
