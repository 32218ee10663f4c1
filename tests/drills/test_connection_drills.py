"""The drills about connections in small: a few of each kind."""

import pytest

from drills import stray_bytes
from tests.drills.judged import judge


@pytest.mark.parametrize("backend", ["sqlite"])  # no byte reaches a database
def test_no_connection_is_held_by_stray_bytes(database_url: str) -> None:
    """T11: how soon each kind ends is up to the machine, that it ends is not."""
    figures = stray_bytes.small_drill(database_url, rounds=5)
    assert len(figures) == len(stray_bytes.KINDS)
    judge(figures)
