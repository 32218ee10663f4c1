"""This working tree beside another commit, or with metrics beside without: the processor time of a request, new by old.

    .venv/bin/python benchmarks/run.py --against REF [--only ROW] [--rounds N] [--seconds N] [--database …]
    .venv/bin/python benchmarks/run.py --metrics [the same]

REF is checked out into a temporary folder, and a server of each is started on the same core, with the same libraries
and a database of its own. In each round both get the same load, one after the other, and who is first changes from
round to round: new old, old new. What a neighbour on the machine takes away makes both slower, or is one round of many.

What counts is the median of the rounds' ratios. Its 95 % interval comes from the order of the ratios alone, so that a
round with a disturbance in it weighs no more than any other.
"""

import contextlib
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import (
    HIGH_LIMITS,
    LOGIN_BODY,
    USERS,
    WARM_UP_SECONDS,
    Bench,
    Run,
    Side,
    following,
    hammering,
    refreshing,
    signing_in,
)
from benchmarks.load import request
from benchmarks.servers import ROOT, Server
from tests.support.process import CHEAP_HASH, clean_environment
from tests.support.service import PASSWORD

ROUNDS, LEAST_ROUNDS = 20, 6
"""With fewer than six, no interval holds the median with 95 %."""
MOST_SLOWER = 1.05
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Row:
    """One kind of request: the ratios of the rounds, and what they say."""

    name: str
    ratios: Sequence[float]
    note: str = ""

    @property
    def verdict(self) -> str:
        """What the interval says of a request's cost: within the bound, beyond it, or nothing yet."""
        low, high = interval(self.ratios)
        if high <= MOST_SLOWER:
            return "at most 5 % slower"
        return "slower" if low > 1 else "not resolved"

    def line(self) -> str:
        """Return the line, in Markdown."""
        low, high = interval(self.ratios)
        median = statistics.median(self.ratios)
        return f"| {self.name} | {median:.3f} | {low:.3f} to {high:.3f} | {self.verdict} | {self.note} |"


def interval(ratios: Sequence[float]) -> tuple[float, float]:
    """Return the two of the values between which the true median lies with 95 % at least, as near as may be.

    A value is below the true median with a chance of one half, whatever its distribution, so that the number of those
    below is binomial (the interval of the sign test).

    Raises:
        ValueError: fewer than six values.
    """
    if len(ratios) < LEAST_ROUNDS:
        raise ValueError(f"{LEAST_ROUNDS} rounds at least")
    ordered, missed = sorted(ratios), 0.0
    for left_out in range(len(ordered)):
        missed += 2 * math.comb(len(ordered), left_out) / 2 ** len(ordered)
        if missed > 1 - CONFIDENCE:
            return ordered[left_out - 1], ordered[-left_out]
    raise AssertionError("half of all values miss more than that")


def _guarded(path: str) -> Callable[[Server], Run]:
    def run(server: Server) -> Run:
        _, cookies = server.ask("POST", "/api/auth/login", LOGIN_BODY)
        return hammering(server, request("GET", path, cookies=cookies))

    return run


def _confirming(server: Server) -> Run:
    body = json.dumps({"password": PASSWORD}).encode()
    return following(server, login="/api/auth/login", path="/api/auth/confirm", body=body)


ROWS: Mapping[str, Callable[[Server], Run]] = {
    "protected": _guarded("/api/dashboard"),
    "user": _guarded("/api/auth/me"),
    "login": lambda server: hammering(server, *signing_in(server, users=USERS)),
    "refresh": lambda server: refreshing(server, login="/api/auth/login", refresh="/api/auth/refresh"),
    "confirm": _confirming,
}
"""The load of each row; the hash of a login costs next to nothing, limits count and nobody reaches them."""


METRICS = {"LATCHSTRING_METRICS_PORT": "0"}
"""The settings of a server with metrics."""


async def compare(
    bench: Bench, names: Sequence[str], *, old: Mapping[str, str], new: Mapping[str, str], rounds: int
) -> list[Row]:
    """Measure the rows named on servers with these settings, and print each."""
    rows = []
    with bench.ours(old) as old_server, bench.ours(new) as new_server:
        for name in names:
            before = Side("old", old_server, ROWS[name](old_server))
            after = Side("new", new_server, ROWS[name](new_server))
            for side in (before, after):
                await side.run(WARM_UP_SECONDS)
            for number in range(rounds):
                for side in (after, before) if number % 2 == 0 else (before, after):
                    await side.measure(bench.seconds)
            ratios = [mine / its for mine, its in zip(after.cpu_microseconds, before.cpu_microseconds, strict=True)]
            rows.append(Row(name, ratios, note=f"{after}; {before}"))
            print(rows[-1].line(), flush=True)
    return rows


def variables_of(tree: Path) -> dict[str, str]:
    """Return the settings of a server that runs a tree's code.

    Raises:
        RuntimeError: Python would import another one.
    """
    source = tree / "src"
    variables = {**CHEAP_HASH, **HIGH_LIMITS, "PYTHONPATH": str(source)}
    command = [sys.executable, "-c", "import latchstring; print(latchstring.__file__)"]
    found = subprocess.run(
        command, env=clean_environment(variables), cwd=os.sep, capture_output=True, text=True, check=True
    )
    if not Path(found.stdout.strip()).is_relative_to(source):
        raise RuntimeError(f"the code of {tree} is not what runs, but {found.stdout.strip()}")
    return variables


@contextlib.contextmanager
def checked_out(reference: str, folder: Path) -> Iterator[Path]:
    """Give a working tree of another commit, as long as the block runs.

    Raises:
        ValueError: Git knows no such commit.
    """
    tree = folder / "old"
    added = _git("worktree", "add", "--quiet", "--detach", str(tree), f"{reference}^{{commit}}")
    if added.returncode:
        raise ValueError(f"{reference} can't be checked out: {added.stderr.strip()}")
    try:
        yield tree
    finally:
        _git("worktree", "remove", "--force", str(tree))


def _git(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = ["git", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
