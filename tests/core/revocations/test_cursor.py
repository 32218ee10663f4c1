"""The cursor of the feed: each transaction is read when it has ended, and not again."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latchstring.core.revocations.cursor import CURSOR_PATTERN, MAX_OPEN, Cursor

snapshots = st.tuples(st.integers(3, 10_000), st.sets(st.integers(3, 10_000), max_size=2 * MAX_OPEN))


def printed(following: int, in_progress: set[int]) -> str:
    """Returns a snapshot as PostgreSQL prints it."""
    return f"{min(in_progress, default=following)}:{following}:{','.join(map(str, sorted(in_progress)))}"


@pytest.mark.parametrize(
    ("snapshot", "text"),
    [("742:742:", "742"), ("710:742:710,731", "742.32.11"), ("3:4:3", "4.1")],
)
def test_it_is_short(snapshot: str, text: str) -> None:
    """A number, and how far below it each transaction in progress lies."""
    assert str(Cursor.of_snapshot(snapshot)) == text


@given(snapshots)
def test_nothing_is_missed_and_little_is_read_twice(snapshot: tuple[int, set[int]]) -> None:
    """What was in progress and what is to come is read, and nothing else unless more are open than can be named."""
    highest, in_progress = snapshot
    following = max([highest, *(number + 1 for number in in_progress)])
    exact = Cursor.of_snapshot(printed(following, in_progress))
    assert (exact.next_id, set(exact.open_ids)) == (following, in_progress)
    cursor = exact.shortened()
    reads = {number for number in range(following + 5) if number >= cursor.next_id or number in cursor.open_ids}
    missing = in_progress | set(range(following, following + 5))
    assert reads >= missing
    if len(in_progress) <= MAX_OPEN:
        assert reads == missing
    else:
        assert min(reads - missing, default=following) > sorted(in_progress)[MAX_OPEN]


@given(snapshots)
def test_a_text_is_the_same_cursor(snapshot: tuple[int, set[int]]) -> None:
    """What a follower sends back is accepted by the pattern, and means what was sent to it."""
    highest, in_progress = snapshot
    exact = Cursor.of_snapshot(printed(max([highest, *(number + 1 for number in in_progress)]), in_progress))
    assert Cursor.parse(str(exact)) == exact
    cursor = exact.shortened()
    assert re.fullmatch(CURSOR_PATTERN, str(cursor))
    assert Cursor.parse(str(cursor)) == cursor


def test_a_cursor_of_version_0_1_0() -> None:
    """It is a number alone, from which on everything is read."""
    assert Cursor.parse("710") == Cursor(next_id=710)


def test_a_forged_cursor_names_no_id_below_zero() -> None:
    """PostgreSQL would refuse it with an error."""
    assert Cursor.parse("5.999").open_ids == (0,)
