"""Every drill in small: a few rounds, two workers. The full ones are run by hand, with `drills/NAME.py`."""

import math
from collections.abc import Callable, Sequence
from functools import partial

import pytest

from drills import logout_against_refresh, parallel_refresh, reuse, skew, thief, void_proof
from drills.ground import Figure
from tests.drills.judged import judge

WORKERS = 2


@pytest.mark.parametrize(
    ("drill", "rounds"),
    [
        pytest.param(logout_against_refresh.drill, 18, id="logout_against_refresh"),
        pytest.param(parallel_refresh.drill, 3, id="parallel_refresh"),
        # After a restart, and with no grace: tests/rooms/test_sessions.py.
        pytest.param(partial(reuse.drill, restarts=False), 2, id="reuse"),
        # T1 to T4 and T23: each case in both its ways.
        pytest.param(partial(thief.drill, within=math.inf), 10, id="thief"),
        pytest.param(void_proof.drill, 4, id="void_proof"),
    ],
)
def test_the_promises_are_kept(drill: Callable[..., Sequence[Figure]], rounds: int, database_url: str) -> None:
    """Whatever a drill promises in its table, it sees, though not as soon as by hand."""
    judge(drill(database_url, rounds=rounds, workers=WORKERS))


@pytest.mark.parametrize("backend", ["postgresql"])  # on SQLite: tests/core/sessions/test_theft.py
def test_a_sign_out_needs_no_clock(database_url: str) -> None:
    """T5 and T16: each kind of token at both doors, in both directions. How soon is up to the machine."""
    judge(skew.drill(database_url, rounds=6, workers=WORKERS, skews=[skew.AHEAD], within=math.inf))
