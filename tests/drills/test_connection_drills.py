"""The drills about connections in small: a few of each kind, and one restart."""

import pytest

from drills import rolling_restart, stray_bytes
from tests.drills.judged import judge


@pytest.mark.parametrize("backend", ["sqlite"])  # no byte reaches a database
def test_no_connection_is_held_by_stray_bytes(database_url: str) -> None:
    """T11: how soon each kind ends is up to the machine, that it ends is not."""
    figures = stray_bytes.small_drill(database_url, rounds=5)
    assert len(figures) == len(stray_bytes.KINDS)
    judge(figures)


@pytest.mark.parametrize("backend", ["postgresql"])  # what is lost is lost before any statement
def test_no_request_is_lost_in_a_restart(database_url: str) -> None:
    """T14: an instance of two stops and starts behind nginx, which sends no POST twice."""
    judge(rolling_restart.restarts(database_url, rounds=1, pause_seconds=1, keepalive="500ms", at_least=300))
