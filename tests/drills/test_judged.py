"""A drill's figures, judged: what a busy machine may bring about, and what it may not (S1)."""

import pytest

from drills.ground import Figure, Says, Verdict, verdict
from tests.drills.judged import judge

KEPT = Figure("a promise", "kept", is_kept=True)


def missed(says: Says) -> Figure:
    return Figure("something", "missed", is_kept=False, says=says)


@pytest.mark.parametrize("beside", [[], [missed(Says.SPEED)], [missed(Says.CONDITION)]])
def test_a_broken_promise_fails(beside: list[Figure]) -> None:
    """Whatever else the machine may be blamed for."""
    with pytest.raises(AssertionError, match=r"something \| missed \| \*\*broken\*\*"):
        judge([KEPT, *beside, missed(Says.PROMISE)])


def test_nothing_fails() -> None:
    """A drill that saw nothing has shown nothing."""
    with pytest.raises(AssertionError, match="nothing was tried"):
        judge([])


def test_what_was_slow_is_no_matter_of_the_suite() -> None:
    """`drills/NAME.py` judges it, on a machine with nothing else to do."""
    judge([KEPT, missed(Says.SPEED)])


def test_what_could_not_be_tried_is_said() -> None:
    """The test is shown as skipped, with the reason."""
    with pytest.raises(pytest.skip.Exception, match=r"not judged.*\n.*something"):
        judge([KEPT, missed(Says.CONDITION), missed(Says.SPEED)])


@pytest.mark.parametrize(
    ("figures", "shown"),
    [
        ([KEPT], Verdict.KEPT),
        ([KEPT, missed(Says.CONDITION)], Verdict.TOO_BUSY),
        ([missed(Says.CONDITION), missed(Says.PROMISE)], Verdict.BROKEN),
        ([KEPT, missed(Says.SPEED)], Verdict.BROKEN),
        ([], Verdict.BROKEN),
    ],
)
def test_what_a_command_says(figures: list[Figure], shown: Verdict) -> None:
    """Exit code 0: kept. 1: broken. 2: not tried, and nothing is known."""
    assert verdict(figures) is shown
    assert missed(Says.CONDITION).line().endswith("| not tried |")
