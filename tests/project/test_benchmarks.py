"""The benchmarks' own arithmetic and command line; what they measure is no matter of the suite's."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import against, command
from tests.support.folders import ROOT


@pytest.mark.parametrize(
    ("count", "lowest", "highest"),
    # The ranks of the sign test's 95 % interval, as tables print them.
    [(6, 1, 6), (8, 1, 8), (9, 2, 8), (10, 2, 9), (15, 4, 12), (20, 6, 15), (25, 8, 18), (50, 18, 33)],
)
def test_the_interval_is_that_of_the_sign_test(count: int, lowest: int, highest: int) -> None:
    """Whatever order the ratios come in."""
    ratios = [float(rank) for rank in range(count, 0, -1)]
    assert against.interval(ratios) == (lowest, highest)


def test_fewer_than_six_rounds_have_no_interval() -> None:
    """All five above the true median are no rarity."""
    with pytest.raises(ValueError, match="6 rounds"):
        against.interval([1.0] * 5)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.90, 0.95, "at most 5 % slower"),
        (0.98, 1.05, "at most 5 % slower"),
        (1.01, 1.04, "at most 5 % slower"),
        (0.98, 1.06, "not resolved"),
        (1.00, 1.06, "not resolved"),
        (1.01, 1.06, "slower"),
        (1.20, 1.30, "slower"),
    ],
)
def test_the_verdict_follows_from_the_interval(low: float, high: float, verdict: str) -> None:
    """At most 5 % by its upper end; slower only where nothing else is possible."""
    row = against.Row("login", [low, low, low, high, high, high])
    assert against.interval(row.ratios) == (low, high)
    assert row.verdict == verdict
    assert f"{low:.3f} to {high:.3f} | {verdict}" in row.line()


def test_the_command_line() -> None:
    """What is measured by default, and what does not go together."""
    promises, comparison = command.parsed([]), command.parsed(["--against", "HEAD~3", "--only", "confirm"])
    assert (promises.against, promises.seconds, promises.database) == (None, 2, "sqlite")
    assert (comparison.against, comparison.only, comparison.seconds) == ("HEAD~3", "confirm", 1)
    # Five rows, both sides, a second each: with what starts and warms up, within five minutes.
    assert len(against.ROWS) * comparison.rounds * 2 * comparison.seconds <= 240
    for wrong in (["--rounds", "9"], ["--against", "x", "--rounds", "5"], ["--against", "x", "--only", "storm"]):
        with pytest.raises(SystemExit):
            command.parsed(wrong)
    with pytest.raises(SystemExit):
        command.parsed(["--only", "confirm"])


def test_it_starts_as_a_script() -> None:
    """By the words of docs/performance.md, whichever folder one is in."""
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "run.py", "--help"], capture_output=True, text=True, check=True
    )
    assert "--against REF" in done.stdout


def test_an_unknown_commit_is_refused(tmp_path: Path) -> None:
    """Before anything is started."""
    with (
        pytest.raises(ValueError, match="no-such-commit can't be checked out"),
        against.checked_out("no-such-commit", tmp_path),
    ):
        pass
