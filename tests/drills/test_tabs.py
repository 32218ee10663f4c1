"""The drill of two tabs in small: three rounds, two workers. The full one is run by hand, with `drills/tabs.py`."""

import pytest

from drills.tabs import drill
from tests.drills.judged import judge
from tests.support.browser import chromium


@pytest.mark.parametrize("backend", ["postgresql"])  # on SQLite, in every order: tests/core/sessions/test_theft.py
def test_nobody_is_signed_out(database_url: str) -> None:
    """FOUND.md T2, T3: one tab confirms while the other one renews, and both go on."""
    chromium()
    judge(drill(database_url, rounds=3, workers=2))
